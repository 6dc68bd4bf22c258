"""What differs between images, snapshots and containers, in the time of reading the layers that they do not share."""

from __future__ import annotations

import difflib
import json
import os
import re
import stat

from nbhull.runtime import composition
from nbhull.runtime.errors import Conflict, NotFound
from nbhull.runtime.launcher import client
from nbhull.runtime.launcher.listing import FIELDS, KINDS
from nbhull.runtime.model import HOST_IMAGE
from nbhull.runtime.record import Record
from nbhull.runtime.snapshots import chains, generations, journal, keeping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from sqlite3 import Row
    from typing import Any

    from nbhull.runtime.engine import Engine

TEXT_LIMIT = 256 * 1024
"""bytes of a file whose lines are compared"""
PACKAGE = re.compile(r"(?:^|/)([A-Za-z0-9._]+)-([^/-]+)\.(?:dist|egg)-info$")


class Entry(Record):
    """A file, as a layer or the machine itself has it."""

    kind: str
    """`f`, `d`, `l`, `p`, `s`, `c`, `b`: a file, folder, link, FIFO, socket, character or block device"""
    mode: int
    size: int
    changed: int
    """nanoseconds since the epoch"""
    user: int
    group: int
    target: str
    """of a link"""
    place: str = ""
    """the folder, relative to the store or absolute, in which it lies under its path; no part of a comparison"""

    def same_as(self, other: Entry) -> bool:
        """Whether nobody could tell them apart; the size and time of a folder come from what is in it."""
        mine, theirs = self.to_dict(), other.to_dict()
        ignored = {"place"} | ({"size", "changed"} if self.kind == other.kind == "d" else set())
        return all(mine[name] == theirs[name] for name in mine if name not in ignored)


class Change(Record):
    """One path that differs."""

    path: str
    what: str
    """`added`, `changed` or `deleted`"""
    old: Entry | None
    new: Entry | None


class Package(Record):
    """A Python package that differs."""

    name: str
    old: str | None
    """version, None if it was not there"""
    new: str | None


class Comparison(Record):
    """Everything that differs, by path."""

    changes: tuple[Change, ...]
    packages: tuple[Package, ...]
    texts: tuple[str, ...]
    """unified differences of text files, where asked for"""


class Side:
    """One of what is compared: its layers, the newest first, as folders of the store."""

    def __init__(self, engine: Engine, ref: str) -> None:
        self.name = ref
        self.folders: list[str] = []
        self.record: dict[str, Any] | None = None
        self.files = ""
        """the folder of a container's own files of /etc"""
        if ref == HOST_IMAGE:
            return
        row = find(engine, ref)
        self.record = json.loads(row["record"])
        if is_volume(row):
            self.record = {"base": composition.OF_VOLUME, "parts": []}
            self.folders = [f"volumes/{row['id']}"]
            return
        is_container = "launcher" in row.keys()  # noqa: SIM118  # a Row is no dictionary
        layers = engine.store.container_layers(row) if is_container else engine.store.image_layers(row)
        if is_container:
            own = generations.own(engine.store, row["id"], self.record)
            self.files = f"containers/{row['id']}/files"
            self.folders = [generations.folder(row["id"], number) for number in reversed(own)]
        self.folders += [f"layers/{layer}" for layer in layers]


def find(engine: Engine, ref: str) -> Row:
    """The row of a container, else of an image, else of a volume. Raises NotFound, Conflict."""
    journal.recover(engine.store)
    try:
        return engine.store.find("containers", ref, "container")
    except NotFound:
        pass  # perhaps an image
    try:
        return engine.store.find("images", ref, "container or image")
    except NotFound:
        if not engine.store.query("select 1 from volumes where name = ? or id = ?", ref, ref):
            raise
        return engine.store.find("volumes", ref, "volume")


def is_volume(row: Row) -> bool:
    """Whether a row is a volume's."""
    return "launcher" not in row.keys() and "base" not in row.keys()  # noqa: SIM118  # a Row is no dictionary


class Comparer:
    """One comparison."""

    def __init__(self, engine: Engine, old: Side, new: Side) -> None:
        self.store = engine.store
        self.launcher: client.Client = engine.launcher()
        self.old, self.new = old, new
        record = new.record or old.record
        self.record: dict[str, Any] = record if record is not None else {"base": "host", "parts": []}
        self.shared: list[str] = []
        while old.folders and new.folders and old.folders[-1] == new.folders[-1]:
            self.shared.insert(0, new.folders.pop())
            old.folders.pop()

    def parts(self) -> Iterator[tuple[str, str, str]]:
        """Key, place, and what lies below all layers (absolute, or empty) of each part that both may have."""
        overlays = [part for part in self.record["parts"] if part["kind"] == "overlay"]
        places = {part["key"]: (part["at"], part["source"]) for part in overlays}
        for key in composition.keys(self.record):
            at, source = places.get(key, ("/", ""))
            yield key, *(("/etc", "/etc") if key == composition.ETC else (at, source))

    def run(self) -> list[Change]:
        """All changes, by path."""
        found = [change for part in self.parts() for change in self.compare_part(*part)]
        sockets = client.runtime_folder()  # its folders were made to mount on
        chosen = [change for change in found if change.what == "changed" or not lies_along(change.path, sockets)]
        return sorted(chosen, key=lambda change: change.path)

    def compare_part(self, key: str, at: str, below: str) -> list[Change]:
        """The changes in one part."""
        one, other = self.merged(self.old.folders, key), self.merged(self.new.folders, key)
        paths = {*one.entries, *other.entries, *self.hidden(key, below, one.opaque | other.opaque)}
        base = self.look_up_shared(key, below, sorted(paths))
        found = []
        gone = ""
        for path in sorted(paths, key=lambda path: path.split("/")):
            before, after = (side.state(path, base.get(path)) for side in (one, other))
            if before is after or (before is not None and after is not None and before.same_as(after)):
                continue  # `is`: neither has it
            if gone and path.startswith(gone):
                continue  # told with its folder
            what = "added" if before is None else "deleted" if after is None else "changed"
            if before is not None and before.kind == "d" and (after is None or after.kind != "d"):
                gone = f"{path}/"
            found.append(Change(f"{at.rstrip('/')}/{path}", what, before, after))
        return found

    def shared_folders(self) -> list[str]:
        """Those that both have, in short."""
        names = [folder.removeprefix("layers/") for folder in self.shared]
        if any("/" in name for name in names):
            return self.shared  # generations of one container
        foundation = [layer for layer in self.record.get("foundation", []) if layer in names]
        top = names[0] if len(names) > len(foundation) else None
        return chains.folders(self.store, top, foundation)

    def folders(self, folders: list[str], key: str) -> list[str]:
        """Those that have the part."""
        return [f"{folder}/{key}" for folder in folders if os.path.isdir(self.store.path(folder, key))]

    def merged(self, folders: list[str], key: str) -> Merged:
        """What some layers say of a part."""
        merged = Merged()
        for folder in reversed(self.folders(folders, key)):
            words = self.ask("list", path=folder, below="")
            for start in range(0, len(words), FIELDS):
                merged.add(*words[start : start + FIELDS], place=folder)
        return merged

    def hidden(self, key: str, below: str, folders: set[str]) -> set[str]:
        """What there was in folders that were replaced by new ones of the same name."""
        found: set[str] = set()
        for path in folders:
            for layer in self.folders(self.shared_folders(), key):
                found.update(self.ask("list", path=layer, below=path)[::FIELDS])
            for folder, names, files in os.walk(f"{below}/{path}") if below else ():
                found.update(os.path.relpath(f"{folder}/{name}", below) for name in (*names, *files))
        return found

    def look_up_shared(self, key: str, below: str, paths: list[str]) -> dict[str, Entry]:
        """What the layers that both have, and what lies below them, have at some paths."""
        folders = self.folders(self.shared_folders(), key)
        if key == composition.ROOT and self.record["base"] == "host":
            folders.append(composition.skeleton(self.store))
        files = self.new.files or self.old.files
        if files and key == composition.ETC:
            folders.append(files)
        elif files and self.record["base"] == composition.OWN_ROOT:  # right above the image's own layers
            image = {f"layers/{layer}/{key}" for layer in self.record["foundation"]}
            folders.insert(len(folders) - len(image.intersection(folders)), files)
        words = self.ask("find", folders=folders, paths=paths) if folders and paths else []
        found: dict[str, Entry] = {}
        width = FIELDS + 1
        for start in range(0, len(words), width):
            number, path, *fields = words[start : start + width]
            kind = "d" if fields[0] == "o" else fields[0]
            found[path] = entry_of(kind, fields[1:], folders[int(number)])
        if below:
            for path in paths:
                if path not in found and (entry := entry_outside(below, path)) is not None:
                    found[path] = entry
        return found

    def ask(self, op: str, **arguments: Any) -> list[str]:
        """The words that the holder answers with."""
        _, _, (memory,) = self.launcher.request(op, **arguments)
        with os.fdopen(memory, "rb") as file:
            file.seek(0)
            return file.read().decode(errors="surrogateescape").split("\0")[:-1]

    def read(self, path: str, entry: Entry) -> str | None:
        """A text file; None for one that is none, or is too long."""
        from nbhull.runtime.errors import HullError

        if entry.kind != "f" or entry.size > TEXT_LIMIT:
            return None
        try:
            if entry.place.startswith("/"):
                fd = os.open(f"{entry.place}/{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            else:
                fd = self.launcher.request("peek", folder=entry.place, path=path)[2][0]
        except (HullError, OSError):
            return None  # it is going away this moment, or may not be read
        with os.fdopen(fd, "rb") as file:
            data = file.read(TEXT_LIMIT + 1)
        if len(data) > TEXT_LIMIT or b"\0" in data:
            return None
        return data.decode(errors="replace")

    def text_of(self, change: Change) -> str | None:
        """The lines that differ (diff -u); None where there are none to show."""
        relative = change.path
        for _, at, _ in self.parts():
            if at != "/" and change.path.startswith(f"{at}/"):
                relative = change.path[len(at) :]
        sides = [self.read(relative.lstrip("/"), entry) if entry else "" for entry in (change.old, change.new)]
        if sides[0] is None or sides[1] is None or sides[0] == sides[1]:
            return None
        one, other = (change.path if entry else "/dev/null" for entry in (change.old, change.new))
        return "\n".join(difflib.unified_diff(sides[0].splitlines(), sides[1].splitlines(), one, other, lineterm=""))


class Merged:
    """Layers one on another, seen alone."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry | None] = {}
        """by path; None where they delete it"""
        self.hiding: set[str] = set()
        """paths below which nothing of lower layers is seen"""
        self.opaque: set[str] = set()
        """those of them that are folders again"""

    def add(self, path: str, kind: str, *fields: str, place: str) -> None:
        """The next entry, the lowest layer's first."""
        if kind != "d":
            if path in self.entries:
                for inner in [inner for inner in self.entries if inner.startswith(f"{path}/")]:
                    del self.entries[inner]
            self.hiding.add(path)
            (self.opaque.add if kind == "o" else self.opaque.discard)(path)
        self.entries[path] = None if kind == "w" else entry_of("d" if kind == "o" else kind, list(fields), place)

    def state(self, path: str, base: Entry | None) -> Entry | None:
        """What there is at a path, where the layers below have `base`."""
        if path in self.entries:
            return self.entries[path]
        parent = path
        while parent := parent.rpartition("/")[0]:
            if parent in self.hiding:
                return None
        return base


def entry_of(kind: str, fields: list[str], place: str) -> Entry:
    """An entry from the words of a listing."""
    mode, size, changed, user, group = map(int, fields[:5])
    return Entry(kind, mode, size, changed, user, group, fields[5], place)


def entry_outside(below: str, path: str) -> Entry | None:
    """What the machine itself has."""
    try:
        status = os.lstat(f"{below}/{path}")
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "?")
        target = os.readlink(f"{below}/{path}") if kind == "l" else ""
    except OSError:
        return None
    owner = (0, 0) if status.st_uid == os.getuid() else (status.st_uid, status.st_gid)
    return Entry(kind, stat.S_IMODE(status.st_mode), status.st_size, status.st_mtime_ns, *owner, target, below)


def lies_along(path: str, folder: str) -> bool:
    """Whether a path is in a folder, or on the way to it."""
    return f"{path}/".startswith(f"{folder}/") or f"{folder}/".startswith(f"{path}/")


def packages_of(changes: list[Change]) -> tuple[Package, ...]:
    """The Python packages among the changes, by what they have installed of themselves (PEP 376, dist-info)."""
    versions: dict[str, list[str | None]] = {}
    for change in changes:
        match = PACKAGE.search(change.path)
        if match is not None and change.what != "changed":
            name = re.sub(r"[-_.]+", "-", match[1]).lower()
            versions.setdefault(name, [None, None])[change.what == "added"] = match[2]
    return tuple(Package(name, *pair) for name, pair in sorted(versions.items()) if pair[0] != pair[1])


def compare(engine: Engine, old: str, new: str, *, text: bool) -> Comparison:
    """What differs from `old` to `new`. Raises NotFound, Conflict."""
    sides = [Side(engine, ref) for ref in (old, new)]
    if len({side.record is not None and side.record["base"] == composition.OF_VOLUME for side in sides}) > 1:
        raise Conflict("a volume can only be compared with a volume, or a snapshot of one")
    comparer = Comparer(engine, *sides)
    changes = comparer.run()
    texts = [found for change in changes if (found := comparer.text_of(change)) is not None] if text else []
    return Comparison(tuple(changes), packages_of(changes), tuple(texts))


def since(engine: Engine, ref: str) -> str:
    """What a container, or a snapshot, is compared with where nothing is said: that from which it was made."""
    row = find(engine, ref)
    if is_volume(row):
        if row["snapshot"] is None:
            raise NotFound(f"the volume {ref!r} has no snapshot", f"nbhull snapshot --volume {ref}")
        return str(row["snapshot"])
    if "launcher" in row.keys():  # noqa: SIM118
        return keeping.last_asked_for(engine.store, row["snapshot"]) or HOST_IMAGE
    return str(row["parent"] or HOST_IMAGE)
