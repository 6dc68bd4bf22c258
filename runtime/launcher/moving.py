"""What the holder knows of a container that is being moved, and the process that moves it."""

from __future__ import annotations

import os

from nbhull.runtime.errors import LOST_HINT, ContainerLost, LauncherLost
from nbhull.runtime.launcher import wire
from nbhull.runtime.launcher.move import Move
from nbhull.runtime.lean import Socket, signal
from nbhull.runtime.linux import process as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from nbhull.runtime.launcher.holder import Held
    from nbhull.runtime.launcher.parts import Part


KILLED = ContainerLost("the process that moved the container was killed, so the container had to be ended", LOST_HINT)


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

    def give_up(self, error: LauncherLost) -> None:
        """Nobody knows where the container's processes stand: end it, and tell so."""
        signal.pidfd_send_signal(self.held.pidfd, signal.SIGKILL)
        wire.send_failure(self.client, error if isinstance(error, ContainerLost) else KILLED)


def perform_move(channel: Socket, held: Held, folder: str, parts: list[Part], asleep: Collection[int]) -> None:
    """In the process that does it: move a container onto new parts, and tell. `folder`: its own in the store."""
    linux.prctl("PR_SET_PDEATHSIG", linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody else may come to its files
    await_idle(held.channel)
    container = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        problem = Move(held.pid, held.namespace, container, held.parts, parts, asleep).run()
    except ContainerLost as error:
        wire.send_failure(channel, error)
    else:
        wire.send_answer(channel, "moved", problem=problem)


def await_idle(init: Socket) -> None:
    """Wait until a container's init has done all that it was asked; a process that it just forked has been executed."""
    ours, theirs = wire.pair()
    with ours:
        with theirs:
            wire.send_request(init, {"op": "ping"}, [theirs.fileno()])
        wire.receive_answer(ours)
