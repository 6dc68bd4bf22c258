"""Named volumes: folders for data that outlive the containers which have them.

`volumes/ID/data` in the store is what containers see; snapshots of it are in `snapshots/volumes.py`.
"""

from __future__ import annotations

import os

from nbhull.runtime.composition import DATA, OF_VOLUME
from nbhull.runtime.errors import Conflict
from nbhull.runtime.lean import loads
from nbhull.runtime.model import parse_name
from nbhull.runtime.record import Record
from nbhull.runtime.rows import image_of
from nbhull.runtime.running import holds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from sqlite3 import Row
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import Image, Mount
    from nbhull.runtime.snapshots.tree import Node
    from nbhull.runtime.store import Store

FOLDER = "volumes"


class Volume(Record):
    """A volume as the index knows it."""

    id: str
    name: str
    created: float
    """seconds since the epoch"""
    containers: tuple[str, ...]
    """names of those that have it"""
    running: tuple[str, ...]
    """names of those of them that run"""
    snapshot: str | None = None
    """id of the snapshot that was last taken of it or put back"""
    size: int | None = None
    """bytes on the disk; None where it was not asked for"""


class Volumes:
    """The volumes of a store."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.store = engine.store

    def create(self, name: str | None = None) -> Volume:
        """Make a volume; one of that name that is there already is left as it is. Raises InvalidInput."""
        name = name if name is not None else os.urandom(6).hex()
        with self.store.transaction():
            provide(self.store, [name])
        return self.get(name)

    def get(self, ref: str) -> Volume:
        """The volume of that name, id or unambiguous beginning of an id. Raises NotFound."""
        row = find(self.store, ref)
        return volume_of(row, self.users().get(row["id"], []))

    def all(self) -> list[Volume]:
        """All volumes, by name."""
        users = self.users()
        rows = self.store.query("select * from volumes order by name")
        return [volume_of(row, users.get(row["id"], [])) for row in rows]

    def users(self) -> dict[str, list[Row]]:
        """The containers that have each volume, by its id."""
        found: dict[str, list[Row]] = {}
        for row in self.store.query("select id, name, launcher, record from containers order by name"):
            for identity in loads(row["record"]).get("volumes", {}).values():
                found.setdefault(identity, []).append(row)
        return found

    def measured(self, volumes: Iterable[Volume]) -> list[Volume]:
        """The same with their sizes, which takes as long as they have files."""
        ask = self.engine.catalog.workshop.ask
        return [volume.but(size=int(ask("measure", paths=[path_of(volume.id)])["size"])) for volume in volumes]

    def snapshot(self, ref: str, name: str | None = None, *, note: str = "", pinned: bool = False) -> Image:
        """Keep what is in a volume, as it is at this moment. It is copied while all processes that have it stand still.
        Raises Conflict when the name is taken."""
        from nbhull.runtime.snapshots import volumes

        image = volumes.take(self.engine, ref, name, note=note, pinned=pinned)
        return image_of(self.store.find("images", image, "image"))

    def reset(self, ref: str, name: str | None = None) -> Volume:
        """Put what is in a volume back on a snapshot (None: the last one taken or put back). Processes go on; files
        that they have open are no longer in the volume. `undo` takes it back. Raises NotFound, Conflict."""
        from nbhull.runtime.snapshots import volumes

        volumes.reset(self.engine, ref, name)
        return self.get(ref)

    def undo(self, ref: str) -> Volume:
        """Put what is in a volume back to what it was before its last reset, or undo. Raises NotFound."""
        from nbhull.runtime.snapshots import volumes

        volumes.undo(self.engine, ref)
        return self.get(ref)

    def snapshots(self, ref: str) -> list[Node]:
        """The snapshots of a volume as a tree. Raises NotFound."""
        from nbhull.runtime.snapshots import tree

        volume = self.get(ref)
        rows = self.store.query("select id, record from images where base = ?", OF_VOLUME)
        ids = {row["id"] for row in rows if loads(row["record"])["volume"] == volume.id}
        return tree.draw([image for image in self.engine.images() if image.id in ids], [volume])

    def remove(self, ref: str) -> None:
        """Delete a volume and all that is in it. Raises NotFound, and Conflict where a container has it."""
        with self.store.transaction():
            row = find(self.store, ref)
            users = self.users().get(row["id"], [])
            if users:
                names = ", ".join(user["name"] for user in users)
                raise Conflict(f"the volume {row['name']!r} is in use by {names}", "remove what uses it first")
            self.store.query("delete from volumes where id = ?", row["id"])
        self.engine.launcher().request("delete", path=path_of(row["id"]))

    def prune(self, *, everything: bool = False) -> list[str]:
        """Delete the volumes that no container has and nothing is in; with `everything`, those with data too. Their
        names."""
        idle = [volume for volume in self.all() if not volume.containers]
        gone = [v for v in idle if everything or self.is_empty(v.id)]
        for volume in gone:
            self.remove(volume.id)
        return [volume.name for volume in gone]

    def is_empty(self, identity: str) -> bool:
        """Whether nothing is in a volume."""
        _, _, (listing,) = self.engine.launcher().request("list", path=data_folder(identity), below="")
        try:
            return os.fstat(listing).st_size == 0
        finally:
            os.close(listing)


def find(store: Store, ref: str) -> Row:
    """A volume's row. Raises NotFound, Conflict."""
    return store.find("volumes", ref, "volume")


def provide(store: Store, names: Iterable[str]) -> dict[str, str]:
    """The ids of volumes by their names; those that are missing are made. Raises InvalidInput."""
    found = {}
    for name in names:
        parse_name(name, "volume name")
        rows = store.query("select id from volumes where name = ?", name)
        if not rows:
            identity = os.urandom(6).hex()
            os.mkdir(store.path(path_of(identity)), 0o700)
            os.mkdir(store.path(data_folder(identity)), 0o755)
            store.insert("volumes", {"id": identity, "name": name, "record": {}}, "volume")
        found[name] = rows[0]["id"] if rows else identity
    return found


def path_of(identity: str) -> str:
    """A volume's folder, relative to the store."""
    return f"{FOLDER}/{identity}"


def data_folder(identity: str) -> str:
    """What containers see of it, relative to the store."""
    return f"{path_of(identity)}/{DATA}"


def mounts(ids: dict[str, str], wanted: Iterable[Mount]) -> list[dict[str, Any]]:
    """What a start mounts for volumes; `ids` by name."""
    return [
        {
            "kind": "bind",
            "at": mount.target.rstrip("/"),
            "source": data_folder(ids[mount.source]),
            "owned": False,
            "read_only": mount.read_only,
            "recursive": False,
            "fill": not mount.read_only,
        }
        for mount in wanted
    ]


def volume_of(row: Row, users: list[Row]) -> Volume:
    """A volume from its row, and those of the containers that have it."""
    names = tuple(user["name"] for user in users)
    running = tuple(user["name"] for user in users if holds(user["launcher"], user["id"]))
    return Volume(row["id"], row["name"], row["created"], names, running, row["snapshot"])
