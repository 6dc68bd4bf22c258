"""Probes of the store's file system: overlays, idmapped mounts, room."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from nbhull.runtime import projects, usermap
from nbhull.runtime.doctor import mending
from nbhull.runtime.doctor.attempt import Outcome, attempt
from nbhull.runtime.doctor.findings import Finding
from nbhull.runtime.doctor.namespaces import attempt_as_root, mend_of
from nbhull.runtime.engine import default_home
from nbhull.runtime.errors import SyscallFailed
from nbhull.runtime.launcher.overlay import make_overlay
from nbhull.runtime.linux import mount
from nbhull.runtime.linux import process as linux
from nbhull.runtime.verbs.results import human_size

LEAST_BYTES, LEAST_INODES = 1 << 20, 100
"""without these not even an empty container can be made"""
FEW_BYTES, FEW_INODES = 1 << 30, 20_000
NETWORKED = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "gpfs",
    "lustre",
    "beegfs",
    "ceph",
    "afs",
    "9p",
    "fuse.sshfs",
    "pvfs2",
}
"""file systems that overlayfs cannot write to, or whose servers know nothing of mapped owners"""


def probe_store() -> Finding:
    """Whether the store can be written to, its file system, and what room is left."""
    home = default_home()
    folder = existing_ancestor(home)
    kind = file_system_kind(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".nbhull-doctor-", dir=folder):
            pass
    except OSError as error:
        return Finding("store", "no", f"{home}: {error.strerror}", mending.another_store())
    status = os.statvfs(folder)
    free, inodes = status.f_bavail * status.f_frsize, status.f_favail
    seen = f"{home} on {kind}, {human_size(free)} free"
    counts_inodes = status.f_files > 0  # btrfs has no fixed number of them
    if counts_inodes:
        seen += f", {inodes} inodes"
    if free < LEAST_BYTES or (counts_inodes and inodes < LEAST_INODES):
        return Finding("store", "no", seen, mending.another_store())
    if kind in NETWORKED or free < FEW_BYTES or (counts_inodes and inodes < FEW_INODES):
        return Finding("store", "partly", seen, mending.another_store())
    return Finding("store", "yes", seen)


def probe_overlay() -> Finding:
    """An overlay on the store's file system, made in a user namespace: files are changed, deleted, and
    a folder is put in another's place, which takes extended attributes."""
    try:
        with scratch_folder() as folder:
            outcome = attempt_as_root(lambda: use_overlay(folder))
    except OSError as error:
        return Finding("overlay", "no", f"{error.filename}: {error.strerror}", mending.another_store())
    if outcome.succeeded:
        return Finding(
            "overlay", "yes", f"made one on {file_system_kind(existing_ancestor(default_home()))}"
        )
    mend = mend_of(outcome) if outcome.call else mending.another_store()
    return Finding("overlay", "no", outcome.message + (f": {outcome.hint}" if outcome.hint else ""), mend)


def probe_quotas() -> Finding:
    """By what a container's own files can be kept to a quota."""
    reason = projects.refusal(existing_ancestor(default_home()))
    if not reason:
        return Finding("disk quotas", "yes", "by the file system's project quotas")
    return Finding("disk quotas", "yes", f"measured by nbhull: {reason}")


def use_overlay(folder: str) -> str:
    """As root of a user namespace: an overlay in `folder`, used and taken down."""
    linux.unshare(linux.CLONE_NEWNS)
    mount.set_propagation(mount.MS_REC | mount.MS_PRIVATE)
    for name in ("lower/changed", "lower/replaced", "upper", "work", "merged"):
        os.makedirs(f"{folder}/{name}")
    for name in ("changed/file", "replaced/file", "deleted"):
        write_text(f"{folder}/lower/{name}", "old")
    try:
        merged = f"{folder}/merged"
        overlay = make_overlay([f"{folder}/lower"], f"{folder}/upper", f"{folder}/work", folder)
        target = os.open(merged, os.O_PATH | os.O_CLOEXEC)
        mount.move_mount(overlay, target, merged)
        write_text(f"{merged}/changed/file", "new")
        os.unlink(f"{merged}/deleted")
        os.unlink(f"{merged}/replaced/file")
        os.rmdir(f"{merged}/replaced")
        os.mkdir(f"{merged}/replaced")
        if os.path.exists(f"{merged}/deleted") or os.listdir(f"{merged}/replaced"):
            raise SyscallFailed("mount", 95, "overlay")  # EOPNOTSUPP
        mount.umount2(merged, mount.MNT_DETACH)
        os.close(overlay)
        os.close(target)
    finally:
        # the work folder has mode 0, and only this namespace's root gets at it
        if os.path.isdir(f"{folder}/work/work"):
            os.chmod(f"{folder}/work/work", 0o700)
    return ""


def probe_idmapped_mounts() -> Finding:
    """For the host's root: an idmapped mount of the store. Others need none: the store is theirs."""
    name = "idmapped mounts"
    if usermap.plan().strategy != "direct":
        return Finding(name, "yes", "not needed, since the store's files are this user's own")
    try:
        with scratch_folder() as folder:
            outcome = attempt_idmapped(folder)
    except OSError as error:
        return Finding(name, "no", f"{error.filename}: {error.strerror}", mending.another_store())
    if outcome.succeeded:
        return Finding(name, "yes", "made one of the store")
    return Finding(name, "no", outcome.message, mend_of(outcome))


def attempt_idmapped(folder: str) -> Outcome:
    """An idmapped mount of `folder`, to the ids that containers get; only the host's root can."""
    result = [Outcome(False, "", message="no user namespace could be made")]

    def map_folder(child: int) -> None:
        usermap.write(usermap.plan(), child)
        namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

        def map_it() -> str:
            linux.unshare(linux.CLONE_NEWNS)
            tree = mount.open_tree(folder)
            mount.mount_setattr(tree, 0, userns_fd=namespace, subject="the store")
            return ""

        result[0] = attempt(map_it)
        os.close(namespace)

    inside = attempt(str, map_folder)
    return result[0] if inside.succeeded else inside


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder on the store's file system, deleted at the end. Raises OSError where it cannot be made."""
    folder = tempfile.mkdtemp(prefix=".nbhull-doctor-", dir=existing_ancestor(default_home()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def existing_ancestor(path: str) -> str:
    """`path`, or the closest folder above it that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def file_system_kind(folder: str) -> str:
    """The type of the file system that a folder lies on, as mount(8) names it."""
    real = os.path.realpath(folder)
    kind, longest = "unknown", -1
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            point = unescape(before.split(" ")[4])
            if len(point) >= longest and (real + "/").startswith(point.rstrip("/") + "/"):
                kind, longest = after.split(" ")[0], len(point)
    return kind


def unescape(field: str) -> str:
    """A path of /proc/self/mountinfo, whose blanks and backslashes are written as octal numbers."""
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, character)
    return field


def write_text(path: str, text: str) -> None:
    """Make or change a file."""
    with open(path, "w") as file:
        file.write(text)
