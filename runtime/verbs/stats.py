"""The verb `stats`: what running containers use."""

from __future__ import annotations

import sys
import time

from nbhull.runtime.errors import Conflict, LauncherLost, NotFound
from nbhull.runtime.verbs.results import Exit, Result, Table, human_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import Container, Usage

INTERVAL = 1.0
"""seconds between two looks, from which the share of the processors is told"""
CLEAR = "\x1b[H\x1b[2J"
COLUMNS = ("container id", "name", "cpu", "memory", "swap", "processes", "disk", "read / written")


def stats(engine: Engine, values: dict[str, Any]) -> Result:
    """`stats`: once, or on a terminal until it is interrupted."""
    refs = values["container"]
    if values["no_stream"] or values["json"] or not sys.stdout.isatty():
        return sample(engine, refs)
    try:
        while True:
            print(CLEAR + sample(engine, refs).text(), flush=True)
    except KeyboardInterrupt:
        return Exit(0)


def sample(engine: Engine, refs: Sequence[str]) -> Table:
    """Two looks at these containers, or at all that run. Raises NotFound, and Conflict for one that does not run."""
    if refs:
        containers = [engine.container(ref) for ref in refs]
        first = {container.id: engine.usage(container.id) for container in containers}
    else:
        containers = [container for container in engine.containers() if container.state == "running"]
        first = usages(engine, containers)
    began = time.monotonic()
    if first:
        time.sleep(INTERVAL)
    second = usages(engine, containers)
    return table(containers, first, second, time.monotonic() - began)


def usages(engine: Engine, containers: Sequence[Container]) -> dict[str, Usage]:
    """What those of the containers use that still run."""
    found = {}
    for container in containers:
        try:
            found[container.id] = engine.usage(container.id)
        except (Conflict, LauncherLost, NotFound):
            continue  # it ended between two looks
    return found


def table(
    containers: Sequence[Container], first: dict[str, Usage], second: dict[str, Usage], seconds: float
) -> Table:
    """One line for each container that both looks saw."""
    rows, items = [], []
    for container in containers:
        before, now = first.get(container.id), second.get(container.id)
        if before is None or now is None:
            continue
        cpu = None
        if before.cpu_seconds is not None and now.cpu_seconds is not None:
            cpu = max(0.0, 100 * (now.cpu_seconds - before.cpu_seconds) / seconds)
        rows.append(
            (
                short_id(container.id),
                container.name,
                "-" if cpu is None else f"{cpu:.1f} %",
                of(now.memory, container.spec.limits.memory, human_size),
                "-" if now.swap is None else human_size(now.swap),
                of(now.pids, now.pids_limit, str),
                of(now.disk, now.disk_limit, human_size),
                "-" if now.io_read is None else f"{human_size(now.io_read)} / {human_size(now.io_written or 0)}",
            )
        )
        items.append({"id": container.id, "name": container.name, "cpu_percent": cpu, **now.to_dict()})
    return Table(COLUMNS, rows, items)


def of(used: int | None, limit: int | None, write: Any) -> str:
    """`12 MiB of 64 MiB`."""
    if used is None:
        return "-"
    return f"{write(used)} of {write(limit)}" if limit else str(write(used))
