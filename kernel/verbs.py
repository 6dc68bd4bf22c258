"""The verbs `kernel install`, `kernel list` and `kernel remove`."""

from __future__ import annotations

from typing import Any

from nbhull.kernel import specs
from nbhull.runtime.errors import HullError
from nbhull.runtime.limits import Limits, from_values
from nbhull.runtime.verbs.results import Names, Result, Table, human_size

CONFINING = {
    **{name: name for name in ("cap_add", "cap_drop", "security_opt", "privileged", "read_only", "tmpfs", "gpus")},
    "group_add": "group_add",
    "device": "devices",
    "ulimit": "ulimits",
}
"""the options of what a kernel's processes may do, and the keys of a kernelspec"""
UNITS = {"memory": "", "cpus": "cpus", "pids": "pids"}
"""how a limit's number is followed by its name"""


def install(engine: None, values: dict[str, Any]) -> Result:
    """`kernel install`: gives back the kernelspec's folder."""
    folder = specs.install(
        name=values["name"],
        display_name=values["display_name"],
        image=values["image"],
        kernel=values["kernel"],
        limits=from_values(values),
        confinement={key: values[option] for option, key in CONFINING.items() if values[option]},
        network=values["network"],
        mounts=values["volume"],
        prefix=values["prefix"],
        user=values["user"],
        sys_prefix=values["sys_prefix"],
    )
    return Names([folder])


def list_specs(engine: None, values: dict[str, Any]) -> Result:
    """`kernel list`: the kernelspecs that were installed by nbhull."""
    rows, items = [], []
    for spec in specs.installed():
        rows.append((spec.name, spec.display_name, spec.config.get("image", "host"), limits(spec.config), spec.folder))
        items.append(
            {
                "name": spec.name,
                "display_name": spec.display_name,
                "folder": spec.folder,
                "config": spec.config,
            }
        )
    return Table(("kernelspec", "display name", "image", "limits", "folder"), rows, items)


def remove(engine: None, values: dict[str, Any]) -> Result:
    """`kernel remove`: one that cannot be removed does not keep the others."""
    removed: list[str] = []
    failures: list[HullError] = []
    for name in values["name"]:
        try:
            removed.append(specs.remove(name))
        except HullError as error:
            failures.append(error)
    return Names(removed, failures)


def limits(config: dict[str, Any]) -> str:
    """The limits that a kernelspec sets, for people."""
    parts = []
    for key, value in config.items():
        if key in Limits._fields and value:
            sized = key in ("memory", "memory_swap", "disk") and isinstance(value, int)
            text = human_size(value) if sized else ", ".join(value) if isinstance(value, list) else str(value)
            parts.append(f"{text} {UNITS.get(key, key.replace('_', '-'))}".strip())
    if config.get("network") == "none":
        parts.append("no network")
    return ", ".join(parts) or "-"
