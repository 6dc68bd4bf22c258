"""What is in layers, listed by the holder, which may look into every folder of theirs.

A layer may be hostile, and that of a running container changes while it is read: folders are opened one below the other
without following links, and what is told is bounded.
"""

from __future__ import annotations

import os
import stat

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.linux import mount as linux

LIMIT = 500_000
"""entries of one layer"""
FIELDS = 8
"""of an entry: path, kind, mode, size, nanoseconds of the last change, user, group, target of a link"""
BENEATH = linux.RESOLVE_BENEATH | linux.RESOLVE_NO_SYMLINKS | linux.RESOLVE_NO_MAGICLINKS
KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
}
"""letters of the kinds of files; beside them `w` is a whiteout, and `o` a folder that hides the ones below it"""


def list_folder(path: str, below: str = "") -> list[str]:
    """All entries of a layer, or of those in its folder `below`, folders before what is in them, as one flat list.

    Raises InvalidInput where there are more than LIMIT."""
    found: list[str] = []
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        folders = [below]
        while folders:
            here = folders.pop()
            try:
                fd = linux.openat2(root, here or ".", os.O_RDONLY | os.O_DIRECTORY, BENEATH)
            except OSError:
                continue  # it has gone, or has become a link, since its entry was read
            try:
                for name in sorted(os.listdir(fd)):
                    entry = describe(fd, name, f"{here}/{name}" if here else name)
                    found += entry
                    if entry and entry[1] in "do":
                        folders.append(entry[0])
            finally:
                os.close(fd)
            if len(found) > LIMIT * FIELDS:
                raise InvalidInput(
                    f"more than {LIMIT} files were changed", "compare snapshots that lie closer together"
                )
    finally:
        os.close(root)
    return found


def describe(folder: int, name: str, path: str) -> list[str]:
    """One entry; empty if it has gone."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "?")
        target = os.readlink(name, dir_fd=folder) if kind == "l" else ""
    except FileNotFoundError:
        return []
    if kind == "c" and status.st_rdev == 0:
        kind = "w"
    elif kind == "d" and is_opaque(folder, name):
        kind = "o"
    numbers = (stat.S_IMODE(status.st_mode), status.st_size, status.st_mtime_ns, status.st_uid, status.st_gid)
    return [path, kind, *map(str, numbers), target]


def is_opaque(folder: int, name: str) -> bool:
    """Whether a folder hides what lies below it in other layers (overlayfs.rst)."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return False
    try:
        return os.getxattr(fd, "user.overlay.opaque") == b"y"
    except OSError:
        return False
    finally:
        os.close(fd)


def find(folders: list[str], paths: list[str]) -> list[str]:
    """What merged layers (the newest first) have at each of `paths`, as one flat list: the number of the layer that has
    it, and the entry; paths that none has are left out. A path is searched with the folders above it."""
    roots = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for folder in folders]
    found: list[str] = []
    try:
        for path in paths:
            for number, root in enumerate(roots):
                entry, hides = look_up(root, path)
                if entry and entry[1] != "w":
                    found += [str(number), *entry]
                if entry or hides:
                    break
    finally:
        for root in roots:
            os.close(root)
    return found


def look_up(root: int, path: str) -> tuple[list[str], bool]:
    """What one layer has at a path, and whether it hides what lower ones have there."""
    folder = ""
    hides = False
    for name in path.split("/"):
        try:
            fd = linux.openat2(root, folder or ".", os.O_RDONLY | os.O_DIRECTORY, BENEATH)
        except OSError:
            return [], hides
        try:
            folder = f"{folder}/{name}" if folder else name
            entry = describe(fd, name, folder)
        finally:
            os.close(fd)
        if not entry:
            return [], hides
        if folder == path:
            return entry, True
        if entry[1] == "o":
            hides = True
        elif entry[1] != "d":
            return [], True
    return [], hides


def pack(words: list[str]) -> int:
    """Words in a memory file, each ended by a NUL."""
    memory = os.memfd_create("nbhull-listing", os.MFD_CLOEXEC)
    data = "".join(f"{word}\0" for word in words).encode(errors="surrogateescape")
    while data:
        data = data[os.write(memory, data) :]
    return memory
