"""What builds leave in the store for the next ones: folders of cache mounts, downloads, digests of contexts.

Nothing of it is ever needed: what is gone is made or downloaded again. So it goes by when it was last of use, which is
the time of modification of a file or folder that each build touches.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass

from nbhull.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.images.workshop import Workshop

IDLE = 30 * 86400.0
"""seconds without use after which `prune` takes it"""
CACHES, DOWNLOADS, CONTEXTS = "caches", "downloads", "contexts"
MARK = ".lock"
"""ending of the file beside a cache mount's folder that belongs to the user, whoever the folder belongs to"""
UNFINISHED = 3600.0
"""seconds for which what a build that runs may be about to use is left alone"""


@dataclass(frozen=True)
class Leftover:
    """One thing that can go by itself."""

    kind: str
    path: str
    """relative to the store"""
    used: float
    """seconds since the epoch"""


def leftovers(store: Store) -> Iterator[Leftover]:
    """All of them."""
    for kind in (CACHES, DOWNLOADS, CONTEXTS):
        try:
            entries = sorted(os.scandir(store.path(kind)), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue  # no build has left any
        for entry in entries:
            if kind == CACHES and entry.name.endswith(MARK):
                continue  # goes with its folder
            mark = f"{entry.path}{MARK}" if kind == CACHES and os.path.exists(f"{entry.path}{MARK}") else entry.path
            try:
                used = os.lstat(mark).st_mtime
            except FileNotFoundError:
                continue  # gone this moment
            yield Leftover(kind, f"{kind}/{entry.name}", used)


def mark(store: Store, path: str) -> None:
    """Note that a cache mount's folder is of use now."""
    with open(store.path(f"{path}{MARK}"), "ab"):
        os.utime(store.path(f"{path}{MARK}"))


def size_of(workshop: Workshop, store: Store, found: list[Leftover]) -> int:
    """Bytes on disk. Cache mounts are measured by the worker, since they may belong to others than the user."""
    folders = [one.path for one in found if one.kind == CACHES]
    size = int(workshop.ask("measure", paths=folders)["size"]) if folders else 0
    for one in found:
        if one.kind == CACHES:
            continue
        place = store.path(one.path)
        size += os.lstat(place).st_blocks * 512
        for folder, _, names in os.walk(place):
            size += sum(os.lstat(os.path.join(folder, name)).st_blocks * 512 for name in names)
    return size


def unneeded(workshop: Workshop, store: Store, *, everything: bool, keep: int | None) -> list[Leftover]:
    """What is to go: what was of no use for long, with `everything` all; `keep`: what is left takes up that many bytes
    at most, and what was used last stays."""
    now = time.time()
    gone, total = [], 0
    for one in sorted(leftovers(store), key=lambda one: one.used, reverse=True):
        size = 0 if keep is None else size_of(workshop, store, [one])
        if one.kind == CONTEXTS and os.path.isdir(store.path(one.path)):
            stays = now - one.used < UNFINISHED  # unpacked for one build, which takes it away unless it is killed
        elif everything and keep is None:
            stays = False
        else:
            stays = now - one.used < IDLE and (keep is None or total + size <= keep)
        if stays:
            total += size
        else:
            gone.append(one)
    return gone


def prune(workshop: Workshop, store: Store, *, everything: bool = False, keep: int | None = None) -> int:
    """Delete what is unneeded; the bytes that this frees. Only while nobody builds."""
    gone = unneeded(workshop, store, everything=everything, keep=keep)
    freed = size_of(workshop, store, gone)
    for one in gone:
        place = store.path(one.path)
        if one.kind == CACHES:
            workshop.ask("delete", path=one.path)
            if os.path.exists(f"{place}{MARK}"):
                os.unlink(f"{place}{MARK}")
        elif os.path.isdir(place):
            shutil.rmtree(place)
        else:
            os.unlink(place)
    return freed
