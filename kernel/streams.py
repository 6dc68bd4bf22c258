"""The server's end of a request that takes long: what is told meanwhile, and whether who asked still waits.

Such a request has its connection for itself, and a thread; it ends when the other end closes or shuts down.
"""

from __future__ import annotations

import base64
import select
import socket
from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import Any

from nbhull.kernel.rpc import encode_result, error_of, line_of
from nbhull.runtime.builder.progress import Progress, Step
from nbhull.runtime.errors import HullError
from nbhull.runtime.verbs.results import Result

INTERVAL = 0.1
"""seconds between two notices of how far a part is"""


class AskerGone(Exception):
    """Who asked waits no longer."""


class Stream:
    """A connection on which one request is being served; `notify` may be called from several threads."""

    def __init__(self, channel: socket.socket, identity: Any = None) -> None:
        """`channel` is the stream's from here on; `identity`: the request's id."""
        channel.setblocking(True)
        self.channel = channel
        self.identity = identity
        self.lock = Lock()

    def fileno(self) -> int:
        """A descriptor on which POLLRDHUP tells that who asked has gone."""
        return self.channel.fileno()

    def is_abandoned(self) -> bool:
        """Whether who asked waits no longer."""
        waiter = select.poll()
        waiter.register(self.channel, select.POLLRDHUP)
        return bool(waiter.poll(0))

    def notify(self, method: str, **params: Any) -> None:
        """Tell something; blocks while the other end does not read. Raises AskerGone."""
        if self.is_abandoned():
            raise AskerGone
        self.send({"method": method, "params": params})

    def output(self, name: str, data: bytes) -> None:
        """Hand on what a program has written. Raises AskerGone."""
        self.notify("output", stream=name, data=base64.b64encode(data).decode())

    def send(self, message: dict[str, Any]) -> None:
        """One message of JSON-RPC. Raises AskerGone."""
        line = line_of(message)
        try:
            with self.lock:
                self.channel.sendall(line)
        except OSError as error:
            raise AskerGone from error

    def serve(self, work: Callable[[Stream], Result | dict[str, Any]]) -> None:
        """Do what was asked, send the reply, and close. Who is gone is told so, should only half of it be closed."""
        try:
            result = work(self)
            reply = {"result": encode_result(result) if isinstance(result, Result) else result}
        except AskerGone:
            reply = {"result": {"interrupted": True}}
        except HullError as error:
            reply = {"error": error_of(error)}
        except BaseException:
            self.channel.close()
            raise
        try:
            self.send({"id": self.identity, **reply})
        except AskerGone:
            pass  # nobody waits for it
        self.channel.close()


class StreamedProgress(Progress):
    """How far a transfer or a build is, as notices. Raises AskerGone, which ends it."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream
        self.told: dict[str, float] = {}
        self.done: dict[str, int] = {}
        self.total: dict[str, int] = {}

    def begin(self, what: str, total: int) -> None:
        """A part begins."""
        with self.lock:
            self.total[what], self.done[what] = total, 0
        self.stream.notify("progress", part=what, done=0, total=total)

    def advance(self, what: str, count: int) -> None:
        """So much more of it is done."""
        with self.lock:
            self.done[what] = done = self.done.get(what, 0) + count
            if monotonic() < self.told.get(what, 0.0) + INTERVAL:
                return
            self.told[what] = monotonic()
        self.stream.notify("progress", part=what, done=done, total=self.total.get(what, 0))

    def end(self, what: str, outcome: str) -> None:
        """It is done."""
        total = self.total.get(what, 0)
        self.stream.notify("progress", part=what, done=total, total=total, outcome=outcome)

    def begun(self, step: Step) -> None:
        self.stream.notify("step", number=step.number, label=step.label, title=step.title)

    def wrote(self, step: Step, lines: list[str]) -> None:
        self.stream.notify("lines", number=step.number, lines=lines)

    def ended(self, step: Step, how: str) -> None:
        self.stream.notify("ended", number=step.number, how=how)

    def failed(self, step: Step) -> None:
        self.stream.notify("failed", number=step.number)

    def note(self, text: str) -> None:
        self.stream.notify("note", text=text)
