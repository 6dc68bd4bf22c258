"""Loading a system call filter (seccomp(2))."""

from __future__ import annotations

import struct

from nbhull.runtime.lean import Buffer
from nbhull.runtime.linux.libc import number_of, syscall

SECCOMP = {"x86_64": 317, "aarch64": 277}
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1, 4
INSTRUCTION = 8
"""bytes of a struct sock_filter"""


def load_filter(program: bytes) -> None:
    """Have a BPF program judge all system calls of this process, and of its children, from now on.

    Needs no_new_privs, or CAP_SYS_ADMIN in the process's user namespace. As runc does, without the
    mitigations of speculative store bypass that kernels before 5.16 would turn on and that slow everything down."""
    buffer = Buffer(program)
    structure = struct.pack("@HP", len(program) // INSTRUCTION, buffer.address.value)
    number = number_of(SECCOMP, "seccomp")
    syscall("seccomp", number, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, structure)
    del buffer
