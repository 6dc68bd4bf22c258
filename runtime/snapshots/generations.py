"""What a container writes, folder by folder: each snapshot has it go on in the next.

`containers/ID/N/KEY` is the upper folder of the writable part KEY in generation N, `containers/ID/N.work/KEY` the
folder that overlayfs wants beside it. The highest is written to. Lower ones that have not become layers yet lie
right beneath it, above the layers that the container's row names: a snapshot that was cut short changes nothing.
Generations below the row's `first` belong to layers, or to nobody.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.launcher.client import Client
    from nbhull.runtime.store import Store

WORK = ".work"
FIRST = 1


def folder(identity: str, number: int) -> str:
    """A generation's folder, relative to the store."""
    return f"containers/{identity}/{number}"


def present(store: Store, identity: str) -> list[int]:
    """All that are there, in order."""
    return sorted(int(name) for name in os.listdir(store.path("containers", identity)) if name.isdigit())


def own(store: Store, identity: str, record: dict[str, Any]) -> list[int]:
    """Those that are the container's own, in order."""
    return [number for number in present(store, identity) if number >= record["first"]]


def make(path: str, number: int, keys: list[str]) -> None:
    """Make an empty one in the folder of a container."""
    work = f"{path}/{number}{WORK}"
    os.mkdir(work, 0o700)
    # The upper folders last, and by one rename: what has a number is whole.
    part = f"{path}/{number}.part"
    os.mkdir(part, 0o700)
    for key in keys:
        os.mkdir(f"{work}/{key}", 0o700)
        os.mkdir(f"{part}/{key}", 0o755)
    os.rename(part, f"{path}/{number}")


def next_number(store: Store, identity: str) -> int:
    """A number that no folder has had."""
    names = [name.partition(".")[0] for name in os.listdir(store.path("containers", identity))]
    taken = [int(name) for name in names if name.isdigit()]
    return max(taken, default=FIRST - 1) + 1


def is_empty(store: Store, identity: str, number: int) -> bool:
    """Whether nothing was written in it."""
    path = store.path(folder(identity, number))
    return not any(os.listdir(f"{path}/{key}") for key in os.listdir(path))


def separate(store: Store, launcher: Client, identity: str, record: dict[str, Any]) -> None:
    """Before a container starts: if it has several, something was killed, and perhaps in the middle of a move, whose
    traces then go."""
    numbers = own(store, identity, record)
    if len(numbers) > 1:
        launcher.request("separate", folders=[folder(identity, number) for number in reversed(numbers)])


def remove_work(store: Store, identity: str, number: int) -> None:
    """Delete what overlayfs wanted beside a generation that is written to no more; what it left in there stays until
    the container goes."""
    work = store.path(folder(identity, number) + WORK)
    for path in [f"{work}/{key}" for key in os.listdir(work)] if os.path.isdir(work) else []:
        try:
            if os.path.isdir(f"{path}/work"):
                os.rmdir(f"{path}/work")
            os.rmdir(path)
        except OSError:
            return
    if os.path.isdir(work):
        os.rmdir(work)
