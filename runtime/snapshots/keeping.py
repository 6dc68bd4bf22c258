"""What is written on snapshots, and those that nobody asked for, kept under a budget."""

from __future__ import annotations

import os

from nbhull.runtime import policy
from nbhull.runtime.lean import loads
from nbhull.runtime.rows import image_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.launcher.client import Client
    from nbhull.runtime.model import Image
    from nbhull.runtime.store import Store

CONTAINER = "container"
"""in a snapshot's record: the container that it was taken of"""
RESET = "reset"
"""the occasion of what a reset has thrown away"""
COUNT = 20
"""how many are kept of a container for each kind of occasion, where no rule says"""
BYTES = 10 << 30
"""how large they may be together, likewise"""


def keep(engine: Engine, ref: str, occasion: str, asleep: Collection[int]) -> Image | None:
    """Take a snapshot of a container, if anything has changed since the last one; the oldest of its kind go.
    `occasion`: its kind and, behind a colon, more about it; `asleep`: as with `Engine.snapshot`."""
    from nbhull.runtime.snapshots import sizes, taking

    image = taking.take_if_changed(engine, ref, occasion, asleep)
    if image is None:
        return None
    sizes.measure(engine.store)
    prune(engine.store, engine.launcher())
    return image_of(engine.store.find("images", image, "image"))


def last_asked_for(store: Store, snapshot: str | None) -> str | None:
    """The snapshot itself, or the nearest above it that was not taken on an occasion; what resets keep is asked for."""
    while snapshot is not None:
        found = store.query("select parent, auto from images where id = ?", snapshot)
        if not found or found[0]["auto"] in ("", RESET):
            break
        snapshot = found[0]["parent"]
    return snapshot


def prune(store: Store, launcher: Client) -> list[str]:
    """Remove the oldest of those beyond the budget, but for pinned ones, and ones that a container stands on, or would
    go back to: their ids."""
    rules = policy.load()
    most = (rules and rules.default("snapshots.count")) or COUNT
    largest = (rules and rules.default("snapshots.bytes")) or BYTES
    held, living = set(), set()
    for row in store.query("select id, snapshot, record from containers"):
        living.add(row["id"])
        record = loads(row["record"])
        held |= {row["snapshot"], record.get("undo"), *record.get("undo_volumes", {}).values()}
    for row in store.query("select snapshot, record from volumes"):
        held |= {row["snapshot"], loads(row["record"]).get("undo")}
    chosen = "auto != '' and pinned = 0 order by created desc"
    rows = store.query(f"select id, size, top, auto, record from images where {chosen}")
    counts: dict[tuple[str, str], int] = {}
    total, gone = 0, []
    for row in rows:
        total += max(row["size"], 0)
        of = loads(row["record"]).get(CONTAINER, "")
        group = of if of in living else "", row["auto"].partition(":")[0]
        counts[group] = counts.get(group, 0) + 1
        if (counts[group] > most or total > largest) and row["id"] not in held:
            gone.append(row)
    for row in gone:
        forget(store, row["id"])
    for layer in unneeded(store, [row["top"] for row in gone]):
        store.query("delete from layers where id = ?", layer)
        if os.path.isdir(store.path("layers", layer)):
            launcher.open("delete", path=f"layers/{layer}").close()  # nobody waits for it
    return [row["id"] for row in gone]


def annotate(store: Store, identity: str, *, note: str | None = None, pinned: bool | None = None) -> None:
    """Write a note on an image, or pin it (False: no more)."""
    if note is not None:
        store.query("update images set note = ? where id = ?", note, identity)
    if pinned is not None:
        store.query("update images set pinned = ? where id = ?", int(pinned), identity)


def forget(store: Store, identity: str) -> None:
    """Delete an image's row; what hung below it hangs below the one above."""
    with store.transaction():
        store.query(
            "update images set parent = (select parent from images where id = ?) where parent = ?", identity, identity
        )
        store.query(
            "update volumes set snapshot = (select parent from images where id = ?) where snapshot = ?",
            identity,
            identity,
        )
        for statement in (
            "delete from tags where image = ?",
            "delete from digests where image = ?",
            "delete from images where id = ?",
        ):
            store.query(statement, identity)


def unneeded(store: Store, tops: list[str]) -> set[str]:
    """The layers of chains that no image and no container has."""
    needed = store.needed_layers() if tops else set()
    found: set[str] = set()
    for top in tops:
        for layer in store.chain(top):
            if layer in needed or layer in found:
                break  # and so are those below it
            found.add(layer)
    return found
