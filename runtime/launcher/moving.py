"""What the holder knows of a container that is being moved."""

from __future__ import annotations

import os

from nbhull.runtime.launcher import wire
from nbhull.runtime.launcher.census import Part
from nbhull.runtime.lean import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.launcher.holder import Held


class Moving:
    """A move under way."""

    def __init__(
        self, child: int, channel: Socket, client: Socket, held: Held, parts: list[Part], generation: str
    ) -> None:
        self.child = child
        self.channel = channel
        self.client = client
        self.held = held
        self.parts = parts
        self.generation = generation
        self.waiting: list[tuple[dict[str, Any], list[int]]] = []
        """requests about the container that came meanwhile"""


def await_idle(init: Socket) -> None:
    """Wait until a container's init has done all that it was asked; a process that it just forked has been executed."""
    ours, theirs = wire.pair()
    with ours:
        with theirs:
            wire.send_request(init, {"op": "ping"}, [theirs.fileno()])
        wire.receive_answer(ours)


def descriptors_of(parts: list[Part]) -> list[int]:
    """Those of a container's parts; its mounts stay where they are mounted when they are closed."""
    return [fd for part in parts for fd in (part.mount, part.upper)]


def close_parts(parts: list[Part]) -> None:
    """Give them up."""
    for fd in descriptors_of(parts):
        os.close(fd)
