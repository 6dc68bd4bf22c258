"""All processes of a container made to stand still, without them or their parents noticing.

The kernel's freezers are not used: their processes can make no system calls for us, and without a cgroup of one's own
there is none. A traced thread stops the same for root and for ordinary users.
"""

from __future__ import annotations

import errno
import os
import time

from nbhull.runtime.errors import Conflict, SyscallFailed
from nbhull.runtime.linux import ptrace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

PATIENCE = 0.1
"""seconds for all to stop, after which they are let go and caught anew: a thread in vfork(2) stops only after its
child"""
ATTEMPTS = 5


class Standstill:
    """The processes below a container's init, stopped from `catch` to `release`."""

    def __init__(self, proc: int, init: int, asleep: Collection[int]) -> None:
        """`proc`: a descriptor of a /proc that knows this process and them; `init`: process id in it;
        `asleep`: processes, by their numbers inside, that wait for something and need not be stopped."""
        self.proc = proc
        self.init = init
        self.asleep = frozenset(asleep)
        self.processes: dict[int, list[int]] = {}
        """thread ids by process id"""
        self.new: set[int] = set()
        """threads that were asked to stop and not yet waited for"""

    def catch(self) -> None:
        """Stop all of them. Raises Conflict, with all of them running, when one cannot be stopped."""
        for attempt in range(ATTEMPTS):
            try:
                deadline = time.monotonic() + PATIENCE
                while self.seize_new():
                    self.await_all(deadline)
                return
            except TimeoutError as error:
                self.release()
                if attempt == ATTEMPTS - 1:
                    raise Conflict(f"{error} for {PATIENCE} s") from None
            except BaseException:
                self.release()
                raise

    def seize_new(self) -> set[int]:
        """Ask those to stop that were not known yet: which."""
        found = set()
        for pid in self.descendants():
            known = self.processes.setdefault(pid, [])
            for tid in self.numbers(f"{pid}/task"):
                if tid not in known and self.seize(pid, tid):
                    known.append(tid)
                    found.add(tid)
            if not known:
                del self.processes[pid]
        self.new = found
        return found

    def seize(self, pid: int, tid: int) -> bool:
        """Become the tracer of a thread and ask it to stop; False if it has ended."""
        try:
            ptrace.seize(tid)
            ptrace.interrupt(tid)
        except SyscallFailed as error:
            if error.errno == errno.ESRCH or self.state(tid) in "ZX":
                return False
            raise Conflict(f"the process {self.name(pid)} may not be traced: {os.strerror(error.errno)}") from error
        return True

    def await_all(self, deadline: float) -> None:
        """Wait until those stand that were asked last; who ended meanwhile is forgotten."""
        for pid, tids in list(self.processes.items()):
            self.processes[pid] = [tid for tid in tids if tid not in self.new or ptrace.await_stop(tid, deadline)]
            if not self.processes[pid]:
                del self.processes[pid]

    def release(self) -> None:
        """Let all go on; those that had not stopped yet as soon as they do."""
        threads = [tid for tids in self.processes.values() for tid in tids]
        self.processes, self.new = {}, set()
        deadline = time.monotonic() + PATIENCE
        for tid in [tid for tid in threads if not ptrace.detach(tid)]:
            if ptrace.await_stop(tid, deadline):
                ptrace.detach(tid)

    def descendants(self) -> list[int]:
        """All processes below init, as they are now (/proc/PID/task/TID/children, proc_tid_children(5))."""
        found: list[int] = []
        pending = [self.init]
        while pending:
            pid = pending.pop()
            for tid in self.numbers(f"{pid}/task"):
                children = [int(word) for word in self.read(f"{pid}/task/{tid}/children").split()]
                found += children
                pending += children
        if self.asleep:
            depth = len(self.field(self.init, "NSpid").split()) - 1  # of the container, below /proc's own namespace
            found = [pid for pid in found if self.number_at(depth, pid) not in self.asleep]
        return found

    def number_at(self, depth: int, pid: int) -> int:
        """A process's number so many namespaces below /proc's own (proc_pid_status(5), NSpid); 0 if it has none."""
        numbers = self.field(pid, "NSpid").split()
        return int(numbers[depth]) if len(numbers) > depth else 0

    def field(self, pid: int, name: str) -> str:
        """A line of /proc/PID/status; empty if the process has gone."""
        for line in self.read(f"{pid}/status").splitlines():
            if line.startswith(f"{name}:"):
                return line.partition(":")[2].strip()
        return ""

    def numbers(self, path: str) -> list[int]:
        """The names in a folder of /proc that are numbers; none if it has gone."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.proc)
        except (FileNotFoundError, ProcessLookupError):
            return []
        try:
            return [int(name) for name in os.listdir(fd) if name.isdigit()]
        finally:
            os.close(fd)

    def read(self, path: str) -> str:
        """A file of /proc, empty if its process has gone."""
        return self.read_bytes(path).decode(errors="surrogateescape")

    def read_bytes(self, path: str) -> bytes:
        """The same, undecoded."""
        parts = []
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        except (FileNotFoundError, ProcessLookupError):
            return b""
        try:
            while part := os.read(fd, 1 << 16):
                parts.append(part)
        except ProcessLookupError:
            return b""
        finally:
            os.close(fd)
        return b"".join(parts)

    def state(self, tid: int) -> str:
        """The letter of proc_pid_stat(5); X if it has gone."""
        return self.read(f"{tid}/stat").rpartition(")")[2].strip()[:1] or "X"

    def name(self, pid: int) -> str:
        """A process for people: its number inside the container, and its name."""
        return f"{(self.field(pid, 'NSpid').split() or [str(pid)])[-1]} ({self.field(pid, 'Name')})"
