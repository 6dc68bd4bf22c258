"""How a forked process ends: always by `os._exit`, never by returning into its parent's code."""

from __future__ import annotations

import os
import sys

from nbhull.runtime.errors import HullError, LauncherLost, SyscallFailed
from nbhull.runtime.launcher import wire
from nbhull.runtime.lean import Socket, socket
from nbhull.runtime.linux import process as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


class last_act:
    """Run the body as the last thing that this process does; it exits with 0, or with 1 after an exception.

    An error that is known is answered on `channel`, an OSError named after `step`; a bug is printed."""

    def __init__(self, channel: socket.socket | None, step: str) -> None:
        self.channel = channel
        self.step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> NoReturn:
        status = 1
        try:
            if error is None or isinstance(error, LauncherLost):
                status = 0  # done, or whom it served has gone, and so does it
            elif isinstance(error, HullError) and self.channel is not None:
                wire.send_failure(self.channel, error)
            elif isinstance(error, OSError) and self.channel is not None:
                wire.send_failure(self.channel, SyscallFailed(self.step, error.errno or 0, str(error.filename or "")))
            elif not isinstance(error, HullError):
                # what nobody expected must be seen, and must not go on in the parent's code
                sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(status)


def in_child(channel: Socket, work: Callable[[], None]) -> None:
    """Do what may take long in a forked process, which answers, or tells the failure.

    It is forked twice, so that it is reaped without a wait."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    with last_act(channel, "fork"):
        if os.fork() == 0:
            with last_act(channel, "copy or delete"):
                work()


def close_later(descriptors: list[int]) -> None:
    """Close descriptors in a process of its own, where their end waits for something: rules of a network for the
    kernel's grace periods, an overlay for all that its file system holds to be on the disk."""
    waiting, go = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        try:
            if os.fork() == 0:
                linux.close_all_but([waiting, *descriptors])
                os.read(waiting, 1)  # until the other copies are closed, so that these are the last
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(waiting)
    for fd in descriptors:
        os.close(fd)
    os.close(go)
