"""A container's file system, put together by its init inside the new mount namespace.

Everything arrives as a detached mount behind a descriptor; every target is resolved with the
container's root as root, so that links in an image lead nowhere else.
"""

from __future__ import annotations

import fcntl
import os
import stat

from nbhull.runtime.errors import InvalidInput, SyscallFailed
from nbhull.runtime.linux.mount import (
    CGROUP2_SUPER_MAGIC,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_REC,
    MS_SLAVE,
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    SYSFS_MAGIC,
    filesystem_magic,
    make_filesystem,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
    pivot_root,
    set_propagation,
    umount2,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
    "core": "/proc/kcore",
}
MASKED_PROC = (
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)
MASKED_SYS = ("firmware", "devices/virtual/powercap", "fs/selinux")
CPUS, THROTTLE = "devices/system/cpu", "thermal_throttle"
"""below each processor's folder, counts that tell of other users' work"""
OTHER_SYSTEMS = ("fs/bpf", "fs/fuse/connections", "fs/pstore", "kernel/config", "kernel/debug", "kernel/security",
                 "kernel/tracing")  # fmt: skip
"""of the host's /sys: where other file systems are mounted, which a new sysfs would not have"""
READ_ONLY_PROC = ("bus", "fs", "irq", "sys", "sysrq-trigger")
SAFE = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
TTY_GROUP = 5
VIEWS = "/run/nbhull/views"
"""where the files lie that stand in for the kernel's own"""
SHM_SIZE = "50%"
BELOW = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
INSIDE = BELOW | RESOLVE_NO_XDEV
KERNEL_FILES = (PROC_SUPER_MAGIC, SYSFS_MAGIC)


def build(plan: dict[str, Any], descriptors: list[int]) -> None:
    """Make the calling process's mount namespace the container's, and `/` its root.

    `plan`: `root` (index of the root's mount among the descriptors), `mounts` (a list of `{at, fd,
    directory, image, fill}`, by depth), `network`, `width` (ids in the container), `confinement`, `empty_run` (a new
    /run, instead of the image's). Raises SyscallFailed or InvalidInput, naming the target.
    """
    set_propagation(MS_REC | MS_SLAVE)  # nothing mounted in here is seen by the host
    root = descriptors[plan["root"]]
    slash = os.open("/", os.O_PATH | os.O_CLOEXEC)
    move_mount(root, slash, "the container's root")
    os.close(slash)
    confinement = plan["confinement"]
    proc = make_filesystem("proc", None, SAFE)
    attach(root, "/proc", proc)
    sysfs = make_sys(private_network=plan["network"] != "host", read_only=not confinement["privileged"])
    attach(root, "/sys", sysfs)
    cover_cgroups(sysfs)
    null = make_dev(root, plan["width"])
    made = [proc, sysfs, null]
    if plan["empty_run"]:
        run = make_filesystem("tmpfs", [("mode", "0755"), ("size", "64m")], MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
        attach(root, "/run", run)
        made.append(run)
    for mount in plan["mounts"]:
        target = make_target(root, mount["at"], directory=mount["directory"])
        refuse_kernel_files(target, mount["at"])
        if mount["fill"]:
            fill(descriptors[mount["fd"]], target)
        move_mount(descriptors[mount["fd"]], target, mount["at"])
        os.close(target)
    if plan["views"]:
        attach_views(root, plan["views"])
    if confinement["system_paths"]:
        protect(proc, sysfs, null)
    if confinement["read_only"]:
        for fd in (root, *made[3:], *(descriptors[mount["fd"]] for mount in plan["mounts"] if mount["image"])):
            mount_setattr(fd, MOUNT_ATTR_RDONLY, subject="the container's root")
    for fd in made:
        os.close(fd)
    os.fchdir(root)
    pivot_root(".", ".")
    umount2(".", MNT_DETACH)
    os.chdir("/")


def fill(volume: int, folder: int) -> None:
    """Give an empty volume what the image has in the folder that it is mounted on, its owner and mode too."""
    from nbhull.runtime.launcher.copying import copy_into

    inside = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=volume)
    try:
        fcntl.flock(inside, fcntl.LOCK_EX)  # another container may be about to do the same
        if not os.listdir(inside):
            copy_into(f"/proc/self/fd/{folder}/.", f"/proc/self/fd/{inside}/.")
    finally:
        os.close(inside)


def attach_views(root: int, views: dict[str, str]) -> None:
    """Put files with these texts in the place of files of the kernel's, by path."""
    folder = make_filesystem("tmpfs", [("mode", "0555"), ("size", "16m")], SAFE)
    attach(root, VIEWS, folder)
    for path, text in views.items():
        name = path.strip("/").replace("/", "-")
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444, dir_fd=folder)
        with open(fd, "w") as file:
            file.write(text)
        target = openat2(root, path, os.O_PATH)
        view = openat2(folder, name, os.O_PATH)
        copy = open_tree("", at=view)
        mount_setattr(copy, MOUNT_ATTR_RDONLY, subject=path)
        move_mount(copy, target, path)
        for fd in (target, view, copy):
            os.close(fd)
    os.close(folder)


def attach(root: int, path: str, mount_fd: int) -> None:
    """Mount on a folder of the container, made where it is missing."""
    target = make_target(root, path, directory=True)
    move_mount(mount_fd, target, path)
    os.close(target)


def make_target(root: int, path: str, *, directory: bool) -> int:
    """A descriptor (O_PATH) of a folder or file of the container to mount on, made where it is missing.

    Links are followed as a process in the container would follow them, dangling ones included.
    Raises InvalidInput when something else stands in the way."""
    try:
        target = openat2(root, path, os.O_PATH)
    except FileNotFoundError:
        target = make_path(root, path, directory=directory)
    except OSError as error:
        raise InvalidInput(
            f"cannot mount on {path!r} in the container: {error.strerror}", "choose another target"
        ) from error
    if stat.S_ISDIR(os.fstat(target).st_mode) != directory:
        os.close(target)
        raise InvalidInput(
            f"cannot mount on {path!r} in the container: one is a folder and the other is not", "choose another target"
        )
    return target


def make_path(root: int, path: str, *, directory: bool) -> int:
    """Make a folder or an empty file with the folders above it, inside the container's root."""
    parts = [part for part in path.split("/") if part]
    here = ""
    for number, part in enumerate(parts):
        parent = openat2(root, here or "/", os.O_PATH | os.O_DIRECTORY)
        last = number == len(parts) - 1
        try:
            if last and not directory:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
            else:
                os.mkdir(part, 0o755, dir_fd=parent)
        except FileExistsError:
            follow_dangling(root, f"{here}/{part}", parent, part, directory=directory or not last)
        except OSError as error:
            raise InvalidInput(
                f"cannot make {path!r} in the container to mount on: {error.strerror}", "choose another target"
            ) from error
        finally:
            os.close(parent)
        here = f"{here}/{part}"
    try:
        return openat2(root, path, os.O_PATH)
    except OSError as error:
        raise InvalidInput(
            f"cannot make {path!r} in the container to mount on: {error.strerror}", "choose another target"
        ) from error


def follow_dangling(root: int, path: str, parent: int, name: str, *, directory: bool) -> None:
    """Where `path` is a link to nothing, make what it points to."""
    try:
        os.close(openat2(root, path, os.O_PATH))
    except FileNotFoundError:
        link = os.readlink(name, dir_fd=parent)
        # By its words, since nothing is there to resolve: what this makes may not be what the link means, where a
        # folder on the way is a link itself; then the caller finds its path still missing.
        target = os.path.normpath(os.path.join(os.path.dirname(path), link))
        os.close(make_path(root, target, directory=directory))


def refuse_kernel_files(target: int, path: str) -> None:
    """Nothing is mounted over the kernel's own files, wherever links in the image lead: what is written to them later
    must reach the kernel, and what is masked must be theirs (CVE-2019-16884)."""
    if filesystem_magic(target) in KERNEL_FILES:
        raise InvalidInput(
            f"cannot mount on {path!r} in the container: it leads into /proc or /sys", "choose another target"
        )


def make_sys(*, private_network: bool, read_only: bool) -> int:
    """/sys: a new sysfs where the network namespace is the container's own (sysfs demands it), else the host's,
    which is always read-only."""
    if private_network:
        return make_filesystem("sysfs", None, SAFE | (MOUNT_ATTR_RDONLY if read_only else 0))
    sysfs = open_tree("/sys", recursive=True)
    mount_setattr(sysfs, SAFE | MOUNT_ATTR_RDONLY, recursive=True, subject="/sys")
    return sysfs


def cover_cgroups(sysfs: int) -> None:
    """Of the cgroups show the container's own, read-only, where there is one hierarchy (version 2): programs read their
    limits there. Elsewhere nothing, as the host's would tell of all else that runs."""
    try:
        target = openat2(sysfs, "fs/cgroup", os.O_PATH, BELOW)
        host = os.open("/sys/fs/cgroup", os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if filesystem_magic(host) == CGROUP2_SUPER_MAGIC:
        cover = make_filesystem("cgroup2", None, SAFE | MOUNT_ATTR_RDONLY)
    else:
        cover = make_filesystem("tmpfs", [("mode", "0555"), ("size", "4k")], SAFE | MOUNT_ATTR_RDONLY)
    move_mount(cover, target, "/sys/fs/cgroup")
    for fd in (target, host, cover):
        os.close(fd)


def make_dev(root: int, width: int) -> int:
    """/dev with the devices that every program expects; returns a descriptor of its null device."""
    dev = make_filesystem("tmpfs", [("mode", "0755"), ("size", "64k")], MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)
    target = make_target(root, "/dev", directory=True)
    move_mount(dev, target, "/dev")
    os.close(target)
    for name in DEVICES:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=dev))
        source = open_tree(f"/dev/{name}")
        check_device(source, name)
        place(dev, name, source)
    for name, link in DEVICE_LINKS.items():
        os.symlink(link, name, dir_fd=dev)
    for name in ("pts", "shm", "mqueue"):
        os.mkdir(name, dir_fd=dev)
    terminals: list[tuple[str, str | None]] = [("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620")]
    if width > TTY_GROUP:
        terminals.append(("gid", str(TTY_GROUP)))
    place(dev, "pts", make_filesystem("devpts", terminals, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC))
    place(dev, "shm", make_filesystem("tmpfs", [("mode", "1777"), ("size", SHM_SIZE)], SAFE))
    place(dev, "mqueue", make_filesystem("mqueue", None, SAFE))
    null = openat2(dev, "null", os.O_PATH)
    os.close(dev)
    return null


def check_device(fd: int, name: str) -> None:
    """Refuse a host whose /dev/null is not one: masks would be made of it."""
    numbers = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}
    status = os.fstat(fd)
    expected = os.makedev(1, numbers[name]) if name in numbers else os.makedev(5, 0)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != expected:
        raise InvalidInput(f"the host's /dev/{name} is not that device", "restore it with mknod(1)")


def place(folder: int, name: str, mount_fd: int) -> None:
    """Mount on an entry of a folder that was just made; closes the mount's descriptor."""
    target = openat2(folder, name, os.O_PATH)
    move_mount(mount_fd, target, name)
    os.close(target)
    os.close(mount_fd)


def protect(proc: int, sysfs: int, null: int) -> None:
    """Mask what tells of the host, and make read-only what would change it.

    Everything is resolved from the mounts' own descriptors, without links: what is protected is the kernel's file, and
    not one that the image has put in its place. `null` was checked to be the null device."""
    for name in READ_ONLY_PROC:
        remount_read_only(proc, name)
    paths = [(proc, name, INSIDE) for name in MASKED_PROC]
    paths += [(sysfs, name, BELOW) for name in MASKED_SYS]
    paths += [(sysfs, name, BELOW) for name in (*throttles(sysfs), *other_systems(sysfs))]
    empty = -1
    for base, name, resolve in paths:
        try:
            target = openat2(base, name, os.O_PATH, resolve)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            mask = open_tree("", at=null)
        elif empty < 0:
            mask = empty = make_filesystem("tmpfs", [("mode", "0555"), ("size", "4k")], SAFE | MOUNT_ATTR_RDONLY)
        else:
            mask = open_tree("", at=empty)
        move_mount(mask, target, name)
        os.close(target)
        if mask != empty:
            os.close(mask)
    if empty >= 0:
        os.close(empty)


def throttles(sysfs: int) -> list[str]:
    """The processors' folders of counts, on machines that have them."""
    try:
        cpus = openat2(sysfs, CPUS, os.O_RDONLY | os.O_DIRECTORY, BELOW)
    except FileNotFoundError:
        return []
    names = [name for name in os.listdir(cpus) if name.startswith("cpu") and name[3:].isdigit()]
    os.close(cpus)
    return [f"{CPUS}/{name}/{THROTTLE}" for name in names]


def other_systems(sysfs: int) -> list[str]:
    """Where other file systems than sysfs are mounted."""
    own = os.fstat(sysfs).st_dev
    found = []
    for name in OTHER_SYSTEMS:
        try:
            fd = openat2(sysfs, name, os.O_PATH, BELOW)
        except FileNotFoundError:
            continue
        if os.fstat(fd).st_dev != own:
            found.append(name)
        os.close(fd)
    return found


def remount_read_only(proc: int, name: str) -> None:
    """Bind a file or folder of /proc on itself, read-only."""
    try:
        target = openat2(proc, name, os.O_PATH, INSIDE)
    except FileNotFoundError:
        return
    copy = open_tree("", at=target)
    try:
        mount_setattr(copy, SAFE | MOUNT_ATTR_RDONLY, subject=f"/proc/{name}")
        move_mount(copy, target, f"/proc/{name}")
    except SyscallFailed as error:
        error.hint = error.hint or "run `nbhull doctor`"
        raise
    finally:
        os.close(copy)
        os.close(target)
