"""statx(2), for what os.stat leaves out: which mount a file was reached through (Linux 5.8)."""

from __future__ import annotations

import os
import struct

from nbhull.runtime.lean import Buffer, c_long, get_errno
from nbhull.runtime.linux import libc

STATX = {"x86_64": 332, "aarch64": 291}
AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_STATX_DONT_SYNC = 0x1000, 0x100, 0x4000
STATX_BASIC_STATS, STATX_MNT_ID = 0x7FF, 0x1000
FIELDS = struct.Struct("=16xI8xHxxQ96xIIQ")
"""nlink, mode, ino, dev_major, dev_minor, mnt_id"""


class Status:
    """What is needed of a file's status."""

    __slots__ = ("device", "inode", "links", "mode", "mount")

    def __init__(self, links: int, mode: int, inode: int, major: int, minor: int, mount: int) -> None:
        self.links = links
        self.mode = mode
        self.inode = inode
        self.device = (major, minor)
        self.mount = mount
        """id of the mount, as in mountinfo (proc_pid_mountinfo(5))"""


class Reader:
    """Makes the call again and again with one buffer."""

    def __init__(self) -> None:
        self.number = libc.number_of(STATX, "statx")
        self.buffer = Buffer(bytes(256))

    def __call__(self, at: int, path: str, flags: int = 0) -> Status:
        """The status of `path` below the folder `at`, links followed; an empty path means `at` itself.

        Raises the OSError that os.stat would."""
        result = libc.libc.syscall(
            c_long(self.number),
            c_long(at),
            os.fsencode(path),
            c_long(flags | AT_STATX_DONT_SYNC | (0 if path else AT_EMPTY_PATH)),
            c_long(STATX_BASIC_STATS | STATX_MNT_ID),
            self.buffer.address,
        )
        if result == -1:
            errno = get_errno()
            raise OSError(errno, os.strerror(errno), path)
        return Status(*FIELDS.unpack_from(self.buffer.raw))
