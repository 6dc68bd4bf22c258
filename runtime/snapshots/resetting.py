"""Putting a container back on a snapshot; what that throws away is kept as a snapshot of its own, for `undo`."""

from __future__ import annotations

import json
from functools import partial
from sqlite3 import Row

from nbhull.runtime import composition
from nbhull.runtime.errors import Conflict, ContainerLost, HullError, LauncherLost, NotFound
from nbhull.runtime.launcher import client, wire
from nbhull.runtime.model import HOST_IMAGE
from nbhull.runtime.rows import spec_of
from nbhull.runtime.running import holds
from nbhull.runtime.snapshots import chains, generations, journal, keeping, taking
from nbhull.runtime.snapshots.taking import Taking
from nbhull.runtime.starting import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.snapshots.volumes import Prepared


def reset(
    engine: Engine, ref: str, name: str | None, keep: Collection[int] = (), *, volumes: bool = False
) -> None:
    """Put a container back on a snapshot: None means the last one that was asked for, else its image. `keep`: processes
    that are to live on, if they can. `volumes`: and the volumes that the snapshot was taken with."""
    row = engine.row(ref)
    with journal.locked(engine.store, row["id"]):
        row = engine.row(row["id"])
        snapshot, top = target_of(engine, row, name)
        besides = volumes_of(engine, row, snapshot) if volumes else {}
        put_back(engine, row, snapshot, top, keep, besides)


def undo(engine: Engine, ref: str, keep: Collection[int] = ()) -> None:
    """Put a container back to where it was before its last reset. Raises NotFound if there was none."""
    row = engine.row(ref)
    with journal.locked(engine.store, row["id"]):
        row = engine.row(row["id"])
        record = json.loads(row["record"])
        if "undo" not in record:
            raise NotFound(f"the container {row['name']} was never reset", "`nbhull reset` goes to any snapshot")
        if record["undo"] != HOST_IMAGE and not engine.store.query("select 1 from images where id = ?", record["undo"]):
            raise NotFound("what the last reset threw away was removed", "`nbhull images` lists what there is")
        put_back(engine, row, *target_of(engine, row, record["undo"]), keep, record.get("undo_volumes", {}))


def volumes_of(engine: Engine, row: Row, snapshot: str | None) -> dict[str, str]:
    """The snapshots of volumes that belong to a container's, by the volumes' ids: of those that the container has, and
    may write to. Raises Conflict where there are none, NotFound where one was removed."""
    found = engine.store.query("select record from images where id = ?", snapshot or "")
    images: dict[str, str] = json.loads(found[0]["record"]).get("volume_snapshots", {}) if found else {}
    ids = json.loads(row["record"]).get("volumes", {})
    mounts = json.loads(row["spec"])["mounts"]
    writable = {ids[m["source"]] for m in mounts if m["source"] in ids and not m["read_only"]}
    chosen = {identity: image for identity, image in images.items() if identity in writable}
    if not chosen:
        raise Conflict("the snapshot was taken without volumes of this container", "take one with: snapshot --volumes")
    for image in chosen.values():
        engine.store.find("images", image, "snapshot of a volume")
    return chosen


def target_of(engine: Engine, row: Row, name: str | None) -> tuple[str | None, str | None]:
    """The snapshot's id and the newest of its layers; None for the image itself. Raises NotFound, and Conflict for one
    of another environment."""
    name = name or keeping.last_asked_for(engine.store, row["snapshot"])
    if name is None or name == HOST_IMAGE:
        return None, None
    image = engine.store.find("images", name, "image")
    record, theirs = json.loads(row["record"]), json.loads(image["record"])
    if theirs["base"] == composition.OF_VOLUME:
        raise Conflict(f"{image['name']!r} is a snapshot of a volume", "put it back with: reset --volume")
    if not composition.is_same_base(theirs, record):
        raise Conflict(
            f"the snapshot {image['name']!r} was taken of another environment, "
            f"{theirs['environment'] or 'of an image'!r}",
            "start a new container from it",
        )
    return image["id"], image["top"]


def put_back(
    engine: Engine,
    row: Row,
    snapshot: str | None,
    top: str | None,
    keep: Collection[int] = (),
    besides: dict[str, str] | None = None,
) -> None:
    """End all processes (but those of `keep`), keep what there is, and begin anew on the layers from `top` on.
    `besides`: snapshots of volumes, by their ids, that are put back with it.

    Should this process die on the way, the container has stopped, and is on one side or the other."""
    if besides:
        from nbhull.runtime.snapshots import volumes

        with volumes.locked(engine, besides), volumes.Prepared(engine, besides) as prepared:
            launcher = end_and_exchange(engine, row, snapshot, top, keep, prepared)
    else:
        launcher = end_and_exchange(engine, row, snapshot, top, keep)
    if launcher is not None:
        begin_anew(engine, launcher, row["id"], keep)
        keeping.prune(engine.store, launcher)


def end_and_exchange(
    engine: Engine,
    row: Row,
    snapshot: str | None,
    top: str | None,
    keep: Collection[int],
    prepared: Prepared | None = None,
) -> client.Client | None:
    """The first half of it: the launcher, where the container ran."""
    launcher = engine.launcher_of(row) if holds(row["launcher"], row["id"]) else None
    if launcher is not None and keep:
        launcher.request("end", container=row["id"], keep=list(keep))
    elif launcher is not None:
        end_processes(launcher, row["id"])
    discarded = Discarded(engine, row)
    undo_to = discarded.same_image()
    if undo_to is None:
        undo_to = discarded.image
    if spec_of(row).limits.has_quota():
        from nbhull.runtime import projects

        projects.renew(engine.store.path("containers", row["id"]))
    generations.make(
        engine.store.path("containers", row["id"]), discarded.next, composition.keys(discarded.record)
    )
    undone = prepared.undone() if prepared is not None else {}
    record = {**discarded.record, "top": top, "first": discarded.next, "undo": undo_to, "undo_volumes": undone}
    name = f"{row['name'][:100]}-before-{discarded.image[:6]}" if undo_to == discarded.image else ""
    if prepared is not None:
        prepared.carry_out(partial(decide, discarded, name, record, snapshot), but=row["id"])
    else:
        decide(discarded, name, record, snapshot)
    return launcher


def decide(
    discarded: Discarded,
    name: str,
    record: dict[str, Any],
    snapshot: str | None,
    besides: Callable[[], None] = taking.nothing,
) -> None:
    """Let the index say that a container stands on other layers; `name`: that of the snapshot of what it leaves, empty
    where there is nothing to keep."""
    if name:
        discarded.register({"name": name, "auto": keeping.RESET}, besides, record=record, snapshot=snapshot)
        return
    with discarded.store.transaction():
        discarded.store.update_container(discarded.id, record=record, snapshot=snapshot)
        besides()


def begin_anew(engine: Engine, launcher: client.Client, identity: str, keep: Collection[int]) -> None:
    """Have a container run again, on what its row says now."""
    row = engine.row(identity)
    record = json.loads(row["record"])
    if not (keep and move(engine, launcher, identity, record, record["first"], keep)):
        if keep:
            end_processes(launcher, identity)
        start(engine, launcher, row)


def move(
    engine: Engine,
    launcher: client.Client,
    identity: str,
    record: dict[str, Any],
    number: int,
    keep: Collection[int],
) -> bool:
    """Put those processes that were kept on new files, which are the generation `number` of a container; false if
    that cannot be."""
    parts = composition.writable_parts(engine.store, identity, record, record["top"], [number])
    try:
        fields = taking.move(launcher, identity, parts, number, keep)
    except HullError as error:
        if isinstance(error, LauncherLost) and not isinstance(error, ContainerLost):
            raise
        return False  # the container is started anew, which nobody can miss: what was kept has gone
    chains.note_mounted(engine.store, identity, parts)
    return not fields["problem"]


def end_processes(launcher: client.Client, identity: str) -> None:
    """End a container, whose socket folder stays for its next start."""
    with launcher.open("wait", container=identity) as ended:
        launcher.request("kill", container=identity, keep=True)
        wire.receive_answer(ended)


class Discarded(Taking):
    """What a reset throws away, as a snapshot that nobody asked for."""

    def __init__(self, engine: Engine, row: Row) -> None:
        super().__init__(engine, row, running=False)

    def same_image(self) -> str | None:
        """The image that the container is just like, if nothing was written since: then there is nothing to keep."""
        if not self.is_unchanged():
            return None
        if self.record["top"] is None:
            return HOST_IMAGE
        found = self.store.query("select id from images where top = ?", self.record["top"])
        return str(found[0]["id"]) if found else None
