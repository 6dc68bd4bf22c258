"""Overlays and binds as detached mounts, made by the holder (overlayfs.rst of the kernel's documentation)."""

from __future__ import annotations

import os
from errno import EINVAL

from nbhull.runtime.errors import HullError, InvalidInput, SyscallFailed
from nbhull.runtime.launcher.parts import Part
from nbhull.runtime.linux import mount as linux
from nbhull.runtime.linux.mount import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    make_filesystem,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OPTION_LENGTH = 4000
"""bytes that mount(2) takes as options, with some room"""


class Stage:
    """Where the holder keeps the store, and mounts what an overlay is made of, in its own namespace.

    An overlay's folders must be reached through a mount of the maker's own namespace (the kernel
    refuses detached ones that someone more able has made), hence a place to attach them.
    """

    def __init__(self, folder: int, store: str | int) -> None:
        """`folder`: descriptor of an empty folder; `store`: the store's path, or a detached mount of it."""
        self.tmpfs = make_filesystem("tmpfs", [("mode", "0700"), ("size", "1m")])
        move_mount(self.tmpfs, folder, "the launcher's stage")
        self.base = f"/proc/self/fd/{self.tmpfs}"
        self.count = 0
        self.served: list[str] = []
        """places of what overlays were made of, which hold it by themselves now"""
        if isinstance(store, int):
            self.store = self.attach(store)
        else:
            self.store = store

    def path(self, relative: str) -> str:
        """A path of the store's, given relative to it; an absolute one stays."""
        return relative if relative.startswith("/") else f"{self.store}/{relative}"

    def attach(self, mount_fd: int) -> str:
        """Give a detached mount of a folder a path."""
        self.count += 1
        name = f"m{self.count}"
        os.mkdir(name, dir_fd=self.tmpfs)
        target = openat2(self.tmpfs, name, os.O_PATH)
        move_mount(mount_fd, target, name)
        os.close(target)
        return f"{self.base}/{name}"

    def overlay(self, entry: dict[str, Any], descriptors: list[int]) -> int:
        """An overlay: `lowers` (top first), `upper` and `work`, relative to the store; `source`, if
        given, is one more lowest layer, by its path or by its index among the descriptors."""
        lowers = [self.path(lower) for lower in entry["lowers"]]
        attached = ""
        source = entry.get("source")
        if isinstance(source, int):
            attached = self.attach(descriptors[source])
            source = attached
        if source:
            lowers.append(source)
        try:
            upper, work = self.path(entry["upper"]), self.path(entry["work"])
            return make_overlay(lowers, upper, work, self.base, volatile=entry.get("volatile", False))
        finally:
            if attached:
                self.served.append(attached)

    def tidy(self) -> None:
        """Take away what has served, when nobody waits: unmounting waits for a grace period of the kernel's."""
        while self.served:
            place = self.served.pop()
            linux.umount2(place, linux.MNT_DETACH)
            os.rmdir(place)

    def part(self, entry: dict[str, Any], descriptors: list[int]) -> Part:
        """A writable part of a container: an overlay, its place and its upper folder. `like`, if given, is
        the folder (relative to the store) whose owner, mode and times the new upper folder is to have."""
        upper = os.open(self.path(entry["upper"]), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if entry["like"]:
                from nbhull.runtime.launcher.copying import copy_attributes

                like = os.open(self.path(entry["like"]), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                copy_attributes(like, upper)
                os.close(like)
            return Part(entry["key"], entry["at"], self.overlay(entry, descriptors), upper)
        except BaseException:
            os.close(upper)
            raise

    def detached(self, entry: dict[str, Any], descriptors: list[int]) -> int:
        """What a container mounts beside its writable parts: a tree of layers, of which nothing is kept, a tmpfs, or
        a bind of `source` (a path, relative to the store or absolute, or an index among the descriptors): of a folder,
        a file or a device's node."""
        if entry["kind"] == "tree":
            fd = self.overlay(entry, descriptors)
            if entry["within"]:
                fd = self.within(fd, entry["within"])
            if entry["read_only"]:
                mount_setattr(fd, MOUNT_ATTR_RDONLY, subject=entry["at"])
            return fd
        if entry["kind"] == "tmpfs":
            pairs = [option.split("=") for option in entry["options"]]
            return make_filesystem("tmpfs", [(key, value) for key, value in pairs], entry["flags"])
        source = entry["source"]
        if isinstance(source, int):
            fd = os.dup(descriptors[source])
        else:
            fd = open_tree(self.path(source), recursive=entry.get("recursive", False))
        if entry["kind"] == "device":
            # Read-only protects the node's own mode and owner; the device behind it is written to all the same.
            attributes = MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOSUID | MOUNT_ATTR_RDONLY
        else:
            attributes = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | (MOUNT_ATTR_RDONLY if entry["read_only"] else 0)
        try:
            mount_setattr(fd, attributes, recursive=entry.get("recursive", False), subject=entry["at"])
        except HullError:
            os.close(fd)
            raise
        return fd

    def within(self, fd: int, path: str) -> int:
        """A folder or file within a detached mount as one of its own; takes the mount."""
        place = self.attach(fd)
        os.close(fd)
        try:
            root = os.open(place, os.O_PATH | os.O_CLOEXEC)
            try:
                inner = openat2(root, path, os.O_PATH)
            except OSError as error:
                raise InvalidInput(f"there is no {path!r} to mount: {error.strerror}", "correct its path") from error
            finally:
                os.close(root)
            try:
                return open_tree("", at=inner)
            finally:
                os.close(inner)
        finally:
            linux.umount2(place, linux.MNT_DETACH)
            os.rmdir(place)

    def copy(self, source: str, target: str) -> None:
        """Copy an overlay's upper folder to a new layer: times, modes, owners, links, whiteouts and
        extended attributes as they are."""
        from nbhull.runtime.launcher.copying import copy_tree

        copy_tree(self.path(source), self.path(target))


def make_overlay(lowers: list[str], upper: str, work: str, stage: str, *, volatile: bool = False) -> int:
    """A detached overlay mount by the new mount API, else by mount(2) (before Linux 6.5).

    `volatile`: its end need not wait until all that the upper folder's file system holds is on the disk."""
    options: list[tuple[str, str | None]] = [("userxattr", None), ("index", "off"), ("metacopy", "off")]
    if volatile:
        options.append(("volatile", None))
    last = [("upperdir", upper), ("workdir", work)]
    try:
        return make_filesystem("overlay", [*options, *(("lowerdir+", lower) for lower in lowers), *last])
    except SyscallFailed as error:
        # Before 6.5 the kernel takes any option, and says at the end only that one was wrong.
        if "lowerdir+" not in error.subject and (error.subject, error.errno) != ("overlay", EINVAL):
            raise
    return mount_overlay(lowers, upper, work, stage)


def mount_overlay(lowers: list[str], upper: str, work: str, stage: str) -> int:
    """The same by mount(2), which takes all folders in one string of a page."""
    text = f"userxattr,index=off,metacopy=off,lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
    if len(os.fsencode(text)) > OPTION_LENGTH:
        raise HullError(
            f"{len(lowers)} layers are more than this kernel can stack",
            "use a kernel from 6.5 on, or flatten the image",
        )
    place = f"{stage}/overlay"
    os.mkdir(place)
    try:
        linux.mount("overlay", place, "overlay", 0, text)
        try:
            return open_tree(place)
        finally:
            linux.umount2(place, linux.MNT_DETACH)
    finally:
        os.rmdir(place)
