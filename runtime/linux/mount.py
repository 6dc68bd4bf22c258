"""The mount API by descriptors (fsopen(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2)).

Descriptors instead of paths: what was checked is what is mounted, whatever is renamed meanwhile.
"""

from __future__ import annotations

import errno as errors
import os
import struct

from nbhull.runtime.errors import SyscallFailed
from nbhull.runtime.lean import Buffer, c_long, c_ulong, get_errno
from nbhull.runtime.linux import libc
from nbhull.runtime.linux.libc import check, syscall

AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC = 1, 1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
MOUNT_ATTR_IDMAP = 0x00100000

MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 4096, 16384, 1 << 18, 1 << 19
MNT_DETACH = 2

RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x01, 0x02, 0x04
RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x08, 0x10

PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP2_SUPER_MAGIC = 0x9FA0, 0x62656572, 0x63677270


def filesystem_magic(fd: int) -> int:
    """The type of the file system that a descriptor lies in (statfs(2), f_type)."""
    buffer = Buffer(bytes(256))
    check(libc.libc.fstatfs(fd, buffer.address), "fstatfs")
    magic: int = struct.unpack_from("=q", buffer.raw)[0]
    return magic


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    check(
        libc.libc.mount(
            source.encode(),
            os.fsencode(target),
            kind and kind.encode(),
            c_ulong(flags),
            options and os.fsencode(options),
        ),
        "mount",
        target,
    )


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    check(libc.libc.umount2(os.fsencode(target), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2); `pivot_root(".", ".")` stacks the old root on the new one, for umount2."""
    number = libc.number_of(libc.PIVOT_ROOT, "pivot_root")
    syscall("pivot_root", number, os.fsencode(new_root), os.fsencode(put_old), subject=new_root)


def set_propagation(flags: int, target: str = "/") -> None:
    """Change how mount events travel (MS_PRIVATE, MS_SLAVE; with MS_REC for the whole tree)."""
    mount("none", target, None, flags)


def open_tree(path: str, *, at: int = AT_FDCWD, recursive: bool = False) -> int:
    """A detached copy of what is mounted at `path` (OPEN_TREE_CLONE), as a descriptor."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    if not path:
        flags |= AT_EMPTY_PATH
    return syscall("open_tree", libc.OPEN_TREE, at, os.fsencode(path), flags, subject=path)


def move_mount(mount_fd: int, target_fd: int, subject: str = "") -> None:
    """Attach a detached mount to the folder or file behind `target_fd`; `subject` names it in errors."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", libc.MOVE_MOUNT, mount_fd, b"", target_fd, b"", flags, subject=subject)


def mount_setattr(
    mount_fd: int, attributes: int, *, userns_fd: int | None = None, recursive: bool = False, subject: str = ""
) -> None:
    """Set attributes (MOUNT_ATTR_*) of a detached mount; `userns_fd` makes it idmapped
    (Linux 5.12; the file system must allow it, root's abilities over it are needed)."""
    if userns_fd is not None:
        attributes |= MOUNT_ATTR_IDMAP
    structure = struct.pack("=QQQQ", attributes, 0, 0, userns_fd or 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall("mount_setattr", libc.MOUNT_SETATTR, mount_fd, b"", flags, structure, len(structure), subject=subject)


def make_filesystem(kind: str, options: list[tuple[str, str | None]] | None = None, attributes: int = 0) -> int:
    """A new file system as a detached mount: fsopen(2), fsconfig(2), fsmount(2).

    An option's value None sets a flag. Raises SyscallFailed, with the kernel's own words as its
    hint where the file system gives any.
    """
    context = syscall("fsopen", libc.FSOPEN, kind.encode(), FSOPEN_CLOEXEC, subject=kind)
    try:
        for key, value in options or []:
            command = FSCONFIG_SET_FLAG if value is None else FSCONFIG_SET_STRING
            data = None if value is None else os.fsencode(value)
            subject = f"{kind}: {key}" if value is None else f"{kind}: {key}={value}"
            syscall("fsconfig", libc.FSCONFIG, context, command, key.encode(), data, 0, subject=subject)
        syscall("fsconfig", libc.FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0, subject=kind)
        return syscall("fsmount", libc.FSMOUNT, context, FSMOUNT_CLOEXEC, attributes, subject=kind)
    except SyscallFailed as error:
        error.hint = error.hint or read_messages(context)
        raise
    finally:
        os.close(context)


def read_messages(context: int) -> str:
    """What the kernel wrote of a failed fsconfig (read(2) on the context), newest last."""
    lines = []
    while True:
        try:
            lines.append(os.read(context, 4096).decode(errors="replace").strip().removeprefix("e "))
        except OSError:  # ENODATA: no more of them
            return "; ".join(lines)


ATTEMPTS = 1000
"""at a resolution, where others on the machine rename and mount all the time"""


def openat2(
    at: int, path: str, flags: int, resolve: int = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, mode: int = 0
) -> int:
    """openat2(2); as given, `path` is resolved with the folder `at` as its root, `..` and links included.

    Raises the OSError that open(2) would.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    words = (c_long(libc.OPENAT2), c_long(at), os.fsencode(path), how, c_long(len(how)))
    for _ in range(ATTEMPTS):
        result: int = libc.libc.syscall(*words)
        # Something was renamed or mounted somewhere on the machine meanwhile, so `..` could not be vouched for.
        if result != -1 or get_errno() != errors.EAGAIN:
            break
    if result == -1:
        errno = get_errno()
        raise OSError(errno, os.strerror(errno), path)
    return result
