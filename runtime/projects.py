"""Project quotas of containers' folders, where the file system has them and this process may set them: root alone.

A container's folder of the store, and with it all that is ever made in there, belongs to a project of its own, whose
limits the kernel keeps. Nothing is written down about that: the folder itself says which project is its own, and a
project is free if the file system counts nothing for it. So none is taken twice, by other stores on the same file
system neither, and one that is freed needs nobody to say so.
"""

from __future__ import annotations

import os

from nbhull.runtime.errors import HostUnable, SyscallFailed
from nbhull.runtime.linux import quota

FIRST, COUNT = 0x4E42_0000, 1 << 20
"""the projects that may be containers': far above those that administrators and other tools give"""
ATTEMPTS = 100


class Folder:
    """A container's folder, open for the calls of this module, as a context manager."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> int:
        self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return self.fd

    def __exit__(self, *exception: object) -> None:
        os.close(self.fd)


def refusal(path: str) -> str:
    """Why folders below that one cannot have project quotas; empty if they can."""
    with Folder(path) as fd:
        try:
            quota.project(fd)
            if not quota.is_enforced(fd):
                return "the file system is mounted without project quotas (prjquota)"
            quota.usage(fd, FIRST)
        except PermissionError:
            return "only the host's root may set project quotas"
        except SyscallFailed as error:
            if error.errno in (1, 13):  # EPERM, EACCES
                return "only the host's root may set project quotas"
            return "the file system has no project quotas"
        except OSError:
            return "the file system has no project quotas"
    return ""


def of(fd: int) -> int | None:
    """The project of an open folder, if it is one of nbhull's and its limits hold; None otherwise."""
    try:
        identity = quota.project(fd)
        is_ours = FIRST <= identity < FIRST + COUNT and quota.is_enforced(fd)
    except (OSError, SyscallFailed):
        return None  # a file system without projects, or without limits for them
    return identity if is_ours else None


def assign(path: str) -> bool:
    """Give a new, empty folder a project of its own, without limits yet; false where there are none to be had."""
    if refusal(path):
        return False
    with Folder(path) as fd:
        choose(fd)
    return True


def choose(fd: int) -> int:
    """Have a folder belong to a project that nothing else belongs to. Raises HostUnable if none can be found."""
    before = quota.project(fd)
    for _ in range(ATTEMPTS):
        identity = FIRST + int.from_bytes(os.urandom(4), "big") % COUNT
        if quota.usage(fd, identity)[1]:
            continue
        quota.set_project(fd, identity)
        if quota.usage(fd, identity)[1] == 1:  # the folder itself; else someone took it in the same moment
            return identity
        quota.set_project(fd, before)
    raise HostUnable("no free project could be found for the container's quota", "remove containers and snapshots")


def limit(path: str, disk: int | None, inodes: int | None) -> bool:
    """Set what the project of a container's folder may have; false if it has none. Raises SyscallFailed."""
    with Folder(path) as fd:
        identity = of(fd)
        if identity is not None:
            quota.set_limits(fd, identity, disk or 0, inodes or 0)
    return identity is not None


def usage(path: str) -> tuple[int, int, int]:
    """The project of a container's folder, and the bytes and inodes of it. Raises SyscallFailed."""
    with Folder(path) as fd:
        identity = quota.project(fd)
        return (identity, *quota.usage(fd, identity))


def renew(path: str) -> None:
    """What is made in a container's folder from now on counts anew, under the same limits; what is there goes on to
    belong to the project before, which loses them. Nothing happens where the folder has no project."""
    with Folder(path) as fd:
        before = of(fd)
        if before is None:
            return
        allowed = quota.limits(fd, before)
        quota.set_limits(fd, choose(fd), *allowed)
        quota.set_limits(fd, before, 0, 0)


def release(path: str) -> None:
    """Take the limits off a container's project, since the container goes; its snapshots may stay."""
    with Folder(path) as fd:
        identity = of(fd)
        if identity is not None:
            quota.set_limits(fd, identity, 0, 0)
