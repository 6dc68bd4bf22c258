"""Snapshots of the memory: asked for in a cell, taken at its end, when nothing of it runs any more."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from nbhull.kernel.app import checkpoint, inspection
from nbhull.kernel.names import CONTROL_VARIABLE, MEMORY_BUDGET
from nbhull.kernel.rpc import call
from nbhull.runtime.errors import Conflict

INTERVAL = 0.02
"""seconds between two looks whether the kernel is at rest"""
TRIES = 50


class Memory:
    """The checkpoints of one kernel."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.baseline: frozenset[str] = frozenset()
        """what was open before the user's first code"""
        self.wish: tuple[dict[str, Any], Callable[[Any], None]] | None = None
        """what the cell asked for: the request's parameters, and what shows its result"""
        self.held: dict[int, str] = {}
        """by process: the snapshots whose memory is kept"""

    def ask(self, params: dict[str, Any], show: Callable[[Any], None]) -> None:
        """Have a snapshot with the memory taken when the cell has ended. Raises Conflict for what forbids it."""
        if self.wish is not None:
            raise Conflict("the cell has asked for a snapshot of the memory already", "ask once")
        if not self.kernel.is_executing:
            raise Conflict("a snapshot of the memory is taken when a cell ends, and none runs", "ask in a cell")
        inspection.inspect(self.kernel, self.baseline)
        self.wish = params, show

    def finish_cell(self, status: str) -> None:
        """Do what the cell has asked for. Raises HullError."""
        wish, self.wish = self.wish, None
        if wish is None:
            return
        self.finish_record()
        if status != "ok":
            print("nbhull: no snapshot was taken, because the cell failed", file=sys.stderr)
            return
        params, show = wish
        show(self.take(params))

    def finish_record(self) -> None:
        """Have the cell written down: what is said from here on is not its own."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.kernel.recorder.finish()

    def take(self, params: dict[str, Any]) -> Any:
        """Keep the memory and the files as one moment: the answer to the request."""
        kernel = self.kernel
        files = inspection.inspect(kernel, self.baseline)
        with (
            checkpoint.closed_history(kernel.shell.history_manager, kernel.io_loop.add_callback),
            checkpoint.standing(inspection.own_loops(kernel)),
        ):
            pid = checkpoint.fork(files, inspection.kept_descriptors(kernel))
            try:
                inspection.refuse_native_threads()
                result = call(os.environ.get(CONTROL_VARIABLE, "none"), "snapshot", {**params, "memory": pid})
            except BaseException:
                checkpoint.discard(pid)
                raise
        self.held[pid] = result["names"][0]
        kernel.recorder.note(snapshot=self.held[pid])
        for oldest in list(self.held)[:-MEMORY_BUDGET]:
            del self.held[oldest]  # the result tells of it
        return result

    async def take_between(self, params: dict[str, Any]) -> Any:
        """The same between two cells: to be awaited in the main event loop. Raises HullError."""
        lock = getattr(self.kernel, "_main_asyncio_lock", None)  # ipykernel 7 holds it for each request
        async with lock or nullcontext():
            while self.kernel.is_executing:  # ipykernel 6, in a cell that awaits
                await asyncio.sleep(INTERVAL)
            for _ in range(TRIES):  # the request that asked for this may be just ending
                if not any(inspection.subshells(self.kernel).values()):
                    break
                await asyncio.sleep(INTERVAL)
            return self.take(params)

    def look_after(self) -> None:
        """Tell of memory that was lost since the last look."""
        for pid in checkpoint.reap(self.held):
            self.finish_record()
            print(
                f"nbhull: the memory of the snapshot {self.held.pop(pid)} is lost, most likely because the "
                "container ran out of memory; its files are kept",
                file=sys.stderr,
            )

    def come_back(self, woken: checkpoint.Woken) -> None:
        """Tell the server which process will be the checkpoint the next time; it knows of all others."""
        result = call(os.environ.get(CONTROL_VARIABLE, "none"), "woken", {"memory": woken.successor})
        self.held = {int(item["process"]): str(item["snapshot"]) for item in result["items"]}
