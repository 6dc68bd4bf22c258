"""Faithful copies of files and folders, made by the holder, which may set any owner and attribute."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from nbhull.runtime.files import remove_tree

FICLONE = 0x40049409
UNCLONABLE = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL)
"""what a file system says that cannot share blocks (ioctl_ficlone(2))"""

def copy_tree(source: str, target: str) -> None:
    """A faithful copy of a folder, hard links among its files kept."""
    os.mkdir(target)
    copy_into(source, target)


def copy_into(source: str, target: str) -> None:
    """The same into an empty folder that is there."""
    seen: dict[tuple[int, int], str] = {}
    pending = [(source, target)]
    folders: list[tuple[str, str]] = [(source, target)]
    while pending:
        here, there = pending.pop()
        with os.scandir(here) as entries:
            for entry in entries:
                new = f"{there}/{entry.name}"
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    os.mkdir(new)
                    pending.append((entry.path, new))
                    folders.append((entry.path, new))
                    continue
                first = seen.setdefault((status.st_dev, status.st_ino), new) if status.st_nlink > 1 else new
                if first != new:
                    os.link(first, new, follow_symlinks=False)
                else:
                    copy_entry(entry.path, new, status)
    for old, new in reversed(folders):
        copy_metadata(old, new, os.lstat(old))


def exchange(place: str, kept: str, new: str, *, copy: bool) -> None:
    """Have what is in the folder `place` be in the new folder `kept`/data, and what is in the folder `new` in `place`;
    `new` is gone then. It may be cut short at any moment, and called again.

    `copy`: processes have files of `place` open, which must not be in `kept`: that gets copies."""
    ready = f"{new}.ready"
    if not os.path.isdir(new) and not os.path.isdir(ready):
        return  # it was done
    if not os.path.isdir(ready):
        if not os.path.isdir(kept):
            keep_content(place, kept, copy=copy)
        for name in os.listdir(place):
            remove_entry(f"{place}/{name}")
        os.rename(new, ready)
    status = os.lstat(ready)
    for name in os.listdir(ready):
        os.rename(f"{ready}/{name}", f"{place}/{name}")
    copy_metadata(ready, place, status)
    remove_tree(ready)


def keep_content(place: str, kept: str, *, copy: bool) -> None:
    """The first half of it."""
    part, copied = f"{kept}.part", f"{kept}.copy"
    remove_tree(copied)
    if copy and not os.path.isdir(part):
        os.mkdir(copied, 0o700)
        copy_tree(place, f"{copied}/data")
        os.rename(copied, kept)
        return
    status = os.lstat(place)
    os.makedirs(f"{part}/data", 0o700, exist_ok=True)
    for name in os.listdir(place):
        os.rename(f"{place}/{name}", f"{part}/data/{name}")
    copy_metadata(place, f"{part}/data", status)
    os.rename(part, kept)


def remove_entry(path: str) -> None:
    """Delete a file, or a folder and all in it."""
    if stat.S_ISDIR(os.lstat(path).st_mode):
        remove_tree(path)
    else:
        os.unlink(path)


def copy_entry(source: str, target: str, status: os.stat_result) -> None:
    """Copy one file that is no folder; sockets are left out, since nobody listens on a copy."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        copy_bytes(source, target)
    elif kind == stat.S_IFLNK:
        os.symlink(os.readlink(source), target)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO):
        os.mknod(target, status.st_mode, status.st_rdev)
    else:
        return
    copy_metadata(source, target, status)


def copy_bytes(source: str, target: str) -> None:
    """Copy a file's content: shared where the file system can (FICLONE), holes kept, else in the kernel."""
    with open(source, "rb", buffering=0) as old, open(target, "xb", buffering=0) as new:
        copy_content(old.fileno(), new.fileno())


def copy_content(source: int, target: int) -> None:
    """The same for open files, the target's being empty."""
    try:
        fcntl.ioctl(target, FICLONE, source)
        return
    except OSError as error:
        if error.errno not in UNCLONABLE:
            raise
    size = os.fstat(source).st_size
    offset = 0
    while offset < size:
        try:
            begin = os.lseek(source, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole up to the end
            break
        end = os.lseek(source, begin, os.SEEK_HOLE)
        while begin < end:
            count = copy_range(source, target, begin, end - begin)
            if count == 0:
                break
            begin += count
        offset = end
    os.ftruncate(target, size)


def copy_range(source: int, target: int, begin: int, length: int) -> int:
    """Copy some bytes to the same place of another file: how many."""
    try:
        return os.copy_file_range(source, target, length, begin, begin)
    except OSError as error:
        if error.errno != errno.EXDEV:  # what file systems of two kinds answer
            raise
    os.lseek(target, begin, os.SEEK_SET)
    return os.sendfile(target, source, begin, length)


def copy_metadata(source: str, target: str, status: os.stat_result) -> None:
    """Owner, extended attributes, mode, times; in this order, since each may change the ones before."""
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    for name in os.listxattr(source, follow_symlinks=False):
        if name.startswith("user.") and stat.S_ISLNK(status.st_mode):
            continue
        os.setxattr(target, name, os.getxattr(source, name, follow_symlinks=False), follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def copy_attributes(source: int, target: int) -> None:
    """The same between open files or folders, without what overlayfs has noted on a folder for itself."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    is_folder = stat.S_ISDIR(status.st_mode)
    for name in os.listxattr(source):
        if not (is_folder and name.startswith("user.overlay.")):
            os.setxattr(target, name, os.getxattr(source, name))
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
