"""What a build tells while it goes on, and how a terminal shows it."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextvars import ContextVar
from types import TracebackType

from nbhull.runtime.errors import HullError

PLAIN, TTY, QUIET = "plain", "tty", "quiet"
KEPT = 40
"""lines of a step's output that are shown once it has failed"""
LONGEST = 1 << 16
"""characters of a line that has no end yet"""


INSTEAD: ContextVar[Progress | None] = ContextVar("nbhull_progress", default=None)
"""who shows the progress of all that is done in this context, instead of standard error"""


class Progress:
    """The steps of one build, told as they come; thread-safe. Kinds of it say where they are told."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.open: dict[int, Step] = {}
        self.count = 0
        self.transfers: dict[str, tuple[Step, int, int]] = {}
        """by what is transferred: its step, bytes done, and all"""

    def step(self, label: str, text: str) -> Step:
        """A step begins; `label` is like `build 2/5`."""
        with self.lock:
            self.count += 1
            made = Step(self, self.count, label, text)
            self.open[made.number] = made
            self.begun(made)
        return made

    def note(self, text: str) -> None:
        """A line about the whole build."""
        raise NotImplementedError

    # What a step tells; the lock is held.

    def begun(self, step: Step) -> None:
        """It has begun."""
        raise NotImplementedError

    def wrote(self, step: Step, lines: list[str]) -> None:
        """Its process has written lines, which are at the end of its own, too."""
        raise NotImplementedError

    def ended(self, step: Step, how: str) -> None:
        """It has ended; `how` is like `cached`, empty for a step that was done."""
        raise NotImplementedError

    def failed(self, step: Step) -> None:
        """It has failed."""
        raise NotImplementedError

    def stopped(self, step: Step) -> None:
        """Something else has ended it: another stage's failure, or an interrupt."""

    # What a pull of a base image tells (`runtime.registry.transfer.Progress`)

    def begin(self, what: str, total: int) -> None:
        """A part of so many bytes begins."""
        with self.lock:
            self.transfers[what] = self.step("pull", what), 0, total

    def advance(self, what: str, count: int) -> None:
        """So many bytes more of it are here."""
        with self.lock:
            step, done, total = self.transfers[what]
            self.transfers[what] = step, done + count, total
            if total and (done + count) * 20 // total > done * 20 // total:
                step.lines = [f"{100 * (done + count) // total} %"]
                self.moved(step)

    def moved(self, step: Step) -> None:
        """Another twentieth of a part is here, as the step's last line says."""

    def end(self, what: str, outcome: str) -> None:
        """It is here, in a word."""
        with self.lock:
            step = self.transfers[what][0] if what in self.transfers else self.step("pull", what)
        step.end(outcome)


class Terminal(Progress):
    """On standard error: line by line, on a terminal in place, or only what failed."""

    def __init__(self, style: str = "auto") -> None:
        """`style`: plain, tty, quiet; auto takes tty where standard error is a terminal."""
        super().__init__()
        self.style = (TTY if os.isatty(2) else PLAIN) if style == "auto" else style
        self.shown = 0
        """lines that stand on the terminal and will be written again"""

    def begun(self, step: Step) -> None:
        if self.style == PLAIN:
            self.write(f"[{step.label}] {step.title}\n")
        self.draw()

    def wrote(self, step: Step, lines: list[str]) -> None:
        if self.style == PLAIN:
            self.write("".join(f"[{step.label}] {line}\n" for line in lines))
        else:
            self.draw()

    def moved(self, step: Step) -> None:
        self.draw()

    def ended(self, step: Step, how: str) -> None:
        took = time.monotonic() - step.begin
        if self.style == PLAIN:
            if how or took >= 0.1:
                self.write(f"[{step.label}] {how or f'done in {took:.1f} s'}\n")
        elif self.style == TTY:
            self.erase()
            self.write(f"=> [{step.label}] {step.title}  {how or f'{took:.1f} s'}\n"[: terminal_width() * 3])
            self.draw()

    def failed(self, step: Step) -> None:
        self.erase()
        if self.style != PLAIN:
            self.write("".join(f"[{step.label}] {line}\n" for line in step.lines))

    def stopped(self, step: Step) -> None:
        self.erase()

    def note(self, text: str) -> None:
        with self.lock:
            if self.style != QUIET:
                self.erase()
                self.write(f"{text}\n")
                self.draw()

    def write(self, text: str) -> None:
        """Write to standard error."""
        sys.stderr.write(text)
        sys.stderr.flush()

    def erase(self) -> None:
        """Take the lines of open steps off the terminal."""
        if self.style == TTY and self.shown:
            self.write(f"\x1b[{self.shown}F\x1b[J")
            self.shown = 0

    def draw(self) -> None:
        """Show the open steps on the terminal, with the last line that each has written."""
        if self.style != TTY:
            return
        self.erase()
        width = terminal_width()
        lines = []
        for step in self.open.values():
            lines.append(f"=> [{step.label}] {step.title}")
            if step.lines:
                lines.append(f"   {step.lines[-1]}")
        self.shown = len(lines)
        self.write("".join(f"{line[: width - 1]}\n" for line in lines))


class Step:
    """One step of a build."""

    def __init__(self, progress: Progress, number: int, label: str, text: str) -> None:
        self.progress = progress
        self.number = number
        self.label = label
        self.title = printable(" ".join(text.split()))
        if len(self.title) > 200:
            self.title = f"{self.title[:199]}…"
        self.lines: list[str] = []
        self.rest = ""
        self.begin = time.monotonic()

    def output(self, text: str) -> None:
        """What its process writes."""
        with self.progress.lock:
            *lines, rest = (self.rest + text).split("\n")
            self.rest = rest[-LONGEST:]
            lines = [printable(line.rstrip("\r").rpartition("\r")[2]) for line in lines]
            self.lines = (self.lines + lines)[-KEPT:]
            if lines:
                self.progress.wrote(self, lines)

    def __enter__(self) -> Step:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """It ends with the block: done, failed by an error of nbhull's, or stopped by anything else."""
        if kind is None:
            self.end()
        elif issubclass(kind, HullError):
            self.fail()
        else:
            self.stop()

    def end(self, how: str = "") -> None:
        """It has ended; `how` is like `cached`."""
        if self.rest:
            self.output("\n")
        with self.progress.lock:
            self.progress.open.pop(self.number, None)
            self.progress.ended(self, how)

    def fail(self) -> None:
        """It has failed: the end of its output is shown, where that was not shown before."""
        if self.rest:
            self.output("\n")
        with self.progress.lock:
            self.progress.open.pop(self.number, None)
            self.progress.failed(self)

    def stop(self) -> None:
        """It goes on no more, through no fault of its own."""
        with self.progress.lock:
            self.progress.open.pop(self.number, None)
            self.progress.stopped(self)


def terminal_width() -> int:
    """Columns of standard error's terminal."""
    try:
        return os.get_terminal_size(2).columns or 80
    except OSError:
        return 80


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor, or colour it; tabs stay."""
    import re

    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return "".join(char if char.isprintable() or char == "\t" else "�" for char in text)
