"""How every system call here is made: through libc by ctypes, an error raised with the call's name."""

from __future__ import annotations

import os

from nbhull.runtime.errors import HostUnable, SyscallFailed
from nbhull.runtime.lean import Library, c_long, get_errno

libc = Library()
libc.syscall.restype = c_long

CLONE = {"x86_64": 56, "aarch64": 220}
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT = 428, 429, 430, 431, 432
CLOSE_RANGE, OPENAT2, MOUNT_SETATTR = 436, 437, 442


def check(result: int, call: str, subject: str = "") -> int:
    """`result`, unless it is -1: then SyscallFailed with errno, the call's name and its subject."""
    if result == -1:
        raise SyscallFailed(call, get_errno(), subject)
    return result


def syscall(
    call: str, number: int, *arguments: int | bytes | None, subject: str = ""
) -> int:
    """A system call by number (syscall(2)); integers are passed as 64-bit words."""
    words = [c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(libc.syscall(c_long(number), *words), call, subject)


def number_of(table: dict[str, int], call: str) -> int:
    """A system call's number on this machine's architecture."""
    try:
        return table[os.uname().machine]
    except KeyError:
        raise HostUnable(
            f"{call} is not known for the architecture {os.uname().machine}", "nbhull runs on x86_64 and aarch64"
        ) from None
