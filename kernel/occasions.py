"""Snapshots that are taken without being asked for: before installations, after cells, by time."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from nbhull.kernel.engines import submit
from nbhull.kernel.names import EVERY_CELL_FILE
from nbhull.runtime.errors import HullError, InvalidInput
from nbhull.runtime.verbs.results import Fields, Names

if TYPE_CHECKING:
    from nbhull.kernel.contained import ContainedKernel

LONGEST_OCCASION = 100
"""characters that are shown of what a snapshot was taken for"""
MOST_MINUTES = 7 * 24 * 60


@dataclass(frozen=True)
class Occasions:
    """When they are taken."""

    installs: bool = True
    """before a cell that installs or removes packages: it takes milliseconds, and such a cell is what most often breaks
    an environment"""
    cells: bool = False
    """after each cell that has changed files"""
    minutes: float = 0.0
    """so often, if files have changed; 0 for never"""


USUAL = Occasions()


def parse_occasions(value: Any) -> Occasions:
    """A table of `installs`, `cells` and `minutes`. Raises InvalidInput."""
    return changed(USUAL, value)


def changed(occasions: Occasions, value: Any) -> Occasions:
    """Occasions with what a table sets. Raises InvalidInput."""
    names = [field.name for field in fields(Occasions)]
    if not isinstance(value, Mapping) or not set(value) <= set(names):
        raise InvalidInput(
            f"{str(value)[:80]!r} does not say when snapshots are taken",
            'write it like {"installs": true, "cells": false, "minutes": 10}',
        )
    for name in ("installs", "cells"):
        if not isinstance(value.get(name, False), bool):
            raise InvalidInput(f"{name} is neither true nor false", "write true or false, without quotes")
    minutes = value.get("minutes", 0.0)
    is_number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
    if not is_number or not (minutes == 0 or 0.1 <= minutes <= MOST_MINUTES):
        raise InvalidInput("minutes is no number of minutes", f"write one from 0.1 to {MOST_MINUTES}, or 0 for never")
    return replace(occasions, **value)


class Keeper:
    """Takes them for one kernel."""

    def __init__(self, kernel: ContainedKernel, occasions: Occasions) -> None:
        self.kernel = weakref.ref(kernel)
        self.occasions = occasions
        self.timer: threading.Timer | None = None
        self.lock = threading.Lock()

    def change(self, asked: Mapping[str, Any]) -> Fields:
        """Change the occasions as a table says, and tell them all. Raises InvalidInput."""
        with self.lock:
            self.occasions = changed(self.occasions, asked)
        self.begin()
        one = self.occasions
        shown = [
            ("before installations", "yes" if one.installs else "no"),
            ("after each cell", "yes" if one.cells else "no"),
            ("by time", f"every {one.minutes:g} minutes" if one.minutes else "no"),
        ]
        return Fields(shown, {"installs": one.installs, "cells": one.cells, "minutes": one.minutes})

    def take_up(self, params: Mapping[str, Any]) -> Names:
        """An occasion that the kernel tells of: `kind`, and `what` for. Raises HullError."""
        kind, what = params.get("kind"), params.get("what")
        if kind not in ("before", "after") or not isinstance(what, str):
            raise InvalidInput("there is no such occasion", "kind is before or after, what is text")
        name = self.keep(kind, what)
        return Names([name] if name else [])

    def begin(self) -> None:
        """Act by the occasions as they are now, with the container as it is now."""
        self.end()
        kernel = self.kernel()
        if kernel is None or kernel.container is None:
            return
        path = f"{kernel.container.socket_folder}/{EVERY_CELL_FILE}"
        if self.occasions.cells:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644))
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)
        if self.occasions.minutes:
            with self.lock:
                self.timer = threading.Timer(self.occasions.minutes * 60, lambda: submit(self.keep_by_time))
                self.timer.daemon = True
                self.timer.start()

    def end(self) -> None:
        """Take none by time any more."""
        with self.lock:
            timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()

    def keep_by_time(self) -> None:
        """The time has come."""
        try:
            self.keep("time", f"every {self.occasions.minutes:g} minutes")
        except HullError as error:
            logging.getLogger("nbhull").warning("no snapshot was taken by time: %s", error)
        finally:
            self.begin()

    def keep(self, kind: str, what: str) -> str:
        """Take one if it is wanted and something has changed: its name, else nothing. Raises HullError."""
        kernel = self.kernel()
        wanted = {"before": self.occasions.installs, "after": self.occasions.cells, "time": self.occasions.minutes}
        if kernel is None or kernel.resetting or not wanted.get(kind):
            return ""
        text = " ".join(what.split())[:LONGEST_OCCASION]
        occasion = f"{kind}: {''.join(c for c in text if c.isprintable())}"
        image = kernel.engine.keep(kernel.running().id, occasion, asleep=kernel.checkpoints.pids())
        if image is None:
            return ""
        kernel.taken.add(image.id)
        return image.name
