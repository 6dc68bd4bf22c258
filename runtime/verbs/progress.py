"""How far a transfer is, on standard error: bars in a terminal, a line for each part elsewhere; or where somebody else
shows it, as notebooks do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Timer
from time import monotonic

from nbhull.runtime.builder.progress import INSTEAD
from nbhull.runtime.registry.transfer import Progress as Told
from nbhull.runtime.registry.transfer import Silent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from nbhull.runtime.engine import Engine

DELAY = 0.5
"""seconds that something may take without a word"""
INTERVAL = 0.1
"""seconds between drawings"""


class Bars:
    """A bar for each part."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.lock = Lock()
        self.drawn = 0.0
        self.tasks: dict[str, TaskID] = {}

    def begin(self, what: str, total: int) -> None:
        with self.lock:
            self.tasks[what] = self.progress.add_task(what, total=total, outcome="")

    def advance(self, what: str, count: int) -> None:
        self.progress.advance(self.tasks[what], count)
        self.draw()

    def draw(self) -> None:
        """Draw, but not too often. Here and not in a thread, since a process with threads cannot fork a launcher."""
        with self.lock:
            if monotonic() > self.drawn + INTERVAL:
                self.progress.refresh()
                self.drawn = monotonic()

    def end(self, what: str, outcome: str) -> None:
        if what not in self.tasks:
            self.begin(what, 1)
            self.advance(what, 1)
        self.progress.update(self.tasks[what], outcome=outcome)


class Lines:
    """A line for each part that is done, for logs."""

    def begin(self, what: str, total: int) -> None: ...

    def advance(self, what: str, count: int) -> None: ...

    def end(self, what: str, outcome: str) -> None:
        print(f"{what}: {outcome}", file=sys.stderr, flush=True)


@contextmanager
def shown(*, quiet: bool = False) -> Iterator[Told]:
    """Show a transfer while the block runs."""
    if quiet:
        yield Silent()
    elif (other := INSTEAD.get()) is not None:
        yield other
    elif not sys.stderr.isatty():
        yield Lines()
    else:  # imported only here: it takes longer than a small transfer
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TextColumn("{task.fields[outcome]}"),
        )
        with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as progress:
            yield Bars(progress)


@contextmanager
def working(engine: Engine | None, what: str, on: str) -> Iterator[None]:
    """Show that something goes on, and for how long, while the block runs: on a terminal once it has taken DELAY, in a
    notebook as a step of its own; elsewhere nothing is said."""
    if (other := INSTEAD.get()) is not None:
        with other.step(what, on):
            yield
        return
    if not sys.stderr.isatty():
        yield
        return
    if engine is not None:
        engine.launcher()  # before there are threads, so that it can be a fork of this process
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.add_task(f"{what} {on}", total=None)
    late = Timer(DELAY, progress.start)
    late.start()
    try:
        yield
    finally:
        late.cancel()
        late.join()
        progress.stop()
