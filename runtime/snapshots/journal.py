"""Generations of containers becoming layers, so that a process that dies on the way leaves nothing in between.

The index decides. A note of which folder becomes which layer is written first, then the index in one transaction,
then the folders are renamed and the note goes. Who finds a note repeats the renames if the index has the image,
and else forgets it. Whoever changes a container's generations holds its lock, so notes of the living are left alone.
"""

from __future__ import annotations

import fcntl
import os

from nbhull.runtime.errors import NotFound
from nbhull.runtime.lean import dumps, loads
from nbhull.runtime.snapshots import generations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.store import Store

FOLDER = "journal"


class locked:
    """Alone among all processes in changing a container's generations, for a `with`. Raises NotFound if it is gone."""

    def __init__(self, store: Store, identity: str) -> None:
        self.store = store
        self.identity = identity

    def __enter__(self) -> None:
        try:
            folder = self.store.path("containers", self.identity)
            self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(
                f"there is no container {self.identity!r}", "`nbhull ps -a` lists what there is"
            ) from None
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX)
            finish(self.store, self.identity)
        except BaseException:
            os.close(self.fd)
            raise

    def __exit__(self, *exception: object) -> None:
        os.close(self.fd)


def note(store: Store, identity: str, image: str, layers: dict[str, int]) -> None:
    """Write down, before the index is changed, that generations become layers of an image."""
    os.makedirs(store.path(FOLDER), 0o700, exist_ok=True)
    path = store.path(FOLDER, identity)
    with open(f"{path}.part", "w") as file:
        file.write(dumps({"image": image, "layers": layers}))
    os.rename(f"{path}.part", path)


def finish(store: Store, identity: str) -> None:
    """Do what the note of a container says, if there is one; the caller holds its lock."""
    path = store.path(FOLDER, identity)
    try:
        with open(path) as file:
            noted = loads(file.read())
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
