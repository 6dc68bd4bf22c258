"""Generations of containers becoming layers, so that a process that dies on the way leaves nothing in between.

The index decides. A note of which folder becomes which layer is written first, then the index in one transaction,
then the folders are renamed and the note goes. Who finds a note repeats the renames if the index has the image,
and else forgets it. Whoever changes a container's generations holds its lock, so notes of the living are left alone.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from nbhull.runtime.errors import NotFound
from nbhull.runtime.snapshots import generations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.store import Store

FOLDER = "journal"


@contextmanager
def locked(store: Store, identity: str) -> Iterator[None]:
    """Alone among all processes in changing a container's generations. Raises NotFound if it is gone."""
    try:
        fd = os.open(store.path("containers", identity), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"there is no container {identity!r}", "`nbhull ps -a` lists what there is") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        finish(store, identity)
        yield
    finally:
        os.close(fd)


def note(store: Store, identity: str, image: str, layers: dict[str, int]) -> None:
    """Write down, before the index is changed, that generations become layers of an image."""
    os.makedirs(store.path(FOLDER), 0o700, exist_ok=True)
    path = store.path(FOLDER, identity)
    with open(f"{path}.part", "w") as file:
        json.dump({"image": image, "layers": layers}, file)
    os.rename(f"{path}.part", path)


def finish(store: Store, identity: str) -> None:
    """Do what the note of a container says, if there is one; the caller holds its lock."""
    path = store.path(FOLDER, identity)
    try:
        with open(path) as file:
            noted = json.load(file)
    except FileNotFoundError:
        return
    if store.query("select 1 from images where id = ?", noted["image"]):
        for layer, number in noted["layers"].items():
            source = store.path(generations.folder(identity, number))
            if os.path.isdir(source):
                os.rename(source, store.path("layers", layer))
            generations.remove_work(store, identity, number)
    os.unlink(path)


def recover(store: Store) -> None:
    """Finish what processes that died have begun."""
    try:
        names = os.listdir(store.path(FOLDER))
    except FileNotFoundError:
        return
    for name in names:
        if not name.endswith(".part"):
            with locked(store, name):
                pass
