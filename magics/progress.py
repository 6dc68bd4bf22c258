"""How far something is, in a notebook: one display that is updated a few times a second, and right at the end.

What is told may come from any thread, or over the control socket. A front end that shows no HTML gets lines of text.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from html import escape
from time import monotonic
from typing import Any

from IPython.display import display

from nbhull.runtime.builder.progress import INSTEAD, Progress, Step
from nbhull.runtime.verbs.results import human_size

INTERVAL = 0.2
"""seconds between two updates, at least"""
PULSE = 1.0
"""seconds between two updates while nothing is told, so that times go on"""
MOST = 300
"""entries that are shown; those before are counted"""
RUNNING_LINES = 8
"""last lines of a running step that are shown"""
MARKS = {"": "●", "done": "✓", "failed": "✗", "interrupted": "■", "given up": "■"}
WORDS = {"": "running", "done": "done", "failed": "failed", "interrupted": "interrupted", "given up": "given up"}
"""what a mark means, for those who do not see it"""
STYLE = "margin:2px 0 2px 1.6em;white-space:pre-wrap;max-height:16em;overflow:auto"


class Entry:
    """One line of what is shown."""

    def __init__(self, title: str, step: Step | None = None) -> None:
        self.title = title
        self.step = step
        self.state = ""
        """a key of MARKS; empty while it goes on"""
        self.how = ""
        """in a word or two, how it ended"""
        self.done = self.total = 0
        """bytes, of what is transferred"""
        self.begin = monotonic()
        self.took = 0.0

    def end(self, state: str, how: str = "") -> None:
        """It has ended."""
        self.state, self.how, self.took = state, how, monotonic() - self.begin

    def told(self) -> str:
        """How far it is, or how it ended."""
        took = monotonic() - self.begin if not self.state else self.took
        seconds = f"{took:.0f} s" if took >= 1 else ""
        if not self.state and self.total:
            return f"{human_size(min(self.done, self.total))} of {human_size(self.total)}"
        if self.state in ("", "done"):
            return ", ".join(part for part in (self.how, seconds) if part)
        return ", ".join(part for part in (self.state, self.how, seconds) if part)

    def lines(self) -> list[str]:
        """What its process has written, as much as is worth showing."""
        if self.step is None or self.state == "done":
            return []
        return self.step.lines if self.state == "failed" else self.step.lines[-RUNNING_LINES:]

    def text(self) -> list[str]:
        """For front ends without HTML."""
        told = self.told()
        return [f"{MARKS[self.state]} {self.title}{f': {told}' if told else ''}", *(f"    {t}" for t in self.lines())]

    def html(self) -> str:
        """For notebooks."""
        mark = f'<span role="img" aria-label="{WORDS[self.state]}">{MARKS[self.state]}</span>'
        bar = ""
        if not self.state and self.total:
            share = f'max="{self.total}" value="{min(self.done, self.total)}"'
            bar = f' <progress {share} aria-label="{escape(self.title, quote=True)}"></progress>'
        told = f" <small>{escape(told)}</small>" if (told := self.told()) else ""
        lines = self.lines()
        output = f'<pre style="{STYLE}">{escape(chr(10).join(lines))}</pre>' if lines else ""
        return f"<div>{mark} <code>{escape(self.title)}</code>{bar}{told}{output}</div>"


class Notes(Progress):
    """All that was told of one piece of work, as the notebook shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[Entry] = []
        self.of_steps: dict[int, Entry] = {}
        self.of_parts: dict[str, Entry] = {}
        self.remote: dict[int, Step] = {}
        """by the number that the server has for it"""
        self.handle: Any = None
        self.news = threading.Event()
        self.over = threading.Event()
        self.drawer: threading.Thread | None = None

    # What is told

    def add(self, entry: Entry) -> Entry:
        """One entry more."""
        with self.lock:
            self.entries.append(entry)
        self.tell()
        return entry

    def begun(self, step: Step) -> None:
        self.of_steps[step.number] = self.add(Entry(f"[{step.label}] {step.title}", step))

    def wrote(self, step: Step, lines: list[str]) -> None:
        self.tell()

    def ended(self, step: Step, how: str) -> None:
        self.of_steps[step.number].end("done", how)
        self.tell()

    def failed(self, step: Step) -> None:
        self.of_steps[step.number].end("failed")
        self.tell()

    def note(self, text: str) -> None:
        self.add(Entry(text)).end("done")

    def begin(self, what: str, total: int) -> None:
        entry = Entry(what)
        entry.total = total
        self.of_parts[what] = self.add(entry)

    def advance(self, what: str, count: int) -> None:
        with self.lock:
            self.of_parts[what].done += count
        self.tell()

    def end(self, what: str, outcome: str) -> None:
        if what not in self.of_parts:
            self.begin(what, 0)
        self.of_parts[what].end("done", outcome)
        self.tell()

    def hear(self, method: str, params: dict[str, Any]) -> None:
        """What the server tells (`kernel.streams.StreamedProgress`)."""
        if method == "step":
            self.remote[params["number"]] = self.step(params["label"], params["title"])
        elif method == "lines":
            self.remote[params["number"]].output("".join(f"{line}\n" for line in params["lines"]))
        elif method == "ended":
            self.remote[params["number"]].end(params["how"])
        elif method == "failed":
            self.remote[params["number"]].fail()
        elif method == "note":
            self.note(params["text"])
        elif method == "progress":
            self.hear_part(params["part"], params["done"], params["total"], params.get("outcome"))

    def hear_part(self, part: str, done: int, total: int, outcome: str | None) -> None:
        """How far a part of a transfer is."""
        if outcome is not None:
            self.end(part, outcome)
            return
        if part not in self.of_parts:
            self.begin(part, total)
        self.of_parts[part].done = done
        self.tell()

    # How it is shown

    def tell(self) -> None:
        """Something is new; it is drawn by a thread of its own, so that nothing waits for it."""
        self.news.set()
        with self.lock:
            if self.drawer is None and not self.over.is_set():
                run = copy_context().run
                self.drawer = threading.Thread(target=run, args=(self.draw_on,), name="nbhull-progress", daemon=True)
                self.drawer.start()

    def draw_on(self) -> None:
        """Draw whenever something is new, but not too often."""
        while not self.over.is_set():
            self.news.clear()
            self.draw()
            self.over.wait(INTERVAL)
            self.news.wait(PULSE - INTERVAL)

    def draw(self) -> None:
        """Show it as it is now."""
        with self.lock:
            picture = Picture(list(self.entries))
        if self.handle is None:
            self.handle = display(picture, display_id=True)
        else:
            self.handle.update(picture)

    def close(self, state: str) -> None:
        """Nothing more comes: what has not ended, ends as `state`. Draws for the last time."""
        with self.lock:
            self.over.set()
            drawer, self.drawer = self.drawer, None
            for entry in self.entries:
                if not entry.state:
                    entry.end(state)
        self.news.set()
        if drawer is not None:
            drawer.join()
            self.draw()


class Picture:
    """What is displayed."""

    def __init__(self, entries: list[Entry]) -> None:
        left_out, self.entries = len(entries) - MOST, entries[-MOST:]
        self.above = f"{left_out} before" if left_out > 0 else ""

    def __repr__(self) -> str:
        return "\n".join([*([self.above] if self.above else []), *(line for e in self.entries for line in e.text())])

    def _repr_html_(self) -> str:
        """Called by IPython."""
        above = f"<div>{self.above}</div>" if self.above else ""
        return f'<div role="group" aria-label="progress">{above}{"".join(entry.html() for entry in self.entries)}</div>'


@contextmanager
def shown_in(shell: Any) -> Iterator[Notes | None]:
    """Have progress shown in the notebook of a kernel's shell, while the block runs; None, and on standard error, in an
    IPython of a terminal."""
    if getattr(shell, "kernel", None) is None:
        yield None
        return
    notes = Notes()
    token = INSTEAD.set(notes)
    state = "done"
    try:
        yield notes
    except KeyboardInterrupt:
        state = "interrupted"
        raise
    except BaseException:
        state = "given up"
        raise
    finally:
        INSTEAD.reset(token)
        notes.close(state)
