"""What is written on snapshots, and those that nobody asked for, kept under a budget."""

from __future__ import annotations

import os

from nbhull.runtime.lean import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.launcher.client import Client
    from nbhull.runtime.store import Store

COUNT = 20
"""how many are kept"""
BYTES = 10 << 30
"""how large they may be together"""


def prune(store: Store, launcher: Client) -> list[str]:
    """Remove the oldest of those beyond the budget, but for pinned ones, and ones that a container stands on, or would
    go back to: their ids."""
    held = set()
    for row in store.query("select snapshot, record from containers"):
        held |= {row["snapshot"], loads(row["record"]).get("undo")}
    rows = store.query("select id, size, top from images where auto != '' and pinned = 0 order by created desc")
    total, gone = 0, []
    for number, row in enumerate(rows):
        total += max(row["size"], 0)
        if (number >= COUNT or total > BYTES) and row["id"] not in held:
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
