"""A kernel's memory, kept in a copy of its process: forked at a quiet point, asleep until it is woken.

The copy goes on as the kernel when it is woken, and leaves another copy of itself asleep first, so that the same
moment can be come back to any number of times. Asleep it costs only the pages that the kernel has changed since.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from nbhull.kernel.app.inspection import CHECKPOINT_NAME, DEVICES, OpenFile, descriptors
from nbhull.kernel.names import WAKE
from nbhull.runtime.errors import Conflict, ProcessFailed

PATIENCE = 2.0
"""seconds for the kernel's other threads to come to rest"""
FIRST_VICTIM = "1000"
"""oom_score_adj: when the container runs out of memory, what is asleep goes before what runs (proc(5))"""
ENDS = {signal.SIGTERM, signal.SIGHUP}


class Woken(SystemExit):
    """A checkpoint is the kernel now. It leaves the event loop of before as only SystemExit can."""

    def __init__(self, successor: int, problems: Sequence[str]) -> None:
        """`successor`: the process that is the checkpoint now; `problems`: what could not be made as it was."""
        super().__init__(0)
        self.successor = successor
        self.problems = list(problems)


def fork(files: Sequence[OpenFile], kept: Iterable[int]) -> int:
    """Copy this process: its number, once the copy sleeps and holds nothing open but `kept`.

    Raises ProcessFailed if it could not be made. In the copy, which was woken, raises Woken."""
    sleeper = Sleeper(files, frozenset(kept))
    ready, ready_end = os.pipe()
    pid = sleeper.fork()
    if pid == 0:
        try:
            os.close(ready)
            sleeper.fall_asleep(ready_end)
            successor = sleeper.sleep()
            problems = sleeper.wake_up()
        except BaseException:  # noqa: BLE001 (nothing may leave: there are two of this process now)
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        raise Woken(successor, problems)
    os.close(ready_end)
    sleeper.unblock()
    with os.fdopen(ready, "rb") as channel:
        if channel.read() != b"asleep":
            os.waitpid(pid, 0)
            raise ProcessFailed("the copy of the kernel ended as it was made", "see the server's log")
    return pid


def discard(pid: int) -> None:
    """End a checkpoint that is a child of this process."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


class Sleeper:
    """What a checkpoint does, and needs to know of the moment in which it was made."""

    def __init__(self, files: Sequence[OpenFile], kept: frozenset[int]) -> None:
        self.files = files
        self.kept = kept
        self.folder = os.getcwd()
        self.random = random.getstate()  # which Python seeds anew in every fork
        self.name = read("/proc/self/comm")
        self.oom_score = read("/proc/self/oom_score_adj")
        self.mask: set[int] = set()

    def fork(self) -> int:
        """os.fork, with all signals held back from both."""
        self.mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the other threads stand still, and hold no locks
            return os.fork()

    def unblock(self) -> None:
        """Let signals through again."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def fall_asleep(self, ready: int) -> None:
        """Leave the original's session, its files and its connections, and tell so."""
        self.stand_apart()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd, target in list(descriptors()):
            if fd not in (*self.kept, null, ready) and target not in DEVICES:
                # The number stays taken: what still believes that it has a socket there can do no harm.
                os.dup2(null, fd, inheritable=os.get_inheritable(fd))
        os.close(null)
        os.write(ready, b"asleep")
        os.close(ready)

    def stand_apart(self) -> None:
        """Be no target of signals that are meant for the kernel, and the first one for the kernel of all kernels."""
        os.setsid()
        write("/proc/self/comm", CHECKPOINT_NAME)
        write("/proc/self/oom_score_adj", FIRST_VICTIM)

    def sleep(self) -> int:
        """Wait to be woken; the number of the process that sleeps on."""
        while True:
            if signal.sigwait({WAKE, *ENDS}) != WAKE:
                os._exit(0)
            pid = os.fork()
            if pid:
                return pid
            self.stand_apart()

    def wake_up(self) -> list[str]:
        """Be as the original was, but for its threads and connections; says what is not."""
        write("/proc/self/comm", self.name)
        write("/proc/self/oom_score_adj", self.oom_score)
        random.setstate(self.random)
        problems = []
        try:
            os.chdir(self.folder)
        except OSError as error:
            problems.append(f"the working folder {self.folder} could not be entered again: {error.strerror}")
        for file in self.files:
            try:
                reopen(file)
            except OSError as error:
                problems.append(f"the file {file.path} could not be opened again: {error.strerror}")
        while signal.sigtimedwait(signal.valid_signals(), 0) is not None:
            pass  # what came while it slept was meant for others
        self.unblock()
        return problems


def reopen(file: OpenFile) -> None:
    """Open a file anew, as the descriptor that it was."""
    fd = os.open(file.path, file.flags | os.O_CLOEXEC)
    os.lseek(fd, file.position, os.SEEK_SET)
    os.dup2(fd, file.fd, inheritable=not file.flags & os.O_CLOEXEC)
    os.close(fd)


@contextmanager
def standing(loops: Iterable[Any]) -> Iterator[None]:
    """Have the threads of the kernel's event loops stand still, with no lock in their hands.

    Raises Conflict if one does not come to rest."""
    proceed = threading.Event()
    arrivals = [threading.Event() for _ in loops]

    def stand(arrival: threading.Event) -> None:
        arrival.set()
        proceed.wait()

    try:
        for loop, arrival in zip(loops, arrivals, strict=True):
            loop.add_callback(stand, arrival)
        if not all(arrival.wait(PATIENCE) for arrival in arrivals):
            raise Conflict("a thread of the kernel is busy", "try again")
        yield
    finally:
        proceed.set()


@contextmanager
def closed_history(manager: Any, later: Callable[[Callable[[], None]], object]) -> Iterator[None]:
    """Have no database of IPython's history open meanwhile: SQLite's connections do not come through a fork.

    `later` has something done when the cell has been replied to: so the original opens it again, which takes as long
    as a third of the fork. A copy does so at once."""
    if not manager.enabled or manager.hist_file == ":memory:":
        yield
        return
    manager.writeout_cache()
    thread = manager.save_thread
    if thread is not None:
        thread.stop()
    manager.db.close()

    def open_again() -> None:
        manager.init_db()
        if thread is not None:
            manager.save_thread = type(thread)(manager)
            manager.save_thread.start()

    try:
        yield
    except BaseException:
        open_again()
        raise
    later(open_again)


def reap(pids: Iterable[int]) -> set[int]:
    """Those checkpoints that have ended, which is not noticed by itself."""
    ended = set()
    for pid in pids:
        with suppress(ChildProcessError):  # of an earlier kernel's: a child of init
            os.waitpid(pid, os.WNOHANG)
        try:
            if read(f"/proc/{pid}/comm") == CHECKPOINT_NAME and read(f"/proc/{pid}/stat").rpartition(")")[2][1] != "Z":
                continue
        except (FileNotFoundError, ProcessLookupError):
            pass
        ended.add(pid)
    return ended


def read(path: str) -> str:
    """A small file of /proc."""
    with open(path) as file:
        return file.read().strip()


def write(path: str, text: str) -> None:
    """Write one."""
    with open(path, "w") as file:
        file.write(text)
