"""Named volumes: folders for data that outlive the containers which have them.

`volumes/ID/N/data` in the store is what containers see; the row in the index tells which N.
"""

from __future__ import annotations

import os

from nbhull.runtime.errors import Conflict
from nbhull.runtime.lean import loads
from nbhull.runtime.model import parse_name
from nbhull.runtime.record import Record
from nbhull.runtime.running import holds
from nbhull.runtime.snapshots import generations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from sqlite3 import Row
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import Mount
    from nbhull.runtime.store import Store

FOLDER = "volumes"
DATA = "data"
"""the key of a volume's one part"""
EMPTY_RECORD: dict[str, Any] = {"layers": [], "first": generations.FIRST}


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
        path = source(find(self.store, identity))
        _, _, (listing,) = self.engine.launcher().request("list", path=path, below="")
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
            path = store.path(path_of(identity))
            os.makedirs(path, 0o700)
            generations.make(path, generations.FIRST, [DATA])
            store.insert("volumes", {"id": identity, "name": name, "record": EMPTY_RECORD}, "volume")
        found[name] = rows[0]["id"] if rows else identity
    return found


def path_of(identity: str) -> str:
    """A volume's folder, relative to the store."""
    return f"{FOLDER}/{identity}"


def source(row: Row) -> str:
    """The folder, relative to the store, that is written to."""
    return f"{path_of(row['id'])}/{loads(row['record'])['first']}/{DATA}"


def mounts(store: Store, ids: dict[str, str], wanted: Iterable[Mount]) -> list[dict[str, Any]]:
    """What a start mounts for volumes; `ids` by name. Raises NotFound."""
    return [
        {
            "kind": "bind",
            "at": mount.target.rstrip("/"),
            "source": source(find(store, ids[mount.source])),
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
    return Volume(row["id"], row["name"], row["created"], names, running)
