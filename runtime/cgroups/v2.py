"""cgroup v2: one hierarchy for all controllers (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import os
import select

from nbhull.runtime.cgroups.base import (
    DEVICE_RATES,
    PERIOD,
    Setting,
    Version,
    counters,
    device_rates,
    has_swap,
    number_in,
    read,
    swap_total,
)
from nbhull.runtime.linux.process import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Version2(Version):
    """cgroup v2."""

    number = 2

    def settings(self, limits: dict[str, Any], folders: dict[str, str]) -> list[Setting]:
        found = []
        if (memory := limits.get("memory")) is not None:
            total = swap_total(limits)
            swap = "max" if total < 0 else str(total - memory)
            is_said = limits.get("memory_swap") is not None
            found = [
                Setting("memory", ("memory.max",), str(memory)),
                Setting("memory", ("memory.swap.max",), swap, optional=not is_said and not has_swap()),
            ]
        if limits.get("cpus") is not None:
            found.append(Setting("cpu", ("cpu.max",), f"{max(1000, int(limits['cpus'] * PERIOD))} {PERIOD}"))
        if (shares := limits.get("cpu_shares")) is not None:
            # as runc and crun translate Docker's 2 to 262,144 to 1 to 10,000
            found.append(Setting("cpu", ("cpu.weight",), str(1 + (shares - 2) * 9999 // 262142)))
        if limits.get("cpuset") is not None:
            found.append(Setting("cpuset", ("cpuset.cpus",), limits["cpuset"]))
        if limits.get("pids") is not None:
            found.append(Setting("pids", ("pids.max",), str(limits["pids"])))
        if (weight := limits.get("blkio_weight")) is not None:
            found.append(Setting("io", ("io.bfq.weight", "io.weight"), str(weight)))
        for name, device, rate in device_rates(limits):
            found.append(Setting("io", ("io.max",), f"{device} {DEVICE_RATES[name][1]}={rate}"))
        return found

    def usage(self, folders: dict[str, str]) -> dict[str, float]:
        folder = next(iter(folders.values()))
        stat = counters(read(f"{folder}/memory.stat"))
        found: dict[str, float | None] = {
            "memory_limit": number_in(f"{folder}/memory.max"),
            "swap": number_in(f"{folder}/memory.swap.current"),
            "pids": number_in(f"{folder}/pids.current"),
            "pids_limit": number_in(f"{folder}/pids.max"),
            "cpu_seconds": counters(read(f"{folder}/cpu.stat")).get("usage_usec", 0) / 1e6,
        }
        if (used := number_in(f"{folder}/memory.current")) is not None:
            found["memory"] = max(0, used - stat.get("inactive_file", 0))
        if "io" in folders:
            words = read(f"{folder}/io.stat").split()
            for field, key in (("io_read", "rbytes="), ("io_written", "wbytes=")):
                found[field] = sum(int(word.removeprefix(key)) for word in words if word.startswith(key))
        return {key: value for key, value in found.items() if value is not None}

    def events(self, folders: dict[str, str]) -> dict[str, int]:
        folder = next(iter(folders.values()))
        found = {}
        if "memory" in folders:
            events = counters(read(f"{folder}/memory.events"))
            found["oom_kills"] = events.get("oom_kill", 0)
            found["memory_hits"] = events.get("max", 0) + events.get("oom", 0)
        if "pids" in folders:
            found["pids_hits"] = counters(read(f"{folder}/pids.events")).get("max", 0)
        return found

    def open_events(self, folders: dict[str, str], limited: set[str]) -> list[tuple[int, int]]:
        return [
            (os.open(f"{folders[name]}/{name}.events", os.O_RDONLY | os.O_CLOEXEC), select.POLLPRI)
            for name in ("memory", "pids")
            if name in limited and name in folders
        ]

    def freeze(self, folder: str, frozen: bool) -> None:
        write_file(f"{folder}/cgroup.freeze", "1" if frozen else "0")
        while f"frozen {int(frozen)}" not in read(f"{folder}/cgroup.events"):
            os.sched_yield()
