"""What a test may require of the machine and of the user who runs it.

Probed without nbhull, so that nbhull's own idea of the machine can be wrong and be found wrong.
"""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from support.outside import VARIABLE

RUNS = ("root", "user", "nosubuid")
"""The runs of the suite: as root, as an ordinary user, and as one without subordinate ids."""


def has_subordinate_ids() -> bool:
    """Whether the user has ranges in both /etc/subuid and /etc/subgid."""
    names = {pwd.getpwuid(os.getuid()).pw_name, str(os.getuid())}
    return all(
        any(line.split(":")[0] in names for line in file.read_text().splitlines())
        for file in (Path("/etc/subuid"), Path("/etc/subgid"))
        if file.exists()
    ) and Path("/etc/subuid").exists()


def current_run() -> str:
    """Which of RUNS this is, by who runs it."""
    if os.getuid() == 0:
        return "root"
    return "user" if has_subordinate_ids() else "nosubuid"


def _mount_points(kind: str) -> Iterator[tuple[Path, set[str]]]:
    """The mount points of a file system type, each with its super block options."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        filesystem, _, options = tail.split(" ", 2)
        if filesystem == kind:
            yield Path(head.split(" ")[4]), set(options.split(","))


def cgroup_version(controller: str) -> int:
    """1 or 2, by the hierarchy that holds the controller; 0 if none does."""
    old = {"io": "blkio"}.get(controller, controller)
    if any(old in options for _, options in _mount_points("cgroup")):
        return 1
    for mount, _ in _mount_points("cgroup2"):
        if controller in (mount / "cgroup.controllers").read_text().split():
            return 2
    return 0


def _lacks_cgroup(controller: str) -> str | None:
    version = cgroup_version(controller)
    if version == 0:
        return f"no cgroup hierarchy offers the {controller} controller"
    if os.getuid() == 0:
        return None
    if version == 1:
        return f"the {controller} controller is under cgroup v1, which is root's alone"
    ((mount, _),) = _mount_points("cgroup2")
    own = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].strip().lstrip("/")
    manager = f"user.slice/user-{os.getuid()}.slice/user@{os.getuid()}.service"  # which gives scopes to who asks
    parents = [mount / own, *(mount / own).parents, mount / manager]
    delegated = [
        folder
        for folder in parents
        if folder.is_relative_to(mount)
        and os.access(folder, os.W_OK)
        and controller in (folder / "cgroup.controllers").read_text().split()
    ]
    return None if delegated else f"no cgroup with the {controller} controller is delegated to this user"


def _lacks_subuid() -> str | None:
    if os.getuid() == 0:
        return None
    if not has_subordinate_ids():
        return "this user has no ranges in /etc/subuid and /etc/subgid"
    return _lacks_program("newuidmap")


def _lacks_userns() -> str | None:
    made = subprocess.run(["unshare", "--user", "true"], capture_output=True, text=True, check=False)
    return made.stderr.strip() or None if made.returncode else None


def _lacks_program(name: str) -> str | None:
    return None if shutil.which(name) else f"{name} is not installed"


def _lacks_libseccomp() -> str | None:
    done = subprocess.run(["/usr/bin/python3", "-c", "import seccomp"], capture_output=True, check=False)
    return "Debian's python3-seccomp is not installed" if done.returncode else None


def _lacks_nat() -> str | None:
    """Whether a container can have a network of its own, and there is an outside that tests may talk to."""
    if not any(line.split()[1] == "00000000" for line in Path("/proc/net/route").read_text().splitlines()[1:]):
        return "this machine has no default route"
    if os.getuid() == 0:
        return _lacks_program("nft") or _lacks_program("ip")
    if VARIABLE not in os.environ:
        return "only root can make an outside; it does so for all runs"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun is not open to this user"
    return _lacks_program("pasta")


QUOTAS = "NBHULL_TEST_QUOTAS"
"""a variable that names a folder whose file system has project quotas"""


def _lacks_project_quotas() -> str | None:
    return None if QUOTAS in os.environ else f"no file system with project quotas is named by {QUOTAS}"


CONTROLLERS = ("memory", "pids", "cpu", "cpuset", "io")
PROGRAMS = (
    "Rscript", "buildah", "busybox", "bwrap", "chromium", "docker-registry", "dockerd", "git", "htpasswd", "mmdebstrap",
    "newuidmap", "podman", "runc", "skopeo", "slirp4netns", "strace", "umoci", "unshare",
)

ABILITIES: dict[str, Callable[[], str | None]] = {
    "subuid": _lacks_subuid,
    "userns": _lacks_userns,
    "libseccomp": _lacks_libseccomp,
    "nat": _lacks_nat,
    "project-quotas": _lacks_project_quotas,
    **{
        f"cgroup-{name}": functools.partial(_lacks_cgroup, name)
        for name in CONTROLLERS
    },
    **{name: functools.partial(_lacks_program, name) for name in PROGRAMS},
}
"""Each ability's probe: None if the machine has it, else why not."""


@functools.cache
def why_missing(ability: str) -> str | None:
    """None if the machine has the ability, else one sentence why not."""
    return ABILITIES[ability]()


def runs_able(ability: str) -> set[str]:
    """The runs in which the ability can be had at all: what is root's by design is asked of root only."""
    controller = ability.removeprefix("cgroup-")
    if controller in CONTROLLERS and cgroup_version(controller) == 1:
        return {"root"}
    if ability == "subuid":
        return {"root", "user"}
    if ability == "project-quotas" and QUOTAS not in os.environ:
        return set()  # few kernels and file systems have them; the virtual machine does
    return set(RUNS)
