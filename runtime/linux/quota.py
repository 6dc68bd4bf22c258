"""Project quotas: which project a folder belongs to (ioctl_xfs_fsgetxattr(2)), and what one may use (quotactl_fd(2),
Linux 5.14)."""

from __future__ import annotations

import fcntl
import os
import struct

from nbhull.runtime.errors import SyscallFailed
from nbhull.runtime.lean import Buffer, c_long, get_errno
from nbhull.runtime.linux import libc

QUOTACTL_FD = 443
PRJQUOTA = 2
Q_GETQUOTA, Q_SETQUOTA, Q_XGETQSTAT = 0x800007, 0x800008, 0x5805
FS_QUOTA_PDQ_ENFD = 1 << 5
QIF_BLIMITS, QIF_ILIMITS = 1, 4
QIF_DQBLKSIZE = 1024
DQBLK = struct.Struct("=8QI4x")
"""limits, soft limits and use of blocks and of inodes, moments, and which of them are meant"""
STATE = struct.Struct("=bxH76x")
"""struct fs_quota_stat, of which only the flags matter"""

FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
FS_XFLAG_PROJINHERIT = 0x200
FSXATTR = struct.Struct("=5I8x")
"""flags, two sizes of extents, the project, another size"""


def project(fd: int) -> int:
    """The project of an open file or folder; 0 is nobody's. Raises OSError where the file system has none."""
    return int(FSXATTR.unpack(fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(FSXATTR.size)))[3])


def set_project(fd: int, identity: int) -> None:
    """Have an open folder, and what is made in it from now on, belong to a project. Raises OSError."""
    flags, *sizes, _, copy_size = FSXATTR.unpack(fcntl.ioctl(fd, FS_IOC_FSGETXATTR, bytes(FSXATTR.size)))
    fcntl.ioctl(fd, FS_IOC_FSSETXATTR, FSXATTR.pack(flags | FS_XFLAG_PROJINHERIT, *sizes, identity, copy_size))


def is_enforced(fd: int) -> bool:
    """Whether the file system of an open file keeps projects to their limits. Raises SyscallFailed."""
    flags = STATE.unpack(call(fd, Q_XGETQSTAT, 0, bytes(STATE.size)))[1]
    return bool(flags & FS_QUOTA_PDQ_ENFD)


def usage(fd: int, identity: int) -> tuple[int, int]:
    """The bytes and inodes of a project. Raises SyscallFailed."""
    try:
        fields = DQBLK.unpack(call(fd, Q_GETQUOTA, identity, bytes(DQBLK.size)))
    except SyscallFailed as error:
        if error.errno == 2:  # ENOENT: XFS knows nothing of a project that has nothing
            return 0, 0
        raise
    return fields[2], fields[5]


def limits(fd: int, identity: int) -> tuple[int, int]:
    """The bytes and inodes that a project may have; 0 means any. Raises SyscallFailed."""
    fields = DQBLK.unpack(call(fd, Q_GETQUOTA, identity, bytes(DQBLK.size)))
    return fields[0] * QIF_DQBLKSIZE, fields[3]


def set_limits(fd: int, identity: int, disk: int, inodes: int) -> None:
    """What a project may have from now on, in bytes and inodes; 0 means any. Raises SyscallFailed."""
    blocks = -(-disk // QIF_DQBLKSIZE)
    call(fd, Q_SETQUOTA, identity, DQBLK.pack(blocks, 0, 0, inodes, 0, 0, 0, 0, QIF_BLIMITS | QIF_ILIMITS))


def call(fd: int, command: int, identity: int, content: bytes) -> bytes:
    """quotactl_fd(2) for the file system that `fd` lies on; what it has written over `content`."""
    buffer = Buffer(content)
    words = (fd, (command << 8) | PRJQUOTA, identity)
    result = libc.libc.syscall(c_long(QUOTACTL_FD), *map(c_long, words), buffer.address)
    if result == -1:
        raise SyscallFailed("quotactl_fd", get_errno(), os.readlink(f"/proc/self/fd/{fd}"))
    return buffer.raw
