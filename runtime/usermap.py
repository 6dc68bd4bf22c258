"""Which ids of the host the containers' users are: the maps of the holder's user namespace.

Three strategies, by what the process is able to do: write any map itself (real root: a range of
ids that belong to nobody), have newuidmap(1) write the ranges that /etc/subuid gives to the user, or
map the user alone. user_namespaces(7), subuid(5).
"""

from __future__ import annotations

import os
import pwd

from nbhull.runtime.errors import HostUnable
from nbhull.runtime.linux.process import has_capability, write_file
from nbhull.runtime.record import Record

WIDTH = 65536
"""ids in a container, 0 to 65535, as images expect"""
FIRST = 1_500_000_000
"""where the range for real root's containers is looked for: above what useradd(8) gives out, within what
systemd sets aside for containers"""

Extent = tuple[int, int, int]
"""first id inside, first id outside, how many"""


class UserMap(Record):
    """The maps of a holder, and who writes them."""

    strategy: str
    """`direct`, `newuidmap` or `single`"""
    uids: list[Extent]
    gids: list[Extent]

    @property
    def width(self) -> int:
        """How many ids, from 0 without a gap, a container has."""
        return min(sum(extent[2] for extent in self.uids), sum(extent[2] for extent in self.gids))


def plan() -> UserMap:
    """The widest map that this process can give to its containers."""
    if has_capability("SETUID") and has_capability("SETGID") and has_capability("SYS_ADMIN"):
        start = free_range()
        extents = [(0, start, WIDTH)]
        return UserMap("direct", extents, extents)
    uid, gid = os.getuid(), os.getgid()
    uids, gids = subordinate_ranges("/etc/subuid", uid), subordinate_ranges("/etc/subgid", uid)
    if uids and gids and which("newuidmap") and which("newgidmap"):
        return UserMap("newuidmap", chain(uid, uids), chain(gid, gids))
    return UserMap("single", [(0, uid, 1)], [(0, gid, 1)])


def chain(own: int, ranges: list[tuple[int, int]]) -> list[Extent]:
    """The user as 0, the subordinate ids as 1 and up."""
    extents = [(0, own, 1)]
    inside = 1
    for start, count in ranges:
        count = min(count, WIDTH - inside)
        if count > 0:
            extents.append((inside, start, count))
            inside += count
    return extents


def subordinate_ranges(path: str, uid: int) -> list[tuple[int, int]]:
    """The (start, count) pairs that a file of subuid(5)'s form gives to a user, by name or number."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return [(start, count) for owner, start, count in read_ranges(path) if owner in (name, str(uid))]


def read_ranges(path: str) -> list[tuple[str, int, int]]:
    """All (owner, start, count) lines of a file of subuid(5)'s form; none if there is no such file."""
    try:
        with open(path) as file:
            lines = [line.strip().split(":") for line in file if ":" in line]
    except FileNotFoundError:
        return []
    return [(f[0], int(f[1]), int(f[2])) for f in lines if len(f) == 3 and f[1].isdigit() and f[2].isdigit()]


def free_range() -> int:
    """The first of WIDTH host ids that no user was given in /etc/subuid or /etc/subgid."""
    taken = read_ranges("/etc/subuid") + read_ranges("/etc/subgid")
    start = FIRST
    while any(start < begin + count and begin < start + WIDTH for _, begin, count in taken):
        start += WIDTH
    return start


def write(user_map: UserMap, pid: int) -> None:
    """Give the user namespace of process `pid`, just made, its maps.

    Raises HostUnable when newuidmap(1) refuses, or when the kernel does."""
    if user_map.strategy == "newuidmap":
        pair = (("newuidmap", user_map.uids), ("newgidmap", user_map.gids))
        for running in [start_tool(tool, pid, extents) for tool, extents in pair]:
            finish_tool(*running)
        return
    if user_map.strategy == "single":
        write_file(f"/proc/{pid}/setgroups", "deny")
    for file, extents in (("uid_map", user_map.uids), ("gid_map", user_map.gids)):
        text = "\n".join(" ".join(map(str, extent)) for extent in extents)
        try:
            write_file(f"/proc/{pid}/{file}", text)
        except OSError as error:
            raise HostUnable(
                f"the kernel refused the user namespace's {file}: {error.strerror}",
                "start nbhull as an ordinary user, or as root with all of root's abilities",
            ) from error


def start_tool(tool: str, pid: int, extents: list[Extent]) -> tuple[str, int, int]:
    """Start newuidmap(1) or newgidmap(1): its name, its process id, and where its complaints can be read."""
    complaint, complaint_end = os.pipe2(os.O_CLOEXEC)
    argv = [tool, str(pid), *(str(number) for extent in extents for number in extent)]
    redirect = [(os.POSIX_SPAWN_DUP2, complaint_end, 2)]
    child = os.posix_spawn(which(tool), argv, os.environ, file_actions=redirect)
    os.close(complaint_end)
    return tool, child, complaint


def finish_tool(tool: str, child: int, complaint: int) -> None:
    """Wait for it; raises HostUnable with its words and what mends it."""
    with os.fdopen(complaint, errors="replace") as file:
        words = " ".join(file.read().split())
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        from nbhull.runtime.doctor.mending import explain

        raise HostUnable(
            f"the user's subordinate ids cannot be mapped: {words or f'{tool} ended with {status}'}",
            explain(tool, 0) or "run `nbhull doctor` for what works here",
        )


def which(tool: str) -> str:
    """Where a program stands on the PATH, or in the system's folders; empty if nowhere."""
    for folder in [*os.environ.get("PATH", "").split(":"), "/usr/bin", "/bin", "/usr/sbin", "/sbin"]:
        path = f"{folder}/{tool}"
        if folder and os.access(path, os.X_OK):
            return path
    return ""
