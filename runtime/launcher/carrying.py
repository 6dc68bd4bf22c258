"""Files that are being written while their container is moved: the processes keep the inodes, the snapshot the bytes.

Each gets a second name in the new upper folder, and a copy in a folder of the container's own, which takes its name
in the old upper folder once the processes have been moved. A move that is killed in between leaves both upper folders
with the same inode; `separate` mends that before the container starts again.
"""

from __future__ import annotations

import os
import stat

from nbhull.runtime.launcher.census import PLAIN_PATH
from nbhull.runtime.launcher.copying import copy_attributes, copy_content
from nbhull.runtime.launcher.parts import Part
from nbhull.runtime.linux import mount as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = "carried"
"""of a container's folder in the store"""


class Carrying:
    """The files of one move."""

    def __init__(self, container: int, undo: list[Callable[[], object]]) -> None:
        """`container`: descriptor of its folder in the store; `undo`: takes what undoes each step."""
        self.container = container
        self.undo = undo
        self.folder = -1
        self.copies: dict[str, str] = {}
        """by path: the copy's name"""

    def carry(self, path: str, old: Part, new: Part) -> None:
        """Give a file its name in the new upper folder, and make the copy that will stay in the old one."""
        relative = old.relative(path)
        folder, _, name = relative.rpartition("/")
        old_folder = open_folder(old.upper, folder)
        try:
            self.copy(path, name, old_folder)
            new_folder = make_folders(old.upper, new.upper, folder)
            try:
                times = os.fstat(new_folder)
                self.undo.append(lambda: remove(new.upper, folder, name))
                os.link(name, name, src_dir_fd=old_folder, dst_dir_fd=new_folder, follow_symlinks=False)
                os.utime(new_folder, ns=(times.st_atime_ns, times.st_mtime_ns))
            finally:
                os.close(new_folder)
        finally:
            os.close(old_folder)

    def copy(self, path: str, name: str, folder: int) -> None:
        """Make the copy."""
        if self.folder < 0:
            self.folder = make_empty(self.container)
            self.undo.append(self.end)
        copied = str(len(self.copies))
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            copy = os.open(copied, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.folder)
            try:
                copy_content(source, copy)
                copy_attributes(source, copy)
            finally:
                os.close(copy)
        finally:
            os.close(source)
        self.copies[path] = copied

    def settle(self, path: str, old: Part) -> None:
        """Let the copy take the file's name in the old upper folder."""
        folder, _, name = old.relative(path).rpartition("/")
        fd = open_folder(old.upper, folder)
        try:
            times = os.fstat(fd)
            os.rename(self.copies[path], name, src_dir_fd=self.folder, dst_dir_fd=fd)
            os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
        finally:
            os.close(fd)

    def end(self) -> None:
        """Delete what is left of the copies."""
        if self.folder >= 0:
            make_empty(self.container, self.folder)
            os.close(self.folder)
            os.rmdir(FOLDER, dir_fd=self.container)
            self.folder = -1


def make_empty(container: int, folder: int = -1) -> int:
    """The folder for copies in that of a container, without what a move that was killed left in it."""
    if folder < 0:
        try:
            os.mkdir(FOLDER, 0o700, dir_fd=container)
        except FileExistsError:
            pass
        folder = open_folder(container, FOLDER)
    for name in os.listdir(folder):
        os.unlink(name, dir_fd=folder)
    return folder


def separate(newer: str, older: list[str]) -> None:
    """Take the names in older upper folders away of files that the newest one, which lies over them, has as well: a
    move that was killed has left them, and what is written to the container now must not change what a snapshot
    will have of then."""
    for place, _, names in os.walk(newer):
        for name in names:
            status = os.lstat(f"{place}/{name}")
            if status.st_nlink == 1 or not stat.S_ISREG(status.st_mode):
                continue
            for folder in older:
                twin = folder + f"{place}/{name}".removeprefix(newer)
                try:
                    found = os.lstat(twin)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
                    os.unlink(twin)


def open_folder(root: int, path: str) -> int:
    """A folder below another one, no links followed."""
    return linux.openat2(root, path or ".", os.O_RDONLY | os.O_DIRECTORY, PLAIN_PATH)


def make_folders(old: int, new: int, path: str) -> int:
    """Have the folders of a path in `new` as they are in `old` (descriptors): a descriptor of the last one."""
    here, there = os.dup(old), os.dup(new)
    for name in filter(None, path.split("/")):
        inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        try:
            os.mkdir(name, 0o700, dir_fd=there)
            is_new = True
        except FileExistsError:
            is_new = False
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=there)
        if is_new:
            copy_attributes(inner, made)
        os.close(here)
        os.close(there)
        here, there = inner, made
    os.close(here)
    return there


def remove(root: int, folder: str, name: str) -> None:
    """Delete a file below a folder, if it is there."""
    fd = open_folder(root, folder)
    try:
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        pass  # the step failed before it was made
    finally:
        os.close(fd)
