"""Merging layers into one, by hard links."""

from __future__ import annotations

import os
import stat

from nbhull.runtime.files import remove_tree
from nbhull.runtime.launcher.copying import copy_attributes
from nbhull.runtime.snapshots.chains import SPAN, UNDER

OPAQUE = "user.overlay.opaque"


def flatten(folders: list[str], target: str, keys: list[str], span: str) -> None:
    """Merge layers (paths, the newest first) into a new one, part by part; does nothing if another process does so.

    What they hide of lower layers stays hidden. `span`: what is written down of it. Raises OSError."""
    part = f"{target}.part"
    try:
        os.mkdir(part, 0o700)
    except FileExistsError:
        return
    try:
        for key in keys:
            os.mkdir(f"{part}/{key}", 0o755)
            for folder in reversed(folders):
                if os.path.isdir(f"{folder}/{key}"):
                    merge(f"{folder}/{key}", f"{part}/{key}")
            back_whiteouts(f"{part}/{key}", f"{part}/{UNDER}/{key}")
        with open(f"{part}/{SPAN}", "x") as file:
            file.write(span)
        os.rename(part, target)
    except BaseException:
        remove_tree(part)
        raise


def merge(layer: str, target: str) -> None:
    """Put a layer, which nothing changes any more, upon what is there."""
    pending = [(layer, target)]
    done = []
    while pending:
        here, there = pending.pop()
        done.append((here, there))
        with os.scandir(here) as entries:
            for entry in entries:
                new = f"{there}/{entry.name}"
                if not entry.is_dir(follow_symlinks=False):
                    clear(new)
                    os.link(entry.path, new, follow_symlinks=False)
                    continue
                if is_opaque(entry.path) or not is_folder(new):
                    hides = is_opaque(entry.path) or os.path.lexists(new)
                    clear(new)
                    os.mkdir(new, 0o700)
                    if hides:
                        os.setxattr(new, OPAQUE, b"y")
                pending.append((entry.path, new))
    for here, there in reversed(done):
        copy_folder(here, there)


def back_whiteouts(root: str, under: str) -> None:
    """See to it that no whiteout of a merged folder is listed: make `under`, or delete those that hide nothing."""
    pending = [("", False)]
    while pending:
        path, alone = pending.pop()
        here = f"{root}{path}"
        alone = alone or is_opaque(here)
        with os.scandir(here) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    pending.append((f"{path}/{entry.name}", alone))
                elif is_whiteout(entry.stat(follow_symlinks=False)):
                    if alone:
                        os.unlink(entry.path)
                    else:
                        os.makedirs(f"{under}{path}", 0o755, exist_ok=True)


def is_whiteout(status: os.stat_result) -> bool:
    """Whether a file stands for one that was deleted: a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def copy_folder(source: str, target: str) -> None:
    """Owner, mode, times and extended attributes of a folder."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    one, other = os.open(source, flags), os.open(target, flags)
    try:
        copy_attributes(one, other)
    finally:
        os.close(one)
        os.close(other)


def is_opaque(path: str) -> bool:
    """Whether a folder hides what lies below it in lower layers (overlayfs.rst)."""
    try:
        return os.getxattr(path, OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def is_folder(path: str) -> bool:
    """Whether there is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def clear(path: str) -> None:
    """Delete what is there, if anything."""
    if is_folder(path):
        remove_tree(path)
    elif os.path.lexists(path):
        os.unlink(path)
