"""What a build tells while it goes on, on standard error: line by line, on a terminal in place, or only what failed."""

from __future__ import annotations

import os
import sys
import threading
import time

PLAIN, TTY, QUIET = "plain", "tty", "quiet"
KEPT = 40
"""lines of a step's output that are shown once it has failed"""


class Progress:
    """The steps of one build, told as they come; thread-safe."""

    def __init__(self, style: str = "auto") -> None:
        """`style`: plain, tty, quiet; auto takes tty where standard error is a terminal."""
        self.style = (TTY if os.isatty(2) else PLAIN) if style == "auto" else style
        self.lock = threading.Lock()
        self.shown = 0
        """lines that stand on the terminal and will be written again"""
        self.open: dict[int, Step] = {}
        self.count = 0

    def step(self, label: str, text: str) -> Step:
        """A step begins; `label` is like `build 2/5`."""
        with self.lock:
            self.count += 1
            made = Step(self, self.count, label, text)
            self.open[made.number] = made
            if self.style == PLAIN:
                self.write(f"[{label}] {made.title}\n")
            self.draw()
        return made

    def note(self, text: str) -> None:
        """A line about the whole build."""
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
        self.write("".join(f"{printable(line)[: width - 1]}\n" for line in lines))


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
        progress = self.progress
        with progress.lock:
            *lines, self.rest = (self.rest + text).split("\n")
            lines = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
            self.lines = (self.lines + lines)[-KEPT:]
            if progress.style == PLAIN:
                progress.write("".join(f"[{self.label}] {printable(line)}\n" for line in lines))
            elif lines:
                progress.draw()

    def end(self, how: str = "") -> None:
        """It has ended; `how` is like `cached`."""
        progress = self.progress
        if self.rest:
            self.output("\n")
        with progress.lock:
            progress.open.pop(self.number, None)
            took = time.monotonic() - self.begin
            if progress.style == PLAIN:
                if how or took >= 0.1:
                    progress.write(f"[{self.label}] {how or f'done in {took:.1f} s'}\n")
            elif progress.style == TTY:
                progress.erase()
                progress.write(f"=> [{self.label}] {self.title}  {how or f'{took:.1f} s'}\n"[: terminal_width() * 3])
                progress.draw()

    def fail(self) -> None:
        """It has failed: show the end of its output, where that was not shown before."""
        progress = self.progress
        if self.rest:
            self.output("\n")
        with progress.lock:
            progress.open.pop(self.number, None)
            progress.erase()
            if progress.style != PLAIN and self.lines:
                progress.write("".join(f"[{self.label}] {printable(line)}\n" for line in self.lines))


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
