"""What system calls tell the kernel about when files reach the disk (syncfs(2), sync_file_range(2))."""

from __future__ import annotations

from nbhull.runtime.lean import c_long
from nbhull.runtime.linux import libc
from nbhull.runtime.linux.libc import check

SYNC_FILE_RANGE_WRITE = 2


def syncfs(fd: int) -> None:
    """Wait until all that was written to a descriptor's file system is on the disk."""
    check(libc.libc.syncfs(fd), "syncfs")


def begin_writeback(fd: int, offset: int, count: int) -> None:
    """Have a part of a file written to the disk from now on, without waiting for it."""
    call = libc.libc.sync_file_range
    check(call(fd, c_long(offset), c_long(count), SYNC_FILE_RANGE_WRITE), "sync_file_range")
