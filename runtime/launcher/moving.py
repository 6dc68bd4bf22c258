"""What the holder knows of a container that is being moved, and the process that moves it."""

from __future__ import annotations

import os

from nbhull.runtime.errors import LOST_HINT, ContainerLost, LauncherLost
from nbhull.runtime.launcher import wire
from nbhull.runtime.launcher.copying import copy_tree
from nbhull.runtime.launcher.move import Move
from nbhull.runtime.lean import Socket, signal
from nbhull.runtime.linux import process as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
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


def perform_move(
    channel: Socket, held: Held, store: str, parts: list[Part], request: dict[str, Any]
) -> None:
    """In the process that does it: move a container onto new parts, and tell. `store`: its path. `copies` of the
    request: pairs of folders of the store to copy while the container stands still, besides."""
    linux.prctl("PR_SET_PDEATHSIG", linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody else may come to its files
    await_idle(held.channel)
    base = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    container = os.open(f"{store}/containers/{request['container']}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def copy() -> None:
        os.fchdir(base)  # since no path leads there any more from the container's namespace
        for source, target in request["copies"]:
            copy_tree(source, target)

    try:
        problem = Move(held.pid, held.namespace, container, held.parts, parts, request["asleep"], copy).run()
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
