"""The memory of a kernel's snapshots, from outside: which processes of its container hold it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from signal import SIGKILL
from typing import Any

from nbhull.kernel.names import MEMORY_BUDGET, WAKE
from nbhull.runtime.engine import Process
from nbhull.runtime.errors import LauncherLost
from nbhull.runtime.model import Image


@dataclass
class Checkpoint:
    """A process that sleeps, and is a kernel as it was when a snapshot was taken."""

    image: Image
    process: Process
    connection: Mapping[str, Any]
    """what the kernel's connection file said"""

    def is_alive(self) -> bool:
        """Whether it is still there: when the container's memory ran out, it was the first to go."""
        try:
            return self.process.poll() is None
        except LauncherLost:
            return False

    def discard(self) -> None:
        """End it."""
        with suppress(LauncherLost):
            self.process.signal(SIGKILL)
        self.process.close()

    def wake(self) -> Process:
        """Have it go on as the kernel; it leaves another one in its place, and tells of that (`Checkpoints.put`)."""
        self.process.signal(WAKE, group=False)
        return self.process


class Checkpoints:
    """Those of one kernel, the oldest first."""

    def __init__(self) -> None:
        self.by_image: dict[str, Checkpoint] = {}
        self.waking: Image | None = None
        """the snapshot whose checkpoint was woken, and has not told yet what follows it"""

    def put(self, checkpoint: Checkpoint) -> list[str]:
        """Keep one more; the names of the snapshots whose memory had to go for it."""
        self.by_image[checkpoint.image.id] = checkpoint
        old = list(self.by_image.values())[:-MEMORY_BUDGET]
        for one in old:
            self.by_image.pop(one.image.id).discard()
        return [one.image.name for one in old]

    def pids(self) -> list[int]:
        """The processes, by their numbers in the container."""
        return [one.process.pid for one in self.by_image.values() if one.is_alive()]

    def take(self, image: str | None, connection: Mapping[str, Any]) -> Checkpoint | None:
        """The one of a snapshot, out of the rest, if it can be woken: it must know the sockets of today."""
        checkpoint = self.by_image.get(image or "")
        if checkpoint is None or not checkpoint.is_alive() or checkpoint.connection != connection:
            return None
        del self.by_image[checkpoint.image.id]
        self.waking = checkpoint.image
        return checkpoint

    def clear(self) -> None:
        """Give all up; with their container they have ended, or will."""
        for checkpoint in self.by_image.values():
            checkpoint.process.close()
        self.by_image.clear()
        self.waking = None
