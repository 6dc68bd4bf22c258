"""Quotas of containers' own files, measured: what writes over one is refused, and killed if it goes on.

The launcher has the holder measure now and then, in a process of its own. A container that is found over its quota can
make no file longer (RLIMIT_FSIZE of its processes), so that it can still delete; once it is below, it can write
again. One that grows all the same, as by many small files or by lifting that limit, is killed. Between two
measurements a container can write as much as the disk takes: the quota is kept over time, not at every byte.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.lean import Socket

INTERVAL = 0.1
"""seconds between two measurements, or COST times what one takes, if that is more"""
COST = 4.0
ROOM = 0.95
"""how much of a quota may be used for writing to be allowed again"""
GROWTH = 0.25
"""how much of a quota may be written behind a refusal, by writes under way and by whom it does not reach"""


class Quota:
    """One container's."""

    def __init__(self, disk: int | None, inodes: int | None) -> None:
        self.disk = disk
        self.inodes = inodes
        self.used = (0, 0)
        """bytes and inodes, when last measured"""
        self.hits = 0
        self.held_at: tuple[int, int] | None = None
        """what was used when writing was refused; None while it is allowed"""
        self.due = 0.0
        self.began = 0.0

    def share(self, used: tuple[int, int]) -> float:
        """How much of the quota that is; above 1 is over it."""
        return max(used[0] / self.disk if self.disk else 0.0, used[1] / self.inodes if self.inodes else 0.0)

    def judge(self, used: tuple[int, int]) -> str:
        """What to do with the container now: `hold`, `release`, `kill`, or nothing."""
        now = time.monotonic()
        self.due = now + max(INTERVAL, COST * (now - self.began))
        self.used = used
        share = self.share(used)
        if self.held_at is None:
            if share <= 1:
                return ""
            self.held_at, self.hits = used, self.hits + 1
            return "hold"
        if share < ROOM:
            self.held_at = None
            return "release"
        return "kill" if share > self.share(self.held_at) + GROWTH else ""


class Quotas:
    """Those of a launcher's containers."""

    def __init__(self) -> None:
        self.by_name: dict[str, Quota] = {}
        self.measuring: dict[int, tuple[str, Socket]] = {}
        """by descriptor: measurements under way"""

    def add(self, name: str, disk: int | None, inodes: int | None) -> None:
        """A container starts, with or without a quota."""
        if disk is not None or inodes is not None:
            self.by_name[name] = Quota(disk, inodes)

    def forget(self, name: str) -> None:
        """It has ended."""
        self.by_name.pop(name, None)

    def due(self) -> list[str]:
        """Containers that are to be measured now; they count as being so."""
        now = time.monotonic()
        found = [name for name, quota in self.by_name.items() if quota.due <= now]
        for name in found:
            self.by_name[name].began, self.by_name[name].due = now, float("inf")
        return found

    def usage(self, name: str) -> dict[str, int]:
        """What a container with a quota used when last measured, by the fields of `model.Usage`."""
        quota = self.by_name.get(name)
        if quota is None:
            return {}
        limits = {"disk_limit": quota.disk} if quota.disk else {}
        return {"disk": quota.used[0], "inodes": quota.used[1], **limits}

    def events(self, name: str) -> dict[str, int]:
        """How often it went over its quota."""
        quota = self.by_name.get(name)
        return {} if quota is None else {"disk_hits": quota.hits}
