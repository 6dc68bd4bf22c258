"""Limits and accounting of containers by cgroups(7): v1, v2 (plain, delegated, or under systemd) and hybrids.

`hierarchies` finds where groups can be made, controller by controller; a `Group` is one container's, across
all of them; what differs between the versions is in `v1` and `v2`.
"""

from nbhull.runtime.cgroups.base import read, remove_when_empty, thaw
from nbhull.runtime.cgroups.group import Group, create
from nbhull.runtime.cgroups.hierarchies import NOWHERE, Hierarchies, controllers_of, probe

__all__ = [
    "NOWHERE",
    "Group",
    "Hierarchies",
    "controllers_of",
    "create",
    "probe",
    "read",
    "remove_when_empty",
    "thaw",
]
