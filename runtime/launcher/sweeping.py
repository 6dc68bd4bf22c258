"""What is left of a launcher that has ended, taken away: by itself, or by the next one if it was killed."""

from __future__ import annotations

import fcntl
import os

from nbhull.runtime import cgroups
from nbhull.runtime.files import remove_tree
from nbhull.runtime.launcher.connection import FORWARDING

GROUPS = "cgroups"
"""file of a launcher's folder: the cgroup folders that it made, for who cleans up after a killed one"""


def sweep(folder: str) -> None:
    """Remove a launcher's folder, the cgroups and the forwarding that it noted; its processes have ended or are
    ending. Where another process does so at the same time, this waits until that is done."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        sweep_locked(folder)
    finally:
        os.close(fd)


def sweep_locked(folder: str) -> None:
    """The same, by the only one that does so now. What another one did before is no error."""
    if os.path.exists(f"{folder}/{FORWARDING}"):
        from nbhull.runtime.launcher.veth import switch_forwarding_off

        switch_forwarding_off()
    noted = cgroups.read(f"{folder}/{GROUPS}").split("\n")
    groups = list(dict.fromkeys(line for line in noted if line))
    for group in groups:
        cgroups.thaw(group)
    for group in groups:
        cgroups.remove_when_empty(group)
    remove_tree(folder)
