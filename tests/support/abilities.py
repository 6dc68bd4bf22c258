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


def own_cgroup(controller: str) -> Path | None:
    """The folder of this process's cgroup in the hierarchy that holds `controller`, v1 or v2."""
    memberships = [
        line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()
    ]
    for _, names, path in memberships:
        if controller in names.split(","):
            for mount, options in _mount_points("cgroup"):
                if controller in options:
                    return mount / path.lstrip("/")
    for number, _, path in memberships:
        if number == "0":
            for mount, _ in _mount_points("cgroup2"):
                folder = mount / path.lstrip("/")
                if controller in (folder / "cgroup.controllers").read_text().split():
                    return folder
    return None


def _lacks_cgroup(controller: str) -> str | None:
    folder = own_cgroup(controller)
    if folder is None:
        return f"no cgroup hierarchy offers the {controller} controller"
    if not (os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)):
        return f"the cgroup {folder} is not delegated to this user"
    return None


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


PROGRAMS = ("bwrap", "git", "newuidmap", "podman", "runc", "strace", "unshare")

ABILITIES: dict[str, Callable[[], str | None]] = {
    "subuid": _lacks_subuid,
    "userns": _lacks_userns,
    **{
        f"cgroup-{name}": functools.partial(_lacks_cgroup, name)
        for name in ("memory", "pids", "cpu", "freezer")
    },
    **{name: functools.partial(_lacks_program, name) for name in PROGRAMS},
}
"""Each ability's probe: None if the machine has it, else why not."""


@functools.cache
def why_missing(ability: str) -> str | None:
    """None if the machine has the ability, else one sentence why not."""
    return ABILITIES[ability]()
