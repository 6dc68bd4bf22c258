"""Threads of other processes: stopped, compared, made to do system calls (ptrace(2), kcmp(2), pidfd_getfd(2)).

A thread is stopped by PTRACE_SEIZE and PTRACE_INTERRUPT, which no process sees: no signal, no SIGCHLD. Should the
tracer die, the kernel lets its tracees go on.
"""

from __future__ import annotations

import errno
import os
import select
import struct
import time

from nbhull.runtime.errors import Conflict, SyscallFailed
from nbhull.runtime.lean import Buffer, c_long, c_ulong, signal
from nbhull.runtime.linux import libc

PTRACE_CONT, PTRACE_DETACH, PTRACE_SYSCALL = 7, 17, 24
PTRACE_GETREGSET, PTRACE_SETREGSET = 0x4204, 0x4205
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
PTRACE_GETSIGMASK, PTRACE_SETSIGMASK = 0x420A, 0x420B
PTRACE_O_TRACESYSGOOD = 1
PTRACE_EVENT_STOP = 128
NT_PRSTATUS = 1
SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000
"""__WALL: wait for threads too"""
KCMP_FILE, KCMP_FILES, KCMP_FS = 0, 2, 3
KCMP = {"x86_64": 312, "aarch64": 272}
PIDFD_GETFD = 438

REGISTERS = struct.Struct("=27Q")
"""struct user_regs_struct of x86-64 (sys/user.h)"""
R10, R9, R8, RAX, RDX, RSI, RDI, ORIG_RAX, RIP = 7, 8, 9, 10, 12, 13, 14, 15, 16
SYSCALL_INSTRUCTION = b"\x0f\x05"
ALL_SIGNALS = (1 << 64) - 1
SPIN = 0.002
"""seconds of waiting without sleep"""


def ptrace(name: str, request: int, tid: int, address: int = 0, data: int = 0) -> int:
    """ptrace(2)."""
    words = [c_long(request), c_long(tid), c_ulong(address), c_ulong(data)]
    libc.libc.ptrace.restype = c_long
    return libc.check(libc.libc.ptrace(*words), f"ptrace({name})", f"thread {tid}")


def seize(tid: int) -> None:
    """Become a thread's tracer; it goes on. Raises SyscallFailed (EPERM: it may not be traced, or is; ESRCH: gone)."""
    ptrace("PTRACE_SEIZE", PTRACE_SEIZE, tid, 0, PTRACE_O_TRACESYSGOOD)


def interrupt(tid: int) -> None:
    """Ask a seized thread to stop; `await_stop` tells when it has."""
    ptrace("PTRACE_INTERRUPT", PTRACE_INTERRUPT, tid)


def await_stop(tid: int, deadline: float) -> bool:
    """Wait until an interrupted thread has stopped; False if it ended. Signals on their way are let through.

    Raises TimeoutError at `deadline` (of time.monotonic)."""
    while True:
        status = await_event(tid, deadline)
        if not os.WIFSTOPPED(status):
            return False
        if status >> 16 == PTRACE_EVENT_STOP:
            return True
        ptrace("PTRACE_CONT", PTRACE_CONT, tid, 0, os.WSTOPSIG(status))


def await_event(tid: int, deadline: float) -> int:
    """The next wait status of a traced thread. Raises TimeoutError at `deadline`."""
    begin = time.monotonic()
    while True:
        found, status = os.waitpid(tid, os.WNOHANG | WALL)
        if found:
            return status
        now = time.monotonic()
        if now > deadline:
            raise TimeoutError(f"thread {tid} does not stop")
        if now - begin < SPIN:
            os.sched_yield()
        else:
            select.select([], [], [], 0.0005)


def detach(tid: int) -> bool:
    """Let a stopped thread go on, untraced; False if it was not stopped, or has gone."""
    try:
        ptrace("PTRACE_DETACH", PTRACE_DETACH, tid)
    except SyscallFailed as error:
        if error.errno != errno.ESRCH:
            raise
        return False
    return True


def same(kind: int, one: int, other: int, fd: int = 0, other_fd: int = 0) -> bool:
    """Whether two processes or threads share what `kind` (KCMP_*) says: descriptors, folders, or one open file."""
    number = libc.number_of(KCMP, "kcmp")
    return libc.syscall("kcmp", number, one, other, kind, fd, other_fd, subject=f"{one} and {other}") == 0


def take_descriptor(pid: int, fd: int) -> int:
    """A duplicate of another process's descriptor (pidfd_getfd(2), Linux 5.6)."""
    pidfd = os.pidfd_open(pid)
    try:
        return libc.syscall("pidfd_getfd", PIDFD_GETFD, pidfd, fd, 0, subject=f"process {pid}")
    finally:
        os.close(pidfd)


class Puppet:
    """A stopped thread that makes system calls for us, in memory of its own that is put back afterwards.

    `begin` and `end` frame the calls; after `end` the thread stands where it stood, an interrupted call of
    its own included. All threads that share its memory must be stopped. x86-64."""

    def __init__(self, tid: int, memory: int, scratch: int, vdso: tuple[int, int], deadline: float) -> None:
        """`memory`: its /proc/PID/mem, open for reading and writing; `scratch`: address of writable memory;
        `vdso`: begin and end of its vDSO, where an instruction to make system calls is looked for."""
        self.tid = tid
        self.memory = memory
        self.scratch = scratch
        self.deadline = deadline
        code = os.pread(memory, vdso[1] - vdso[0], vdso[0])
        offset = code.find(SYSCALL_INSTRUCTION)
        if offset < 0:
            raise Conflict(f"the vDSO of thread {tid} has no system call in it")
        self.gate = vdso[0] + offset
        self.registers: tuple[int, ...] = ()
        self.mask = b""
        self.kept = b""

    def begin(self, size: int) -> None:
        """Save the thread's state and `size` bytes of its memory, and hold signals back from it."""
        self.registers = self.read_registers()
        self.kept = os.pread(self.memory, size, self.scratch)
        mask = Buffer(bytes(8))
        ptrace("PTRACE_GETSIGMASK", PTRACE_GETSIGMASK, self.tid, 8, mask.address.value)
        self.mask = mask.raw
        self.write_mask(struct.pack("=Q", ALL_SIGNALS))

    def call(self, name: str, number: int, *arguments: int) -> int:
        """One system call in the thread: its result. Raises SyscallFailed."""
        registers = list(self.registers)
        registers[RAX], registers[ORIG_RAX], registers[RIP] = number, ALL_SIGNALS, self.gate
        for register, argument in zip((RDI, RSI, RDX, R10, R8, R9), arguments, strict=False):
            registers[register] = argument
        self.write_registers(registers)
        for _ in range(2):  # it stops as it enters the call, and as it leaves it
            ptrace("PTRACE_SYSCALL", PTRACE_SYSCALL, self.tid)
            status = await_event(self.tid, self.deadline)
            if not os.WIFSTOPPED(status) or os.WSTOPSIG(status) != SYSCALL_STOP:
                raise Conflict(f"thread {self.tid} ended, or was stopped, at {name}")
        result = self.read_registers()[RAX]
        if result > ALL_SIGNALS - 4096:
            raise SyscallFailed(name, ALL_SIGNALS - result + 1, f"thread {self.tid}")
        return result

    def end(self) -> None:
        """Put the thread back to where it stood."""
        os.pwrite(self.memory, self.kept, self.scratch)
        # A call of its own that the first stop interrupted is begun again only by who returns from a stop like
        # that one, with the registers of then.
        interrupt(self.tid)
        ptrace("PTRACE_CONT", PTRACE_CONT, self.tid)
        if await_stop(self.tid, self.deadline):
            self.write_registers(self.registers)
            self.write_mask(self.mask)

    def write_mask(self, mask: bytes) -> None:
        """Which signals are held back."""
        buffer = Buffer(mask)
        ptrace("PTRACE_SETSIGMASK", PTRACE_SETSIGMASK, self.tid, 8, buffer.address.value)

    def read_registers(self) -> tuple[int, ...]:
        """The general registers."""
        buffer = Buffer(bytes(REGISTERS.size))
        vector = Buffer(struct.pack("=QQ", buffer.address.value, REGISTERS.size))
        ptrace("PTRACE_GETREGSET", PTRACE_GETREGSET, self.tid, NT_PRSTATUS, vector.address.value)
        if struct.unpack("=QQ", vector.raw)[1] != REGISTERS.size:
            raise Conflict(f"thread {self.tid} runs 32-bit code")
        return REGISTERS.unpack(buffer.raw)

    def write_registers(self, registers: tuple[int, ...] | list[int]) -> None:
        """Set the general registers."""
        buffer = Buffer(REGISTERS.pack(*registers))
        vector = Buffer(struct.pack("=QQ", buffer.address.value, REGISTERS.size))
        ptrace("PTRACE_SETREGSET", PTRACE_SETREGSET, self.tid, NT_PRSTATUS, vector.address.value)
