"""Limits and accounting of a container: one group a container in every cgroup hierarchy that this
process may write to (cgroups(7); v1, v2, and the hybrid of both).
"""

from __future__ import annotations

import errno
import os
import time

from nbhull.runtime.errors import HostUnable
from nbhull.runtime.linux.process import write_file
from nbhull.runtime.record import Record

PERIOD = 100_000
"""microseconds; the scheduler's bandwidth period, the kernel's default"""
SWAP_FILES = ("memory.memsw.limit_in_bytes", "memory.swap.max")
USED = ("memory", "cpu", "pids", "freezer", "cpuacct")


class Hierarchies(Record):
    """Where groups can be made."""

    version: int
    """1, 2, or 0 where none can be used"""
    folders: dict[str, str]
    """the folder to make groups in, by controller"""
    reason: str
    """why controllers are missing, for messages"""


def probe() -> Hierarchies:
    """The hierarchies that this process can make groups in."""
    mounts = read_mounts()
    ones = {c: m for c, m in mounts.items() if c != "unified"}
    usable = {c: ones[c] for c in USED if c in ones and os.access(ones[c], os.W_OK)}
    if usable:
        return Hierarchies(1, usable, "the kernel offers no such cgroup v1 controller")
    if ones:
        return Hierarchies(0, {}, "on cgroup v1 only root may set limits")
    if "unified" not in mounts:
        return Hierarchies(0, {}, "no cgroup hierarchy is mounted")
    return probe_unified(mounts["unified"])


def read_mounts() -> dict[str, str]:
    """Mount points by v1 controller, and `unified` for v2."""
    mounts: dict[str, str] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            point = before.split(" ")[4]
            if kind == "cgroup2":
                mounts.setdefault("unified", point)
            elif kind == "cgroup":
                for option in options.strip().split(","):
                    if option in USED:
                        mounts.setdefault(option, point)
    return mounts


def probe_unified(mount: str) -> Hierarchies:
    """The closest group at or above this process's own that may be divided, on cgroup v2."""
    with open("/proc/self/cgroup") as file:
        own = next((line.strip().split("::", 1)[1] for line in file if line.startswith("0::")), "/")
    folder = mount + own.rstrip("/")
    while folder.startswith(mount):
        if os.access(f"{folder}/cgroup.procs", os.W_OK) and os.access(f"{folder}/cgroup.subtree_control", os.W_OK):
            available = read(f"{folder}/cgroup.controllers").split()
            for controller in set(available) & {"memory", "cpu", "pids"}:
                try:
                    write_file(f"{folder}/cgroup.subtree_control", f"+{controller}")
                except OSError:
                    break  # EBUSY: it holds processes itself; its parent may do
            else:
                enabled = read(f"{folder}/cgroup.subtree_control").split()
                return Hierarchies(
                    2, dict.fromkeys((*enabled, "freezer", "cpuacct"), folder), "the controller is not delegated"
                )
        if folder == mount:
            break
        folder = folder.rpartition("/")[0]
    return Hierarchies(0, {}, "no cgroup was delegated to this user")


class Group(Record):
    """A container's groups, by controller."""

    version: int
    paths: dict[str, str]

    def folders(self) -> list[str]:
        """The folders, each once."""
        return list(dict.fromkeys(self.paths.values()))

    def open_procs(self) -> list[int]:
        """Descriptors through which a process enters the groups by writing `0`; the caller closes them."""
        return [os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in self.folders()]

    def remove(self) -> None:
        """Delete the groups, whose processes have ended; idempotent."""
        for folder in self.folders():
            remove_when_empty(folder)

    def freeze(self, frozen: bool) -> bool:
        """Stop or continue all processes, and wait until it is so; False where no freezer is at hand."""
        folder = self.paths.get("freezer")
        if folder is None:
            return False
        if self.version == 2:
            write_file(f"{folder}/cgroup.freeze", "1" if frozen else "0")
            while f"frozen {int(frozen)}" not in read(f"{folder}/cgroup.events"):
                os.sched_yield()
            return True
        wanted = "FROZEN" if frozen else "THAWED"
        write_file(f"{folder}/freezer.state", wanted)
        while read(f"{folder}/freezer.state").strip() != wanted:
            os.sched_yield()
        return True


NOWHERE = Hierarchies(0, {}, "")


def require(hierarchies: Hierarchies, memory: int | None, cpus: float | None, pids: int | None) -> None:
    """Raise HostUnable for a limit (bytes, cores, processes) that cannot be enforced here."""
    for controller, limit, what in (("memory", memory, "memory"), ("cpu", cpus, "cpus"), ("pids", pids, "pids")):
        if limit is not None and controller not in hierarchies.folders:
            raise HostUnable(
                f"the {what} limit cannot be enforced: {hierarchies.reason}",
                "run `nbhull doctor` for what mends it, or leave the limit out",
            )


def create(hierarchies: Hierarchies, name: str) -> Group:
    """Make the groups of one container; nothing is left behind by a failure (HostUnable)."""
    group = Group(hierarchies.version, {c: f"{folder}/nbhull-{name}" for c, folder in hierarchies.folders.items()})
    try:
        for folder in group.folders():
            os.mkdir(folder)
    except OSError as error:
        group.remove()
        raise HostUnable(f"cannot make the cgroup {error.filename}: {error.strerror}", "run `nbhull doctor`") from error
    return group


def configure(group: Group, memory: int | None, cpus: float | None, pids: int | None) -> None:
    """Set a container's limits, which `require` has found to be possible."""
    for file, text in settings(group.version, memory, cpus, pids):
        path = f"{group.paths[file.partition('.')[0]]}/{file}"
        if file in SWAP_FILES and not os.path.exists(path):
            continue  # a kernel without swap accounting, or without swap
        try:
            write_file(path, text)
        except OSError as error:
            raise HostUnable(
                f"the limit {text} cannot be written to {path}: {error.strerror}", "choose another limit"
            ) from error


def settings(version: int, memory: int | None, cpus: float | None, pids: int | None) -> list[tuple[str, str]]:
    """The files to write, in order, for the limits given."""
    files: list[tuple[str, str]] = []
    if memory is not None:
        files += [("memory.limit_in_bytes", str(memory))] if version == 1 else [("memory.max", str(memory))]
        swap = "memory.memsw.limit_in_bytes" if version == 1 else "memory.swap.max"
        files.append((swap, str(memory if version == 1 else 0)))
    if cpus is not None:
        quota = max(1000, int(cpus * PERIOD))
        files += (
            [("cpu.cfs_period_us", str(PERIOD)), ("cpu.cfs_quota_us", str(quota))]
            if version == 1
            else [("cpu.max", f"{quota} {PERIOD}")]
        )
    if pids is not None:
        files.append(("pids.max", str(pids)))
    return files


def thaw(folder: str) -> None:
    """Let frozen processes go on, so that they can end: cgroup v1 delivers not even SIGKILL to them."""
    try:
        write_file(f"{folder}/freezer.state", "THAWED")
    except FileNotFoundError:
        pass  # v2, another controller's folder, or gone already


def remove_when_empty(folder: str, patience: float = 5.0) -> None:
    """rmdir(2) a group whose processes were just killed: it is busy until the last one is gone."""
    deadline = time.monotonic() + patience
    while True:
        try:
            os.rmdir(folder)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def usage(group: Group) -> dict[str, float]:
    """What the container uses now, by the field names of `model.Usage`; unknown ones are left out."""
    files = {
        1: {
            "memory": ("memory", "memory.usage_in_bytes"),
            "memory_limit": ("memory", "memory.limit_in_bytes"),
            "pids": ("pids", "pids.current"),
            "pids_limit": ("pids", "pids.max"),
        },
        2: {
            "memory": ("memory", "memory.current"),
            "memory_limit": ("memory", "memory.max"),
            "pids": ("pids", "pids.current"),
            "pids_limit": ("pids", "pids.max"),
        },
    }[group.version]
    found: dict[str, float] = {}
    for field, (controller, file) in files.items():
        text = read(f"{group.paths[controller]}/{file}").strip() if controller in group.paths else ""
        if text.isdigit() and int(text) < 1 << 62:
            found[field] = int(text)
    if group.version == 1:
        if "cpuacct" in group.paths:
            found["cpu_seconds"] = int(read(f"{group.paths['cpuacct']}/cpuacct.usage") or 0) / 1e9
        events = read(f"{group.paths['memory']}/memory.oom_control") if "memory" in group.paths else ""
    else:
        folder = next(iter(group.paths.values()))
        counters = dict(line.split() for line in read(f"{folder}/cpu.stat").splitlines())
        found["cpu_seconds"] = int(counters.get("usage_usec", 0)) / 1e6
        events = read(f"{folder}/memory.events")
    for line in events.splitlines():
        if line.startswith("oom_kill "):
            found["oom_kills"] = int(line.split()[1])
    return found


def read(path: str) -> str:
    """A file's text; empty if there is none."""
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""
