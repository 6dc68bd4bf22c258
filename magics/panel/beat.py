"""The panel's pulse: what the container uses, every few seconds, from a thread that runs whatever the cells do.

It lives in the event loop of the kernel's control thread, asks the server without waiting, and sends one small message
a beat. A question that is not answered yet is waited for, never asked twice; so nothing queues up anywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from nbhull.magics.panel import talk
from nbhull.runtime.errors import HullError

if TYPE_CHECKING:
    from nbhull.magics.panel.widget import Panel

INTERVAL = 2.0
"""seconds between two beats"""
SLOW_INTERVAL = 10.0
"""seconds, where a cell runs, and no page has been heard of for long: it may be closed, or wait behind the cell"""
SILENCE = 150.0
"""seconds after which a page that says nothing is taken for closed; it says something every 30"""
POINTS = 150
"""samples that are kept for a page that is opened later"""
NETWORK = "/proc/self/net/dev"


class Beat:
    """The pulse of one panel."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.heard = time.monotonic()
        self.counters: dict[str, float] = {}
        """of the last look, from which rates are told"""
        self.looking: asyncio.Task[dict[str, Any]] | None = None
        self.samples: deque[dict[str, Any]] = deque(maxlen=POINTS)
        self.wake = asyncio.Event()

    async def run(self) -> None:
        """Beat until the panel is closed."""
        while not self.panel.is_closed:
            silent = time.monotonic() - self.heard > SILENCE
            if silent and not self.panel.kernel.is_executing:
                await self.pause(None)
                continue
            self.beat(await self.look())
            await self.pause(SLOW_INTERVAL if silent else INTERVAL)

    def hear(self) -> None:
        """A page has said something; to be called in the event loop."""
        if time.monotonic() - self.heard > SILENCE:
            self.wake.set()
        self.heard = time.monotonic()

    async def pause(self, seconds: float | None) -> None:
        """Wait, or until somebody wants the next beat at once."""
        try:
            await asyncio.wait_for(self.wake.wait(), seconds)
        except TimeoutError:
            pass
        self.wake.clear()

    async def look(self) -> dict[str, Any] | None:
        """The next sample; None if the server is still busy with something else."""
        if self.looking is None:
            self.looking = asyncio.ensure_future(
                talk.ask(self.panel.control, "panel", {"known": self.panel.stamp})
            )
        await asyncio.wait([self.looking], timeout=INTERVAL / 2)
        if not self.looking.done():
            return None
        done, self.looking = self.looking, None
        try:
            item = done.result()["item"]
        except HullError:
            return None  # the next beat asks again; the page tells that nothing comes
        self.panel.take(item)
        return self.sample(item["usage"])

    def sample(self, usage: dict[str, Any]) -> dict[str, Any]:
        """What the charts draw: amounts, and rates since the last look."""
        now = time.monotonic()
        received, sent = network_bytes()
        counters = {
            "cpu": usage["cpu_seconds"],
            "read": usage["io_read"],
            "written": usage["io_written"],
            "received": received,
            "sent": sent,
        }
        known = {name: float(count) for name, count in counters.items() if count is not None}
        before, self.counters = self.counters, {**known, "time": now}
        seconds = now - before.get("time", now)
        rates = {
            name: round(max(0.0, count - before[name]) / seconds, 4)
            for name, count in known.items()
            if name in before and seconds > 0
        }
        amounts = {name: usage[name] for name in ("memory", "memory_limit", "disk", "disk_limit", "pids", "pids_limit")}
        sample = {"time": round(time.time(), 1), **amounts, **rates}
        self.samples.append(sample)
        return sample

    def beat(self, sample: dict[str, Any] | None) -> None:
        """Send one."""
        self.panel.send({"kind": "beat", "sample": sample, "busy": self.panel.busy})


def network_bytes() -> tuple[int, int] | tuple[None, None]:
    """What this network namespace has received and sent but for the loopback (proc_pid_net(5)); None where there is no
    other interface."""
    with open(NETWORK) as file:
        lines = [line.partition(":") for line in file.read().splitlines()[2:]]
    counts = [fields.split() for name, _, fields in lines if name.strip() != "lo"]
    if not counts:
        return None, None
    return sum(int(count[0]) for count in counts), sum(int(count[8]) for count in counts)
