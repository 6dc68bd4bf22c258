"""How far the pull of a kernel's image is, and what else its start waits for, in the server's log."""

from __future__ import annotations

import logging

from nbhull.runtime.builder.progress import Progress, Step
from nbhull.runtime.verbs.results import human_size

STEP = 0.1
"""the share of an image that is a line of its own"""


class LoggedProgress(Progress):
    """A line when it begins, and one for every tenth part."""

    def __init__(self, log: logging.Logger, image: str) -> None:
        super().__init__()
        self.log = log
        self.image = image
        self.total = 0
        self.done = 0
        self.told = 0.0

    def begin(self, what: str, total: int) -> None:
        """A layer begins."""
        with self.lock:
            if not self.total:
                self.log.info("nbhull: the image %s is not here, pulling it", self.image)
            self.total += total

    def advance(self, what: str, count: int) -> None:
        """So many bytes more of it are here."""
        with self.lock:
            self.done += count
            if self.done >= (self.told + STEP) * self.total:
                self.told = self.done / self.total
                self.log.info(
                    "nbhull: pulled %s of %s of %s", human_size(self.done), human_size(self.total), self.image
                )

    def end(self, what: str, outcome: str) -> None:
        """A layer is here."""

    def begun(self, step: Step) -> None:
        self.log.info("nbhull: %s %s", step.label, step.title)

    def wrote(self, step: Step, lines: list[str]) -> None:
        """Its output is told if it fails, by the error."""

    def ended(self, step: Step, how: str) -> None:
        self.log.info("nbhull: %s %s: done", step.label, step.title)

    def failed(self, step: Step) -> None:
        """Told by the error."""

    def note(self, text: str) -> None:
        self.log.info("nbhull: %s", text)

    def notices(self) -> list[str]:
        """For the notebook's reader, who has waited."""
        if not self.total:
            return []
        return [f"The image {self.image} was not here: {human_size(self.total)} were pulled for it."]
