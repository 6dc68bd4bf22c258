"""Lists of processor cores as Linux writes them (cpuset(7), list format), and the choice among cores."""

from __future__ import annotations

import os

from nbhull.runtime.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HIGHEST = 8191
"""the highest core number that any Linux knows (CONFIG_NR_CPUS)"""
ONLINE = "/sys/devices/system/cpu/online"
CPUINFO = "/proc/cpuinfo"


def parse(text: str) -> list[int]:
    """The numbers of a list like `0-2,5`, in order. Raises InvalidInput."""
    cores: set[int] = set()
    for part in str(text).split(","):
        low, dash, high = part.strip().partition("-")
        high = high if dash else low
        if not (low.isascii() and low.isdigit() and high.isascii() and high.isdigit()) or len(low + high) > 8:
            raise InvalidInput(f"{str(text)[:80]!r} is not a list of cores", "write it like 0-2,5")
        if not int(low) <= int(high) <= HIGHEST:
            raise InvalidInput(f"{str(text)[:80]!r} is not a list of cores", f"write it like 0-2,5, up to {HIGHEST}")
        cores.update(range(int(low), int(high) + 1))
    return sorted(cores)


def write(cores: list[int]) -> str:
    """The inverse of `parse`."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def count(cpus: float | None, cpuset: str | None) -> int | None:
    """For how many cores programs should make threads; None where there is no limit."""
    counts = [] if cpus is None else [max(1, -int(-cpus // 1))]
    if cpuset is not None:
        counts.append(len(parse(cpuset)))
    return min(counts, default=None)


class Chooser:
    """Deals a machine's cores out to containers, those first that have the fewest of them."""

    def __init__(self) -> None:
        self.held: dict[str, list[int]] = {}
        """by container"""

    def choose(self, name: str, limits: dict[str, Any]) -> list[int]:
        """Cores for a container, as many as its limits let it use; empty where that is no fewer than there are."""
        cpuset = limits.get("cpuset")
        wanted = count(limits.get("cpus"), cpuset)
        if wanted is None:
            return []
        candidates = parse(cpuset) if cpuset else sorted(os.sched_getaffinity(0))
        if not cpuset and wanted >= len(candidates):
            return []
        taken = [core for cores in self.held.values() for core in cores]
        chosen = sorted(candidates, key=lambda core: (taken.count(core), core))[:wanted]
        self.held[name] = chosen
        return sorted(chosen)

    def release(self, name: str) -> None:
        """The container has ended."""
        self.held.pop(name, None)


def views(cores: list[int]) -> dict[str, str]:
    """What files of the kernel's say in a container that has these cores, by path."""
    stanzas = []
    with open(CPUINFO) as file:
        for stanza in file.read().split("\n\n"):
            name, _, number = stanza.partition("\n")[0].partition(":")
            if name.strip() != "processor" or not number.strip().isdigit() or int(number) in cores:
                stanzas.append(stanza)
    return {ONLINE: f"{write(cores)}\n", CPUINFO: "\n\n".join(stanzas)}
