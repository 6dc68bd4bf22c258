"""What a notebook is told beside its cells' own output: notices of the start, and limits that were met."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

from nbhull.kernel.names import CONTROL_VARIABLE
from nbhull.kernel.rpc import call
from nbhull.runtime import ends
from nbhull.runtime.errors import HullError


def show_once(shell: Any, notices: list[str]) -> None:
    """Print notices to standard error when the first cell runs, so that they stand in the notebook."""

    def show(*_: Any) -> None:
        shell.events.unregister("pre_run_cell", show)
        for notice in notices:
            print(f"nbhull: {notice}", file=sys.stderr)

    shell.events.register("pre_run_cell", show)


def is_refused_process(error: Any) -> bool:
    """Whether a cell ended with what fork(2) and pthread_create(3) give at a limit."""
    return isinstance(error, BlockingIOError) or (isinstance(error, RuntimeError) and "new thread" in str(error))


class LimitNotices:
    """Says at the next moment, in the cell that runs, which limit the container has met."""

    def __init__(self, shell: Any, folder: str) -> None:
        """`folder`: where the launcher leaves its counts (`ends.EVENTS`)."""
        self.shell = shell
        self.folder = folder
        self.seen = self.stamp()
        self.known = ends.read_events(folder)
        for moment in ("pre_run_cell", "post_run_cell"):
            shell.events.register(moment, self.look)

    def stamp(self) -> tuple[int, int]:
        """Changes with the counts."""
        try:
            status = os.stat(f"{self.folder}/{ends.EVENTS}")
        except FileNotFoundError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    def has_failed_command(self, result: Any) -> bool:
        """Whether a cell had a line like `!command` that ended with an error."""
        cell = getattr(getattr(result, "info", None), "raw_cell", None) or ""
        return "!" in cell and bool(self.shell.user_ns.get("_exit_code"))

    def refresh(self) -> None:
        """Have the launcher write its counts: on cgroup v1 nothing tells it that a process was refused."""
        control = os.environ.get(CONTROL_VARIABLE, "none")
        try:
            call(control, "info", {})
        except HullError:
            pass  # the kernelspec gives no control, or the server has gone: what is not told is no error of the cell's

    def look(self, result: Any) -> None:
        """Called by IPython around each cell, with its ExecutionInfo before it and its ExecutionResult behind it."""
        is_refused = is_refused_process(getattr(result, "error_in_exec", None))
        if is_refused or self.has_failed_command(result):
            self.refresh()
        stamp = self.stamp()
        if stamp == self.seen:
            if is_refused:
                most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
                print(
                    f"nbhull: no new process or thread could be started: this user of the container may have {most}\n"
                    "  hint: end some of them",
                    file=sys.stderr,
                )
            return
        self.seen = stamp
        before, self.known = self.known, ends.read_events(self.folder)
        for message, hint in ends.explain_limits(ends.since(before, self.known), ends.limits_in(self.known)):
            print(f"nbhull: {message}\n  hint: {hint}", file=sys.stderr)
