"""A command of a container in the foreground of our terminal: its streams, its terminal, our signals."""

from __future__ import annotations

import errno
import os
import select

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.lean import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any

    from nbhull.runtime.engine import Process

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
FROM_TERMINALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
"""what a terminal sends to a whole process group; the others go to the command alone"""

CHUNK = 1 << 16


class Signals:
    """What signals to us do while entered: at first they end us by an exception, so that what was made is
    cleaned up; once forwarded, they wait in a pipe to be passed on. For the main thread only.
    """

    def __enter__(self) -> Signals:
        self._pipe: tuple[int, int] | None = None
        self._handlers = {s: signal.signal(s, _end) for s in (signal.SIGHUP, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        if self._pipe:
            signal.set_wakeup_fd(-1)
            os.close(self._pipe[0])
            os.close(self._pipe[1])

    def collect(self) -> None:
        """From now on keep signals for `take`. Only after the engine has forked all that it forks, since
        children would write their own signals to our pipe."""
        self._pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for signum in (*FORWARDED, signal.SIGWINCH):
            handler = signal.signal(signum, _keep)
            self._handlers.setdefault(signum, handler)

    def fileno(self) -> int:
        """A descriptor that is readable when a signal waits."""
        assert self._pipe
        return self._pipe[0]

    def take(self) -> list[int]:
        """The signals that came since the last call."""
        assert self._pipe
        try:
            return list(os.read(self._pipe[0], 256))
        except BlockingIOError:
            return []


class Terminal:
    """What a command is given as its standard streams: ours, or a pseudo-terminal that we copy from and to.

    While entered with a pseudo-terminal and `interactive`, our own terminal is in raw mode. Raises
    InvalidInput if both are asked for and standard input is no terminal.
    """

    def __init__(self, interactive: bool, tty: bool) -> None:
        self._interactive = interactive
        self._tty = tty
        self._open: list[int] = []
        self._saved: list[Any] | None = None
        self._master = -1
        self._input = b""

    def __enter__(self) -> Terminal:
        if not self._tty:
            self.stdio: tuple[int, int, int] = (0 if self._interactive else self._null(), 1, 2)
            return self
        if self._interactive and not os.isatty(0):
            raise InvalidInput("standard input is not a terminal", "leave out '-t', or '-i'")
        self._master, slave = os.openpty()
        self._open = [self._master, slave]
        os.set_blocking(self._master, False)
        self.stdio = (slave, slave, slave)
        self._copy_size()
        if self._interactive:
            import termios
            import tty

            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSADRAIN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved is not None:
            import termios

            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
        for descriptor in self._open:
            os.close(descriptor)

    def attend(self, process: Process, signals: Signals) -> int:
        """Copy and forward until the process ends; its exit status as a shell gives it."""
        reads_input = self._master >= 0 and self._interactive
        while (status := process.poll()) is None:
            interest = select.poll()
            interest.register(process.fileno(), select.POLLIN)
            interest.register(signals.fileno(), select.POLLIN)
            if self._master >= 0:
                interest.register(self._master, select.POLLIN | (select.POLLOUT if self._input else 0))
            if reads_input and len(self._input) < CHUNK:
                interest.register(0, select.POLLIN)
            ready = dict(interest.poll())
            if signals.fileno() in ready:
                self._forward(signals, process)
            if ready.get(self._master, 0) & select.POLLOUT:
                self._write_input()
            if ready.get(self._master, 0) & (select.POLLIN | select.POLLHUP):
                self._copy_output()
            if reads_input and 0 in ready:
                typed = os.read(0, CHUNK)
                self._input += typed
                reads_input = bool(typed)  # our own terminal hung up: SIGHUP tells the command
        self.drain()
        return status if status >= 0 else 128 - status

    def drain(self) -> None:
        """Copy what was written to the pseudo-terminal and not yet read."""
        if self._master < 0:
            return
        interest = select.poll()
        interest.register(self._master, select.POLLIN)
        # poll also flushes what the kernel has queued for the other end, so nothing is missed
        while interest.poll(0) and self._copy_output():
            pass

    def _forward(self, signals: Signals, process: Process) -> None:
        for signum in signals.take():
            if signum == signal.SIGWINCH:
                self._copy_size()
            elif signum in FORWARDED:
                process.signal(signum, group=signum in FROM_TERMINALS)

    def _copy_size(self) -> None:
        """Give the pseudo-terminal our terminal's size, where we have one."""
        for descriptor in (0, 1, 2):
            if self._master >= 0 and os.isatty(descriptor):
                import termios

                termios.tcsetwinsize(self._master, termios.tcgetwinsize(descriptor))
                return

    def _copy_output(self) -> bool:
        """Copy once from the pseudo-terminal; false at its end."""
        try:
            data = os.read(self._master, CHUNK)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: nobody has the other end open any more
                raise
            return False
        while data:
            data = data[os.write(1, data) :]
        return True

    def _write_input(self) -> None:
        try:
            self._input = self._input[os.write(self._master, self._input) :]
        except BlockingIOError:
            return

    def _null(self) -> int:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._open.append(descriptor)
        return descriptor


def _keep(signum: int, frame: FrameType | None) -> None:
    """A Python-level handler must exist for the wakeup descriptor to be written to."""


def _end(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)
