"""Snapshots of named volumes, and resets to them, alone or in one moment with a container's files.

Several containers may have a volume mounted, so its folder stays the same: a snapshot copies what is in it, and a reset
exchanges that, while all processes stand still that could see it. The index decides: a reset is in the volume's row as
`pending` before the folders are touched, and whoever comes to the volume next does what is pending.
"""

from __future__ import annotations

import fcntl
import os
from functools import partial

from nbhull.runtime import volumes
from nbhull.runtime.composition import DATA, OF_VOLUME
from nbhull.runtime.errors import Conflict, NotFound
from nbhull.runtime.launcher import wire
from nbhull.runtime.lean import dumps, loads
from nbhull.runtime.model import parse_name
from nbhull.runtime.running import holds
from nbhull.runtime.volumes import data_folder, path_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from sqlite3 import Row
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.lean import Socket
    from nbhull.runtime.snapshots.taking import Taking

UNKNOWN_SIZE = -1
RESET = "reset"
"""why a snapshot was taken without being asked for"""


class locked:
    """Alone in changing some volumes, with nothing left to do of what others had begun, for a `with`; `shared`: along
    with others that only mount them. Raises NotFound if one is gone."""

    def __init__(self, engine: Engine, ids: Iterable[str], *, shared: bool = False) -> None:
        self.engine = engine
        self.ids = sorted(set(ids))
        self.kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self.descriptors: list[int] = []

    def __enter__(self) -> None:
        try:
            for identity in self.ids:
                self.lock(identity)
        except BaseException:
            self.__exit__()
            raise

    def lock(self, identity: str) -> None:
        """Lock one."""
        store = self.engine.store
        try:
            fd = os.open(store.path(path_of(identity)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"there is no volume {identity!r}", "`nbhull volume ls` lists what there is") from None
        self.descriptors.append(fd)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.listdir(fd) != [DATA]:
            finish(self.engine, identity)
        fcntl.flock(fd, self.kind)

    def __exit__(self, *exception: object) -> None:
        for fd in self.descriptors:
            os.close(fd)


class halted:
    """All processes stand still that have some volumes, for a `with`, but for those of the container `but`."""

    def __init__(self, engine: Engine, ids: Iterable[str], *, but: str = "") -> None:
        self.rows = [row for row in users(engine, ids) if row["id"] != but]
        self.engine = engine
        self.channels: list[Socket] = []

    def __enter__(self) -> None:
        try:
            for row in self.rows:
                try:
                    channel = self.engine.launcher_of(row).open("freeze", container=row["id"])
                    self.channels.append(channel)
                    wire.receive_answer(channel)
                except (Conflict, NotFound):
                    continue  # it has ended this moment
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        for channel in self.channels:
            channel.close()


def users(engine: Engine, ids: Iterable[str]) -> list[Row]:
    """The rows of the running containers that have one of some volumes."""
    wanted = set(ids)
    rows = engine.store.query("select * from containers order by id") if wanted else []
    having = [row for row in rows if wanted & set(loads(row["record"]).get("volumes", {}).values())]
    return [row for row in having if holds(row["launcher"], row["id"])]


class Keeping:
    """A volume of which a snapshot is being taken, under its lock."""

    def __init__(self, engine: Engine, identity: str, name: str | None) -> None:
        self.engine = engine
        self.store = engine.store
        self.volume = volumes.find(self.store, identity)
        self.image = os.urandom(6).hex()
        self.name = name or f"{self.volume['name'][:100]}-{self.image[:6]}"
        self.part = f"layers/{self.image}.part"

    def copy(self) -> tuple[str, str]:
        """What is to be copied, and where, while nobody writes; what was copied before goes."""
        self.discard()
        os.mkdir(self.store.path(self.part), 0o700)
        return data_folder(self.volume["id"]), f"{self.part}/{DATA}"

    def keep(self) -> None:
        """It is copied."""
        os.rename(self.store.path(self.part), self.store.path("layers", self.image))

    def discard(self) -> None:
        """It will not be kept."""
        if os.path.isdir(self.store.path(self.part)):
            self.engine.launcher().request("delete", path=self.part)

    def register(self, **row: Any) -> None:
        """Write it down, in a transaction."""
        self.store.add_image(image_row(self.volume, self.image, self.name) | row, {self.image: None})
        self.store.query("update volumes set snapshot = ? where id = ?", self.image, self.volume["id"])


def image_row(volume: Row, image: str, name: str) -> dict[str, Any]:
    """The row of a volume's snapshot."""
    return {
        "id": image,
        "parent": volume["snapshot"],
        "base": OF_VOLUME,
        "size": UNKNOWN_SIZE,
        "top": image,
        "record": {"base": OF_VOLUME, "parts": [], "volume": volume["id"]},
        "name": name,
    }


def take_besides(taking: Taking, asleep: Collection[int], row: dict[str, Any]) -> None:
    """Take a snapshot of a container with its volumes; `row`: what is known of its image. Raises Conflict where it has
    none, or a name is taken."""
    engine, ids = taking.engine, dict(taking.record.get("volumes", {}))
    if not ids:
        raise Conflict(f"the container {taking.row['name']} has no volumes", "take the snapshot without them")
    names = {volume: f"{row['name'][:64]}-{volume[:63]}" for volume in ids}
    refuse_taken(engine, names.values())
    with locked(engine, ids.values()):
        taking.volumes = [Keeping(engine, identity, names[volume]) for volume, identity in ids.items()]
        try:
            with halted(engine, ids.values(), but=taking.id):
                taking.prepare(asleep)
            for volume in taking.volumes:
                volume.keep()
        except BaseException:
            for volume in taking.volumes:
                volume.discard()
            raise
        taking.register(row)


class Exchange:
    """A volume that is being put back on a snapshot, under its lock."""

    def __init__(self, engine: Engine, identity: str, image: str) -> None:
        """`image`: the snapshot's id. Raises Conflict where something is mounted in the volume."""
        self.engine = engine
        self.store = engine.store
        self.volume = volumes.find(self.store, identity)
        self.image = image
        self.layer = self.store.find("images", image, "snapshot")["top"]
        self.discarded = os.urandom(6).hex()
        self.new = f"{path_of(identity)}/new-{self.discarded}"
        refuse_nested(engine, identity)

    def prepare(self) -> None:
        """Copy the snapshot to where it is exchanged from."""
        self.engine.launcher().request("copy", source=f"layers/{self.layer}/{DATA}", target=self.new)

    def discard(self) -> None:
        """It is not exchanged."""
        self.engine.launcher().request("delete", path=self.new)

    def register(self) -> None:
        """Decide it, in a transaction; what is in the volume now is to be a snapshot."""
        name = f"{self.volume['name'][:100]}-before-{self.discarded[:6]}"
        self.store.add_image(image_row(self.volume, self.discarded, name) | {"auto": RESET}, {self.discarded: None})
        pending = {"layer": self.discarded, "new": self.new}
        record = {**loads(self.volume["record"]), "undo": self.discarded, "pending": pending}
        self.store.query(
            "update volumes set snapshot = ?, record = ? where id = ?", self.image, dumps(record), self.volume["id"]
        )


def finish(engine: Engine, identity: str) -> None:
    """Do what is pending for a volume, and delete what was begun and not decided. The caller holds its lock."""
    row = volumes.find(engine.store, identity)
    record = loads(row["record"])
    pending = record.pop("pending", None)
    if pending is not None:
        having = users(engine, [identity])
        with halted(engine, [identity]):
            exchange(engine, identity, pending, copy=bool(having))
        engine.store.query("update volumes set record = ? where id = ?", dumps(record), identity)
    for name in os.listdir(engine.store.path(path_of(identity))):
        if name != DATA:
            engine.launcher().request("delete", path=f"{path_of(identity)}/{name}")


def exchange(engine: Engine, identity: str, pending: dict[str, str], *, copy: bool) -> None:
    """Exchange the content of a volume (`copying.exchange`)."""
    engine.catalog.workshop.ask(
        "exchange", place=data_folder(identity), kept=f"layers/{pending['layer']}", new=pending["new"], copy=copy
    )


def take(engine: Engine, ref: str, name: str | None, *, note: str = "", pinned: bool = False) -> str:
    """Keep what is in a volume as a snapshot: its id. Raises Conflict when the name is taken."""
    identity = volumes.find(engine.store, ref)["id"]
    if name is not None:
        parse_name(name, "snapshot name")
        refuse_taken(engine, [name])
    with locked(engine, [identity]):
        keeping = Keeping(engine, identity, name)
        launcher = engine.launcher()
        try:
            source, target = keeping.copy()
            with halted(engine, [identity]):
                launcher.request("copy", source=source, target=target)
            keeping.keep()
        except BaseException:
            keeping.discard()
            raise
        with engine.store.transaction():
            keeping.register(note=note, pinned=int(pinned))
    return keeping.image


def reset(engine: Engine, ref: str, name: str | None) -> None:
    """Put what is in a volume back on a snapshot: None means the last one taken or put back. Processes go on.

    Raises NotFound, and Conflict for what is no snapshot of a volume."""
    row = volumes.find(engine.store, ref)
    if name is None and row["snapshot"] is None:
        raise Conflict(f"the volume {row['name']!r} has no snapshot", f"nbhull snapshot --volume {row['name']}")
    image = engine.store.find("images", name or row["snapshot"], "snapshot")
    if image["base"] != OF_VOLUME:
        raise Conflict(f"{image['name'] or image['id']!r} is no snapshot of a volume", "`nbhull snapshots` lists them")
    put_back(engine, row["id"], image["id"])


def undo(engine: Engine, ref: str) -> None:
    """Put what is in a volume back to what it was before the last reset. Raises NotFound if there was none."""
    row = volumes.find(engine.store, ref)
    before = loads(row["record"]).get("undo")
    if before is None:
        raise NotFound(f"the volume {row['name']!r} was never reset", "`nbhull reset --volume` goes to any snapshot")
    put_back(engine, row["id"], before)


def put_back(engine: Engine, identity: str, image: str) -> None:
    """Exchange what is in one volume."""
    from nbhull.runtime.snapshots import keeping

    with locked(engine, [identity]), Prepared(engine, {identity: image}) as prepared:
        prepared.carry_out(partial(in_transaction, engine))
    keeping.prune(engine.store, engine.launcher())


def in_transaction(engine: Engine, write: Callable[[], None]) -> None:
    """Write alone in the index, all or nothing."""
    with engine.store.transaction():
        write()


class Prepared:
    """Volumes that are about to be put back, for a `with`, under their locks."""

    def __init__(self, engine: Engine, images: dict[str, str]) -> None:
        """`images`: of snapshots, by the volumes' ids."""
        self.engine = engine
        self.exchanges = [Exchange(engine, identity, image) for identity, image in images.items()]
        self.is_decided = False

    def __enter__(self) -> Prepared:
        try:
            for one in self.exchanges:
                one.prepare()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def carry_out(self, decide: Callable[[Callable[[], None]], None], but: str = "") -> None:
        """Decide it, and do it while the processes that see it stand still; those of the container `but` have ended.
        `decide` is given what writes the decision, to call it in a transaction."""
        ids = [one.volume["id"] for one in self.exchanges]
        with halted(self.engine, ids, but=but):
            decide(self.register)
            self.is_decided = True
            for identity in ids:
                finish(self.engine, identity)

    def register(self) -> None:
        """Write the decision down."""
        for one in self.exchanges:
            one.register()

    def undone(self) -> dict[str, str]:
        """What takes it back: images by the volumes' ids."""
        return {one.volume["id"]: one.discarded for one in self.exchanges}

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self.is_decided:
            for one in self.exchanges:
                one.discard()


def refuse_taken(engine: Engine, names: Iterable[str]) -> None:
    """Raise Conflict when an image has one of some names."""
    from nbhull.runtime.snapshots.taking import refuse_taken as refuse

    for name in names:
        refuse(engine, name)


def refuse_nested(engine: Engine, identity: str) -> None:
    """Raise Conflict where a running container has something mounted inside a volume: it would go with the folder that
    it is mounted on."""
    for row in users(engine, [identity]):
        ids = loads(row["record"])["volumes"]
        mounts = loads(row["spec"])["mounts"]
        places = [m["target"].rstrip("/") for m in mounts if ids.get(m["source"]) == identity]
        for mount in mounts:
            if any(mount["target"].startswith(f"{place}/") for place in places):
                raise Conflict(
                    f"{mount['target']} is mounted inside the volume in a running container", "stop the container first"
                )
