"""Where groups can be made, controller by controller, and why others cannot be had."""

from __future__ import annotations

import os

from nbhull.runtime.cgroups.base import DEVICE_RATES, read
from nbhull.runtime.errors import HostUnable, HullError
from nbhull.runtime.linux.process import write_file
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

V1_NAMES = {"blkio": "io"}
"""v1's names of controllers where v2's are others; ours are v2's"""
LIMITING = ("memory", "cpu", "cpuset", "pids", "io")
USED = (*LIMITING, "freezer", "cpuacct")
"""the last two are v1's; v2 has what they do without a controller"""
CONTROLLERS = {
    "memory": "memory",
    "memory_swap": "memory",
    "cpus": "cpu",
    "cpu_shares": "cpu",
    "cpuset": "cpuset",
    "pids": "pids",
    "blkio_weight": "io",
    **dict.fromkeys(DEVICE_RATES, "io"),
}
"""which controller enforces a limit, by the names of `limits.Limits`"""
SYSTEMD = "/run/systemd/system"
"""there while systemd is the machine's init (sd_booted(3))"""


class Place(Record):
    """A folder of a hierarchy."""

    version: int
    folder: str


class Hierarchies:
    """Where groups can be made.

    Under systemd, which owns the tree of v2, only in a subtree that it was asked for: `claim` does so, when a
    limit is first wanted, since it takes a while.
    """

    def __init__(self, places: dict[str, Place], cause: str = "", reason: str = "", *, unclaimed: bool = False) -> None:
        self.places = places
        """by controller"""
        self.cause = cause
        """why other controllers are missing, as a word that `doctor.mending.cgroup_controllers` knows"""
        self.reason = reason
        """the same as words for people"""
        self.unclaimed = unclaimed

    def claim(self, pids: list[int]) -> None:
        """Where systemd must be asked for a subtree, ask, once; `pids` are moved into it.

        A refusal is kept as the reason for which there are no controllers."""
        if not self.unclaimed:
            return
        self.unclaimed = False
        from nbhull.runtime.cgroups import systemd

        try:
            folder = systemd.claim(pids)
            self.places |= {name: Place(2, folder) for name in divide(folder)}
            self.cause, self.reason = "delegation", "systemd does not delegate the controller to this user"
        except HullError as error:
            self.cause, self.reason = "systemd", error.message
        except OSError as error:
            self.cause, self.reason = "delegation", f"systemd's cgroup cannot be divided: {error}"

    def require(self, limits: dict[str, Any]) -> None:
        """Raise HostUnable for a limit that cannot be enforced here."""
        for name, controller in CONTROLLERS.items():
            if limits.get(name) not in (None, (), []) and controller not in self.places:
                from nbhull.runtime.doctor import mending

                option = name.replace("_", "-")
                raise HostUnable(
                    f"the {option} limit cannot be enforced: {self.reason}",
                    mending.cgroup_controllers(self.cause) or "leave the limit out",
                )


NOWHERE = Hierarchies({})


def controllers_of(limits: dict[str, Any]) -> list[str]:
    """The controllers that these limits need."""
    return list(
        dict.fromkeys(
            controller for name, controller in CONTROLLERS.items() if limits.get(name) not in (None, (), [])
        )
    )


def probe() -> Hierarchies:
    """The hierarchies that this process can make groups in, or could if it asks systemd."""
    ones, unified = read_mounts()
    places = {c: Place(1, mount) for c, mount in ones.items() if os.access(mount, os.W_OK)}
    offered = read(f"{unified}/cgroup.controllers").split() if unified else []
    if not any(name in LIMITING for name in offered) and (ones or not unified):
        if not ones and not unified:
            return Hierarchies(places, "none", "no cgroup hierarchy is mounted")
        if ones and not places:
            return Hierarchies(places, "v1", "on cgroup v1 only root may set limits")
        return Hierarchies(places, "kernel", "this kernel offers no such cgroup controller")
    if os.path.isdir(SYSTEMD):
        from nbhull.runtime.cgroups import systemd

        cause, reason = systemd.why_unable()
        if not cause:
            return Hierarchies(places, unclaimed=True)
        if os.getuid() == 0:  # the one process that may divide the tree all the same
            cause, reason = "delegation", reason
    else:
        cause, reason = "delegation", "no cgroup was delegated to this user"
    if folder := find_delegated(unified):
        places |= {name: Place(2, folder) for name in divided(folder) if name not in places}
        reason = "the controller is not delegated to this user"
    return Hierarchies(places, cause, reason)


def read_mounts() -> tuple[dict[str, str], str]:
    """The mount points of v1's hierarchies by controller, and that of v2; empty where there is none."""
    ones: dict[str, str] = {}
    unified = ""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split(" ", 2)
            point = before.split(" ")[4]
            if kind == "cgroup2":
                unified = unified or point
            elif kind == "cgroup":
                for option in options.strip().split(","):
                    name = V1_NAMES.get(option, option)
                    if name in USED:
                        ones.setdefault(name, point)
    return ones, unified


def own_folder(mount: str) -> str:
    """The folder of this process's own group of v2."""
    with open("/proc/self/cgroup") as file:
        own = next((line.strip().split("::", 1)[1] for line in file if line.startswith("0::")), "/")
    return mount + own.rstrip("/")


def find_delegated(mount: str) -> str:
    """The closest group at or above this process's own that may be divided, on v2; empty if there is none."""
    folder = own_folder(mount)
    while folder.startswith(mount):
        if os.access(f"{folder}/cgroup.procs", os.W_OK) and os.access(f"{folder}/cgroup.subtree_control", os.W_OK):
            try:
                divide(folder)
                return folder
            except OSError:
                pass  # EBUSY: it holds processes itself; its parent may do
        if folder == mount:
            break
        folder = folder.rpartition("/")[0]
    return ""


def divide(folder: str) -> Iterable[str]:
    """Let the groups in a folder of v2 have limits of their own, by every controller that it has itself; gives what
    they have. Raises OSError where the kernel refuses them all."""
    wanted = [name for name in LIMITING if name in read(f"{folder}/cgroup.controllers").split()]
    failure: OSError | None = None
    for name in wanted:
        try:
            write_file(f"{folder}/cgroup.subtree_control", f"+{name}")
        except OSError as error:
            failure = error
    if failure is not None and not set(read(f"{folder}/cgroup.subtree_control").split()) & set(wanted):
        raise failure
    return divided(folder)


def divided(folder: str) -> list[str]:
    """The controllers that the groups in a folder of v2 have, and those that need no controller."""
    enabled = read(f"{folder}/cgroup.subtree_control").split()
    return [*(name for name in enabled if name in LIMITING), "freezer", "cpuacct"]
