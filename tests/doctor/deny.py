"""Executes a command under a seccomp filter that refuses system calls, as a sandbox or another kernel would.

python deny.py unshare:EPERM 'prctl(22):EINVAL' -- COMMAND...
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
import sys

NUMBERS = {
    "x86_64": {"unshare": 272, "mount": 165, "prctl": 157, "fsopen": 430, "mount_setattr": 442},
    "aarch64": {"unshare": 97, "mount": 40, "prctl": 167, "fsopen": 430, "mount_setattr": 442},
}[os.uname().machine]
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER_OFFSET, FIRST_ARGUMENT_OFFSET = 0, 16


def instructions(rules: list[str]) -> bytes:
    """A BPF program; each rule is `call:ERRNO`, or `call(first argument):ERRNO`."""
    program = b""
    for rule in rules:
        match = re.fullmatch(r"(\w+)(?:\((\d+)\))?:(\w+)", rule)
        assert match, rule
        call, argument, error = match.groups()
        refuse = struct.pack("=HBBI", RETURN, 0, 0, ERRNO | getattr(errno, error))
        if argument is not None:
            load = struct.pack("=HBBI", LOAD, 0, 0, FIRST_ARGUMENT_OFFSET)
            refuse = load + struct.pack("=HBBI", JUMP_IF_EQUAL, 0, 1, int(argument)) + refuse
        program += struct.pack("=HBBI", LOAD, 0, 0, NUMBER_OFFSET)
        program += struct.pack("=HBBI", JUMP_IF_EQUAL, 0, len(refuse) // 8, NUMBERS[call]) + refuse
    return program + struct.pack("=HBBI", RETURN, 0, 0, ALLOW)


def main() -> None:
    separator = sys.argv.index("--")
    code = instructions(sys.argv[1:separator])
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, *arguments in ((38, 1, 0), (22, 2, ctypes.addressof(program))):  # no_new_privs, the filter
        if libc.prctl(option, *(ctypes.c_ulong(a) for a in arguments), ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    os.execvp(sys.argv[separator + 1], sys.argv[separator + 1 :])


main()
