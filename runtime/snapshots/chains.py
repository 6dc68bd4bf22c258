"""Long chains of layers kept short: every so often, the newest of a chain are merged into one folder for them.

`flat/ID/KEY` is what the layer ID and some of those below it come to, made of hard links, so its bytes are the
layers' own. Containers are mounted on it; the snapshots stay what they are. overlayfs takes 500 layers at most, and
looks a name that does not exist up in each, so a container has a few single layers, below them one folder for the last
dozens, which is made anew with every few layers more, and one for all before, which takes that one in when it stands
for many.
"""

from __future__ import annotations

import os
import time

from nbhull.runtime.lean import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from nbhull.runtime.launcher.client import Client
    from nbhull.runtime.store import Store

FOLDER = "flat"
UNDER = "under"
"""in a merged folder, to be mounted right below it: the folders, empty, in which it has whiteouts. overlayfs looks for
whiteouts only in folders that several layers have, and would else list them as files"""
SPAN = "span"
"""in a merged folder: how many layers it stands for, and the layer on which it lies; it lies on none without"""
SINGLE = 3
"""layers that are merged at a time"""
MANY = 64
"""layers of a merged folder, from which on it is merged with the one of all before it"""
GONE = ".gone"
"""ending of the name of one that is being deleted"""
ABANDONED = 600.0
"""seconds after which a half-made folder is taken for one that a killed process left"""
LONGEST = 200
"""single layers after which a snapshot waits for them to be merged"""


class Run:
    """A part of a chain that is mounted as one."""

    def __init__(self, parts: list[str], count: int, below: str | None) -> None:
        self.parts = parts
        """folders, relative to the store"""
        self.count = count
        """of layers that it stands for"""
        self.below = below
        """the layer on which it lies"""

    @property
    def is_merged(self) -> bool:
        """Whether it is a merged folder."""
        return self.parts[0].startswith(f"{FOLDER}/")


def runs(store: Store, top: str | None) -> Iterator[Run]:
    """The parts of a chain, the newest first."""
    layer = top
    while layer is not None:
        run = merged(store, layer)
        if run is None:
            (row,) = store.query("select below from layers where id = ?", layer)
            run = Run([f"layers/{layer}"], 1, row["below"])
        yield run
        layer = run.below


def merged(store: Store, layer: str) -> Run | None:
    """What stands for a layer and some below it, if there is something."""
    folder = f"{FOLDER}/{layer}"
    if not os.path.isdir(store.path(folder)):
        return None
    count, below = MANY, None
    if os.path.exists(store.path(folder, SPAN)):
        with open(store.path(folder, SPAN)) as file:
            count, below = loads(file.read())
    under = [f"{folder}/{UNDER}"] if os.path.isdir(store.path(folder, UNDER)) else []
    return Run([folder, *under], count, below)


def folders(store: Store, top: str | None, foundation: list[str]) -> list[str]:
    """The folders, relative to the store, that the chain of layers from `top` on is mounted as, the newest first;
    `foundation`: the image's own layers below it."""
    found = [part for run in runs(store, top) for part in run.parts]
    return [*found, *(f"layers/{layer}" for layer in foundation)]


def keep_short(store: Store, launcher: Client | None, record: dict[str, Any], keys: list[str]) -> None:
    """Have a container's chain merged in the background, where it has become long."""
    if launcher is None:
        return
    above = list(runs(store, record["top"]))
    single = next((number for number, run in enumerate(above) if run.is_merged), len(above))
    if single < SINGLE:
        return
    chosen = above[:single]
    for run in above[single:]:
        if run.count >= MANY > sum(one.count for one in chosen):
            break
        chosen.append(run)
    os.makedirs(store.path(FOLDER), 0o700, exist_ok=True)
    drop_unneeded(store, launcher)
    channel = launcher.open(
        "flatten",
        target=f"{FOLDER}/{record['top']}",
        folders=[part for run in chosen for part in run.parts],
        keys=keys,
        span=dumps([sum(run.count for run in chosen), chosen[-1].below]),
    )
    with channel:
        if single > LONGEST:
            from nbhull.runtime.launcher import wire

            wire.receive_answer(channel)


def note_mounted(store: Store, identity: str, parts: Iterable[dict[str, Any]]) -> None:
    """Write down which merged folders a container is mounted on now, so that they stay."""
    text = dumps(merged_in(parts))
    store.query("update containers set record = json_set(record, '$.flat', json(?)) where id = ?", text, identity)


def merged_in(parts: Iterable[dict[str, Any]]) -> list[str]:
    """The merged folders among those that a container's mounts are made of."""
    return sorted(
        {lower.split("/")[1] for part in parts for lower in part.get("lowers", ()) if lower.startswith(f"{FOLDER}/")}
    )


def drop_unneeded(store: Store, launcher: Client) -> None:
    """Delete merged folders whose layer is gone, and small ones that no container is mounted on, or would be.

    Each gets another name first, at once: while it is deleted, a container that is put back on an older snapshot must
    not take what is left of it for the whole. Nothing is dropped while folders are being merged, out of which may be
    made what is."""
    names = os.listdir(store.path(FOLDER))
    if any(name.endswith(".part") and is_recent(store.path(FOLDER, name)) for name in names):
        return
    needed: set[str] = set()
    for row in store.query("select record from containers"):
        record = loads(row["record"])
        needed.update(record.get("flat", []))
        needed.update(part.split("/")[1] for run in runs(store, record["top"]) if run.is_merged for part in run.parts)
    for name in names:
        if name in needed or name.endswith(".part"):
            continue
        if not name.endswith(GONE):
            run = merged(store, name)
            is_small = run is not None and run.count < MANY
            if not is_small and store.query("select 1 from layers where id = ?", name):
                continue
            try:
                os.rename(store.path(FOLDER, name), store.path(FOLDER, name + GONE))
            except FileNotFoundError:
                continue  # somebody else drops it
        launcher.open("delete", path=f"{FOLDER}/{name.removesuffix(GONE)}{GONE}").close()  # nobody waits for it


def is_recent(path: str) -> bool:
    """Whether a folder that is being made was touched in the last minutes: what a killed process left is older."""
    try:
        return time.time() - os.stat(path).st_mtime < ABANDONED
    except FileNotFoundError:
        return False
