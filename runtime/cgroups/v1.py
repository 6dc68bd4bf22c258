"""cgroup v1: a hierarchy for each controller (Documentation/admin-guide/cgroup-v1/)."""

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


class Version1(Version):
    """cgroup v1."""

    number = 1

    def settings(self, limits: dict[str, Any], folders: dict[str, str]) -> list[Setting]:
        found = []
        if limits.get("memory") is not None:
            is_said = limits.get("memory_swap") is not None
            found = [
                Setting("memory", ("memory.limit_in_bytes",), str(limits["memory"])),
                Setting(
                    "memory",
                    ("memory.memsw.limit_in_bytes",),
                    str(swap_total(limits)),
                    optional=not is_said and not has_swap(),
                ),
            ]
        if limits.get("cpus") is not None:
            found += [
                Setting("cpu", ("cpu.cfs_period_us",), str(PERIOD)),
                Setting("cpu", ("cpu.cfs_quota_us",), str(max(1000, int(limits["cpus"] * PERIOD)))),
            ]
        if limits.get("cpu_shares") is not None:
            found.append(Setting("cpu", ("cpu.shares",), str(limits["cpu_shares"])))
        if limits.get("cpuset") is not None and "cpuset" in folders:
            # a new group has no memory nodes of its own, and lets no process in without
            nodes = read(f"{os.path.dirname(folders['cpuset'])}/cpuset.mems").strip()
            found += [
                Setting("cpuset", ("cpuset.mems",), nodes),
                Setting("cpuset", ("cpuset.cpus",), limits["cpuset"]),
            ]
        if limits.get("pids") is not None:
            found.append(Setting("pids", ("pids.max",), str(limits["pids"])))
        if limits.get("blkio_weight") is not None:
            found.append(Setting("io", ("blkio.weight", "blkio.bfq.weight"), str(limits["blkio_weight"])))
        for name, device, rate in device_rates(limits):
            found.append(Setting("io", (f"blkio.throttle.{DEVICE_RATES[name][0]}",), f"{device} {rate}"))
        return found

    def usage(self, folders: dict[str, str]) -> dict[str, float]:
        found: dict[str, float | None] = {}
        if memory := folders.get("memory"):
            used = number_in(f"{memory}/memory.usage_in_bytes") or 0
            cache = counters(read(f"{memory}/memory.stat")).get("total_inactive_file", 0)
            both = number_in(f"{memory}/memory.memsw.usage_in_bytes")
            found = {
                "memory": max(0, used - cache),
                "memory_limit": number_in(f"{memory}/memory.limit_in_bytes"),
                "swap": None if both is None else max(0, both - used),
            }
        if pids := folders.get("pids"):
            found |= {"pids": number_in(f"{pids}/pids.current"), "pids_limit": number_in(f"{pids}/pids.max")}
        if cpu := folders.get("cpuacct"):
            found["cpu_seconds"] = (number_in(f"{cpu}/cpuacct.usage") or 0) / 1e9
        if io := folders.get("io"):
            sums = {"Read": 0, "Write": 0}
            for line in read(f"{io}/blkio.throttle.io_service_bytes_recursive").splitlines():
                fields = line.split()
                if len(fields) == 3 and fields[1] in sums:
                    sums[fields[1]] += int(fields[2])
            found |= {"io_read": sums["Read"], "io_written": sums["Write"]}
        return {key: value for key, value in found.items() if value is not None}

    def events(self, folders: dict[str, str]) -> dict[str, int]:
        found = {}
        if memory := folders.get("memory"):
            found["oom_kills"] = counters(read(f"{memory}/memory.oom_control")).get("oom_kill", 0)
            found["memory_hits"] = number_in(f"{memory}/memory.failcnt") or 0
        if pids := folders.get("pids"):
            found["pids_hits"] = counters(read(f"{pids}/pids.events")).get("max", 0)
        return found

    def open_events(self, folders: dict[str, str], limited: set[str]) -> list[tuple[int, int]]:
        opened = []
        if "memory" in limited and (memory := folders.get("memory")):
            # memory.txt, 10. OOM Control: an eventfd that is told of each time the limit kills
            event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            control = os.open(f"{memory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                write_file(f"{memory}/cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
            opened.append((event, select.POLLIN))
        if "pids" in limited and (pids := folders.get("pids")):
            opened.append((os.open(f"{pids}/pids.events", os.O_RDONLY | os.O_CLOEXEC), select.POLLPRI))
        return opened

    def freeze(self, folder: str, frozen: bool) -> None:
        wanted = "FROZEN" if frozen else "THAWED"
        write_file(f"{folder}/freezer.state", wanted)
        while read(f"{folder}/freezer.state").strip() != wanted:
            os.sched_yield()
