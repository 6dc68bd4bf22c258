"""The verbs `kernel install`, `kernel list` and `kernel remove`."""

from __future__ import annotations

from typing import Any

from nbhull.kernel import specs
from nbhull.runtime.errors import HullError
from nbhull.runtime.verbs.results import Names, Result, Table, human_size


def install(engine: None, values: dict[str, Any]) -> Result:
    """`kernel install`: gives back the kernelspec's folder."""
    folder = specs.install(
        name=values["name"],
        display_name=values["display_name"],
        image=values["image"],
        kernel=values["kernel"],
        memory=values["memory"],
        cpus=values["cpus"],
        pids=values["pids_limit"],
        network=values["network"],
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
    memory = config.get("memory")
    parts = [human_size(memory) if isinstance(memory, int) else memory]
    parts += [
        f"{config[key]} {unit}" if config.get(key) else None for key, unit in (("cpus", "cpus"), ("pids", "pids"))
    ]
    parts.append("no network" if config.get("network") == "none" else None)
    return ", ".join(str(part) for part in parts if part) or "-"
