"""The verbs `undo`, `snapshots` and `diff`, and what they give back."""

from __future__ import annotations

from time import time

from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.verbs.results import Names, Result, Table, human_age, human_size, image_data, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.snapshots.comparing import Change, Comparison, Entry
    from nbhull.runtime.snapshots.tree import Node

SIGNS = {"added": "+", "changed": "~", "deleted": "-"}
KINDS = {"f": "file", "d": "folder", "l": "link", "p": "FIFO", "s": "socket", "c": "device", "b": "device"}


def undo(engine: Engine, values: dict[str, Any]) -> Result:
    """`undo`: gives back the container's name."""
    if values["volume"]:
        return Names([engine.volumes.undo(values["container"]).name])
    container = engine.undo(values["container"])
    return Names([container.name or short_id(container.id)])


def auto(engine: Engine, values: dict[str, Any]) -> Result:
    """`auto`: only a kernel's server can tell."""
    raise NotFound("this is about a notebook's container", "say it in a notebook: %container auto")


def snapshots(engine: Engine, values: dict[str, Any]) -> Result:
    """`snapshots`: all of them, or the tree of one container or volume."""
    if values["volume"]:
        if values["container"] is None:
            raise InvalidInput("which volume is not said", "nbhull snapshots --volume results")
        return snapshot_table(engine.volumes.snapshots(values["container"]), time())
    return snapshot_table(engine.snapshots(values.get("container")), time())


def diff(engine: Engine, values: dict[str, Any]) -> Result:
    """`diff`: of two, or of one since it was made."""
    if values["a"] is None:
        raise InvalidInput("there is nothing to compare", "name a container or a snapshot: nbhull diff mybox")
    return difference_table(engine.diff(values["a"], values["b"], text=bool(values.get("text"))))


def snapshot_table(nodes: Sequence[Node], now: float) -> Table:
    """The tree; `now` is seconds since the epoch."""
    rows, items = [], []
    for node in nodes:
        image = node.image
        auto = f"auto · {image.auto}" if image.auto else ""
        marks = [text for text in ("pinned" if image.pinned else "", printable(auto), image.note) if text]
        rows.append(
            (
                node.line + (image.name or short_id(image.id)),
                short_id(image.id),
                f"{human_age(now - image.created)} ago" if image.created else "-",
                "-" if image.size is None else human_size(image.size),
                ", ".join(node.containers),
                ", ".join(marks),
            )
        )
        items.append(
            image_data(image)
            | {
                "note": image.note,
                "pinned": image.pinned,
                "auto": image.auto,
                "containers": list(node.containers),
            }
        )
    return Table(("snapshot", "id", "created", "size", "here", "note"), rows, items)


class Difference(Table):
    """Changes as rows, with the lines of text files behind them."""

    def __init__(
        self, rows: Sequence[Sequence[str]], items: Sequence[dict[str, Any]], texts: Sequence[str]
    ) -> None:
        super().__init__(("", "path", "kind", "size"), rows, items)
        self.texts = list(texts)

    def text(self) -> str:
        shown = [super().text()] if self.rows else []
        return "\n\n".join([*shown, *self.texts]) or "nothing differs"


def difference_table(comparison: Comparison) -> Difference:
    """Packages first, then files."""
    rows: list[tuple[str, str, str, str]] = []
    items: list[dict[str, Any]] = []
    for package in comparison.packages:
        sign = "+" if package.old is None else "-" if package.new is None else "~"
        versions = " -> ".join(version for version in (package.old, package.new) if version)
        rows.append((sign, package.name, "package", versions))
        items.append({"package": package.name, "old": package.old, "new": package.new})
    for change in comparison.changes:
        rows.append((SIGNS[change.what], printable(change.path), kind_of(change), size_of(change)))
        items.append(
            {
                "path": change.path,
                "change": change.what,
                "old": entry_data(change.old),
                "new": entry_data(change.new),
            }
        )
    return Difference(rows, items, comparison.texts)


def kind_of(change: Change) -> str:
    """What it is, or what became of what; and its mode, where that is what has changed."""
    kinds = [KINDS.get(entry.kind, "other") for entry in (change.old, change.new) if entry]
    if change.old and change.new and change.old.mode != change.new.mode:
        return f"{' -> '.join(dict.fromkeys(kinds))} {change.old.mode:04o} -> {change.new.mode:04o}"
    return " -> ".join(dict.fromkeys(kinds))


def size_of(change: Change) -> str:
    """Sizes of files."""
    sizes = [human_size(entry.size) for entry in (change.old, change.new) if entry and entry.kind == "f"]
    return " -> ".join(dict.fromkeys(sizes))


def entry_data(entry: Entry | None) -> dict[str, Any] | None:
    """An entry as plain data."""
    if entry is None:
        return None
    return {
        "kind": KINDS.get(entry.kind, "other"),
        "mode": f"{entry.mode:04o}",
        "size": entry.size,
        "uid": entry.user,
        "gid": entry.group,
    }


def printable(path: str) -> str:
    """A path without what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogateescape").decode() for c in path)
