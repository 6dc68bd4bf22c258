"""What a seccomp filter decides: an interpreter for the part of BPF that seccomp(2) takes."""

from __future__ import annotations

import struct

LD_ABS, JA, JEQ, JGT, JGE, JSET, AND, RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x45, 0x54, 0x06


def decide(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """The value that the filter returns for a system call; raises ValueError for code it must not have."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, arch, 0, *words)
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator = position = 0
    while True:
        operation, jump_true, jump_false, constant = code[position]
        position += 1
        if operation == RET:
            return int(constant)
        if operation == LD_ABS:
            (accumulator,) = struct.unpack_from("=I", data, constant)
        elif operation == AND:
            accumulator &= constant
        elif operation == JA:
            position += constant
        elif operation in (JEQ, JGT, JGE, JSET):
            holds = {
                JEQ: accumulator == constant, JGT: accumulator > constant,
                JGE: accumulator >= constant, JSET: bool(accumulator & constant),
            }  # fmt: skip
            position += jump_true if holds[operation] else jump_false
        else:
            raise ValueError(f"instruction {position - 1} has the code {operation:#x}")
