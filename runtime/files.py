"""Deleting, measuring and holding folders, whatever lies in them."""

from __future__ import annotations

import errno
import os

SEARCHABLE = 0o700


def remove_tree(path: str) -> None:
    """Delete a folder and all in it, never following links; one that is gone is no error.

    Folders are emptied at the top, to which what lies deeper is moved first: neither the depth of a tree nor its
    folders' modes (overlayfs leaves `work` with none) matter. Raises OSError."""
    try:
        top = open_folder(path)
    except FileNotFoundError:
        return
    try:
        empty(top)
    finally:
        os.close(top)
    os.rmdir(path)


def empty(top: int) -> None:
    """Delete all that is in a folder."""
    pending = os.listdir(top)
    while pending:
        name = pending.pop()
        try:
            os.unlink(name, dir_fd=top)
        except IsADirectoryError:
            pending += raise_folders(top, name)
            os.rmdir(name, dir_fd=top)


def raise_folders(top: int, name: str) -> list[str]:
    """Empty a folder of `top`: its files are deleted, its folders moved to `top`, under the names returned."""
    raised = []
    folder = open_folder(name, top)
    try:
        for inner in os.listdir(folder):
            try:
                os.unlink(inner, dir_fd=folder)
            except IsADirectoryError:
                if remove_empty(inner, folder):
                    continue
                new = os.urandom(16).hex()
                opened = open_folder(inner, folder)  # for a folder's parent to change, it must be writable
                try:
                    os.rename(inner, new, src_dir_fd=folder, dst_dir_fd=top)
                    raised.append(new)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    # it counts for another project's quota than `top`, so it is emptied where it lies
                    empty(opened)
                    os.rmdir(inner, dir_fd=folder)
                finally:
                    os.close(opened)
    finally:
        os.close(folder)
    return raised


def remove_empty(name: str, at: int) -> bool:
    """Delete a folder if nothing is in it."""
    try:
        os.rmdir(name, dir_fd=at)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def open_folder(path: str, at: int | None = None) -> int:
    """A descriptor of a folder, which is no link, made searchable and writable for its owner."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, dir_fd=at)
    except PermissionError:
        os.chmod(path, SEARCHABLE, dir_fd=at)
        fd = os.open(path, flags, dir_fd=at)
    if os.fstat(fd).st_mode & SEARCHABLE != SEARCHABLE:
        os.fchmod(fd, SEARCHABLE)
    return fd


def measure(folder: str) -> dict[str, int]:
    """How many bytes (`disk`) and `inodes` all below a folder takes on the disk; what goes meanwhile does not count."""
    disk = inodes = 0
    pending = [folder]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    disk += status.st_blocks * 512
                    inodes += 1
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # it went meanwhile; or it is overlayfs's own empty folder `work`, which is open to nobody
    return {"disk": disk, "inodes": inodes}


class FolderDescriptor:
    """A folder's descriptor as a context manager, as file objects are."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        os.close(self.fd)

    def __enter__(self) -> FolderDescriptor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
