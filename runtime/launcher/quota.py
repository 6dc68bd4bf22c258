"""Quotas of containers' own files: by the file system's project quotas where a container has them, else measured.

With a project quota (`runtime.projects`) the kernel refuses what is too much, and the launcher only looks whether that
has come. Without one, what writes over a quota is refused, and killed if it goes on: the launcher has the holder
measure now and then, in a process of its own, and at once where the file system's free space shrinks by a part of what
the container has left. One that is found over its quota can make no file longer (RLIMIT_FSIZE of its processes), so
that it can still delete; once it is below, it can write again. One that grows all the same, as by many small files or
by lifting that limit, is killed. Between two measurements a container can write as much as the disk takes: the quota
is kept over time, not at every byte.
"""

from __future__ import annotations

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.lean import Socket

INTERVAL = 0.1
"""seconds between two measurements, or COST times what one takes, if that is more"""
COST = 4.0
GLANCE = 0.01
"""seconds between two looks at the free space, which cost next to nothing"""
PART = 0.25
"""how much of what a container has left may vanish from the free space before it is measured"""
ROOM = 0.95
"""how much of a quota may be used for writing to be allowed again"""
LEAST = 1 << 20
"""bytes of the free space whose loss says nothing: everybody's logs and indexes"""
GROWTH = 0.25
"""how much of a quota may be written behind a refusal, by writes under way and by whom it does not reach"""


CLOSE = 1 << 20
"""bytes, or a hundredth of a quota, if that is less: so close to it means that it is used up, since the kernel refuses
what would go over it as a whole"""


class Quota:
    """One container's, which is measured."""

    def __init__(self, folder: str, disk: int | None, inodes: int | None) -> None:
        self.folder = folder
        self.disk = disk
        self.inodes = inodes
        self.used = (0, 0)
        """bytes and inodes, when last measured"""
        self.hits = 0
        self.held_at: tuple[int, int] | None = None
        """what was used when writing was refused; None while it is allowed"""
        self.due = 0.0
        self.soonest = 0.0
        """moments of the next measurement: as usual, and when the free space shrinks"""
        self.began = 0.0
        self.free = 0
        """of the file system, in bytes, when that began"""

    def begin(self, now: float) -> None:
        """It is being measured."""
        self.began, self.free = now, self.free_space()
        self.due = self.soonest = float("inf")

    def is_due(self, now: float) -> bool:
        """Whether it is to be measured now."""
        return self.due <= now or (self.soonest <= now and self.is_filling())

    def is_filling(self) -> bool:
        """Whether the file system has lost so much that this container may be about to go over its quota."""
        if self.disk is None:
            return False
        top = self.disk if self.held_at is None else self.held_at[0] + GROWTH * self.disk
        return self.free - self.free_space() > max(LEAST, PART * (top - self.used[0]))

    def free_space(self) -> int:
        """Bytes that are free on the file system of its files."""
        status = os.statvfs(self.folder)
        return status.f_bfree * status.f_frsize

    def share(self, used: tuple[int, int]) -> float:
        """How much of the quota that is; above 1 is over it."""
        return max(used[0] / self.disk if self.disk else 0.0, used[1] / self.inodes if self.inodes else 0.0)

    def judge(self, used: tuple[int, int]) -> str:
        """What to do with the container now: `hold`, `release`, `kill`, or nothing."""
        now = time.monotonic()
        took = now - self.began
        self.due, self.soonest = now + max(INTERVAL, COST * took), now + took
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


class ProjectQuota:
    """One container's, which the file system keeps."""

    def __init__(self, folder: str, disk: int | None, inodes: int | None) -> None:
        self.folder = folder
        self.disk = disk
        self.inodes = inodes
        self.hits = 0
        self.is_full = False
        self.project = 0
        self.used = (0, 0)

    def look(self) -> bool:
        """See what is used; whether the quota has been used up since the last look."""
        from nbhull.runtime import projects

        self.project, *used = projects.usage(self.folder)
        self.used = used[0], used[1]
        was_full = self.is_full
        is_full = self.disk is not None and used[0] > self.disk - min(CLOSE, self.disk // 100)
        is_full = is_full or (self.inodes is not None and used[1] >= self.inodes)
        is_emptied = all(use < ROOM * most for use, most in zip(used, (self.disk, self.inodes), strict=True) if most)
        self.is_full = is_full or (was_full and not is_emptied)
        self.hits += self.is_full and not was_full
        return self.is_full and not was_full


class Quotas:
    """Those of a launcher's containers."""

    def __init__(self) -> None:
        self.by_name: dict[str, Quota] = {}
        """those that are measured"""
        self.kept: dict[str, ProjectQuota] = {}
        """those that the file system keeps"""
        self.looked = 0.0
        self.measuring: dict[int, tuple[str, Socket]] = {}
        """by descriptor: measurements under way"""

    def add(self, name: str, folder: str, disk: int | None, inodes: int | None) -> None:
        """A container starts, with or without a quota; `folder`: its own of the store. Raises SyscallFailed."""
        if disk is None and inodes is None:
            return
        from nbhull.runtime import projects

        if projects.limit(folder, disk, inodes):
            self.kept[name] = ProjectQuota(folder, disk, inodes)
        else:
            self.by_name[name] = Quota(folder, disk, inodes)

    def forget(self, name: str) -> None:
        """It has ended."""
        self.by_name.pop(name, None)
        self.kept.pop(name, None)

    def filled(self) -> list[str]:
        """Containers that have used up a quota that the file system keeps, since the last look."""
        now = time.monotonic()
        if not self.kept or now < self.looked + INTERVAL:
            return []
        self.looked = now
        return [name for name, quota in self.kept.items() if quota.look()]

    def due(self) -> list[str]:
        """Containers that are to be measured now; they count as being so."""
        now = time.monotonic()
        found = [name for name, quota in self.by_name.items() if quota.is_due(now)]
        for name in found:
            self.by_name[name].begin(now)
        return found

    def usage(self, name: str) -> dict[str, int]:
        """What a container with a quota uses, or used when last measured, by the fields of `model.Usage`."""
        quota = self.find(name)
        if quota is None:
            return {}
        fields = {"disk_limit": quota.disk} if quota.disk else {}
        if isinstance(quota, ProjectQuota):
            quota.look()
            fields["disk_project"] = quota.project
        return {"disk": quota.used[0], "inodes": quota.used[1], **fields}

    def events(self, name: str) -> dict[str, int]:
        """How often it went over its quota, or used it up."""
        quota = self.find(name)
        return {} if quota is None else {"disk_hits": quota.hits}

    def find(self, name: str) -> Quota | ProjectQuota | None:
        """A container's, of either kind."""
        return self.by_name.get(name) or self.kept.get(name)
