"""Taking a snapshot: the files of a container, as they are at one moment, as an image."""

from __future__ import annotations

import json
import os
from sqlite3 import Row

from nbhull.runtime import composition
from nbhull.runtime.errors import Conflict, ContainerLost, HullError, LauncherLost
from nbhull.runtime.launcher import client, wire
from nbhull.runtime.model import HOST_IMAGE, parse_name
from nbhull.runtime.running import holds
from nbhull.runtime.snapshots import chains, generations, journal, keeping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.snapshots.volumes import Keeping

UNKNOWN_SIZE = -1
"""of a layer that nobody has measured yet, which takes as long as it has files"""
OF_CONTAINER = ("top", "flat", "hostname", "first", "undo", "volumes", "undo_volumes", "volume_snapshots")
"""what a container's record has that its snapshots' do not"""
MOVED, COPIED = "moved", "copied"


def nothing() -> None:
    """No more than there is."""


class Taking:
    """One snapshot being taken, under the container's lock."""

    def __init__(self, engine: Engine, row: Row, *, running: bool) -> None:
        self.engine = engine
        self.store = engine.store
        self.row = row
        self.id = row["id"]
        self.image = os.urandom(6).hex()
        self.record: dict[str, Any] = json.loads(row["record"])
        self.launcher = engine.launcher_of(row) if running else None
        own = generations.own(self.store, self.id, self.record)
        if self.launcher is not None:
            # Higher ones were made by who died before the container came to write to them.
            current = int(self.launcher.request("generation", container=self.id)[1]["generation"])
            own = [number for number in own if number <= current]
        self.own = own
        self.next = generations.next_number(self.store, self.id)
        self.road = MOVED
        self.reason = ""
        self.volumes: list[Keeping] = []
        """volumes that are kept as they are in the same moment"""

    def is_unchanged(self) -> bool:
        """Whether nothing was written since the container's files were last kept."""
        return all(generations.is_empty(self.store, self.id, number) for number in self.own)

    def prepare(self, asleep: Collection[int]) -> None:
        """See to it that the container does not write any more to what will be the snapshot, or copy it."""
        generations.make(self.store.path("containers", self.id), self.next, composition.keys(self.record))
        if self.launcher is None:
            for volume in self.volumes:
                source, target = volume.copy()
                self.engine.launcher().request("copy", source=source, target=target)
            return
        parts = composition.writable_parts(
            self.store, self.id, self.record, self.record["top"], [*self.own, self.next]
        )
        try:
            copies = [volume.copy() for volume in self.volumes]
            fields = move(self.launcher, self.id, parts, self.next, asleep, copies)
            self.reason = fields["problem"]
            self.record[chains.FOLDER] = chains.merged_in(parts)
        except LauncherLost:
            raise
        except HullError as error:
            self.reason = error.message
            self.launcher.request("delete", path=generations.folder(self.id, self.next))
            generations.remove_work(self.store, self.id, self.next)
        if self.reason:
            self.road = COPIED
            self.copy(self.launcher)

    def complete(
        self, asleep: Collection[int], *, name: str | None, volumes: bool = False, **columns: Any
    ) -> None:
        """Take it. `volumes`: and what is in its volumes; `columns`: of the image's row."""
        row = {"name": name or f"{self.row['name'][:100]}-{self.image[:6]}", **columns}
        if volumes:
            from nbhull.runtime.snapshots.volumes import take_besides

            take_besides(self, asleep, row)
        else:
            self.prepare(asleep)
            self.register(row)
        record = json.loads(self.engine.row(self.id)["record"])
        chains.keep_short(self.store, self.launcher, record, composition.keys(record))

    def copy(self, launcher: client.Client) -> None:
        """Copy the newest generation to a layer while the container stands still."""
        source, target = generations.folder(self.id, self.own[-1]), f"layers/{self.image}.part"
        os.mkdir(self.store.path(target), 0o700)
        try:
            with launcher.open("freeze", container=self.id) as frozen:
                wire.receive_answer(frozen)
                for key in composition.keys(self.record):
                    launcher.request("copy", source=f"{source}/{key}", target=f"{target}/{key}")
                for volume in self.volumes:
                    source, target_of_it = volume.copy()
                    launcher.request("copy", source=source, target=target_of_it)
            os.rename(self.store.path(target), self.store.path("layers", self.image))
        except BaseException:
            launcher.request("delete", path=target)
            raise

    def register(self, row: dict[str, Any], besides: Callable[[], None] = nothing, **container: Any) -> None:
        """Let the index, and then the folders, say so. `row`: the image's, but for what is known here;
        `container`: what else changes in its own row; `besides`: writes what else changes in the index."""
        *older, newest = self.own
        generations_of = {os.urandom(6).hex(): number for number in older}
        layers: dict[str, str | None] = {}  # what each new one lies on
        below: str | None = self.record["top"]
        for layer in generations_of:
            layers[layer], below = below, layer
        layers[self.image] = below
        record = {**self.record, "top": below, "first": newest}
        if self.road == MOVED:
            generations_of[self.image] = newest
            record = {**self.record, "top": self.image, "first": self.next}
        image = {
            "id": self.image,
            "parent": self.row["snapshot"],
            "base": self.record["base"],
            "size": UNKNOWN_SIZE,
            "top": self.image,
            "record": {
                **{key: value for key, value in self.record.items() if key not in OF_CONTAINER},
                **({"volume_snapshots": {v.volume["id"]: v.image for v in self.volumes}} if self.volumes else {}),
                keeping.CONTAINER: self.id,
            },
            **row,
        }
        journal.note(self.store, self.id, self.image, generations_of)
        with self.store.transaction():
            self.store.add_image(image, layers)
            self.store.update_container(self.id, **{"record": record, "snapshot": self.image, **container})
            for volume in self.volumes:
                volume.register(**{key: row[key] for key in ("note", "pinned") if key in row})
            besides()
        journal.finish(self.store, self.id)


def move(
    launcher: client.Client,
    identity: str,
    parts: list[dict[str, Any]],
    generation: int,
    asleep: Collection[int],
    copies: Sequence[tuple[str, str]] = (),
) -> dict[str, str]:
    """Put a running container on new writable parts: `problem` says why something may still write to the old ones.
    `copies`: pairs of folders of the store, to be copied in the same moment.

    Raises HullError when it could not be moved, and is as it was; ContainerLost, once it has ended, when that was not
    to be known any more."""
    try:
        _, fields, _ = launcher.request(
            "move",
            container=identity,
            parts=parts,
            generation=str(generation),
            asleep=list(asleep),
            copies=list(copies),
        )
    except ContainerLost:
        with launcher.open("wait", container=identity) as ended:
            wire.receive_answer(ended)
        raise
    return fields


def take(
    engine: Engine,
    ref: str,
    name: str | None,
    *,
    note: str = "",
    pinned: bool = False,
    auto: str = "",
    asleep: Collection[int] = (),
    volumes: bool = False,
) -> tuple[str, str, str]:
    """Keep a container's files as an image: its id, which road was taken, and why if not the short one. `volumes`: and
    what is in its volumes, in the same moment."""
    row = engine.row(ref)
    if name is not None:
        parse_name(name, "snapshot name")
        refuse_taken(engine, name)
    with journal.locked(engine.store, row["id"]):
        row = engine.row(row["id"])
        taking = Taking(engine, row, running=holds(row["launcher"], row["id"]))
        columns = {"note": note, "pinned": int(pinned), "auto": auto}
        taking.complete(asleep, name=name, volumes=volumes, **columns)
    return taking.image, taking.road, taking.reason


def take_if_changed(engine: Engine, ref: str, auto: str, asleep: Collection[int]) -> str | None:
    """The same if something was written since its files were last kept: the image's id."""
    row = engine.row(ref)
    with journal.locked(engine.store, row["id"]):
        row = engine.row(row["id"])
        taking = Taking(engine, row, running=holds(row["launcher"], row["id"]))
        if taking.is_unchanged():
            return None
        taking.complete(asleep, name=None, auto=auto)
    return taking.image


def refuse_taken(engine: Engine, name: str) -> None:
    """Raise Conflict when an image has that name."""
    if name == HOST_IMAGE or engine.store.query("select 1 from tags where name = ?", name):
        raise Conflict(f"the image name {name!r} is in use", "choose another name")
