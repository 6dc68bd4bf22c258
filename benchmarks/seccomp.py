"""What the filter of system calls costs: at a container's start, and with each call."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator

from harness import Measurement, Result, measure
from nbhull.runtime import confinement
from nbhull.runtime.engine import default_home
from nbhull.runtime.linux import process
from nbhull.runtime.linux.seccomp import load_filter

COUNT = 400_000
"""bytes that dd copies one by one: twice as many system calls, and nothing else to do"""
ALLOW_ALL = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
"""a filter of one instruction"""
UNCACHED = struct.pack("=HBBI", 0x20, 0, 0, 16)
"""reading an argument first: the kernel then cannot tell beforehand what is allowed, and runs the filter each time"""
TREE = "/usr/share"
WORKLOADS = {
    "find": ("/usr/bin/find", TREE, "-size", "+1000k"),
    "tar": ("/bin/sh", "-c", f"tar -cf - --exclude='*.gz' {TREE}/doc {TREE}/perl* 2>/dev/null | cat >/dev/null"),
    "compiling Python's modules": (
        "/usr/bin/python3", "-I", "-c",
        "import pathlib\nfor file in sorted(pathlib.Path(pathlib.__file__).parent.rglob('e*.py')):\n"
        "    compile(file.read_bytes(), file, 'exec')",
    ),
}  # fmt: skip
"""what programs do that call the system much: each file's status; each file read; and one that computes as well"""
DD = ("/usr/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={COUNT}", "status=none")


def usual_filter() -> bytes:
    """The default one, from the store as a start reads it."""
    usual = confinement.USUAL
    return confinement.seccomp_filter(usual, confinement.capabilities(usual), default_home())


def forbid_new_privileges() -> None:
    """What lets an ordinary user load a filter; done in both variants."""
    process.prctl("PR_SET_NO_NEW_PRIVS", process.PR_SET_NO_NEW_PRIVS, 1)


def loading() -> float:
    """Read the filter and load it, in a process that ends with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        forbid_new_privileges()
        started = time.perf_counter()
        load_filter(usual_filter())
        os.write(writer, struct.pack("=d", time.perf_counter() - started))
        os._exit(0)
    os.close(writer)
    data = os.read(reader, 8)
    os.close(reader)
    os.waitpid(child, 0)
    seconds: float = struct.unpack("=d", data)[0]
    return seconds


def calling(program: bytes | None, command: tuple[str, ...] = DD) -> Measurement:
    """The processor's time that a command takes with its children, under a filter or none: a call costs no other."""

    def measurement() -> float:
        child = os.fork()
        if child == 0:
            forbid_new_privileges()
            if program is not None:
                load_filter(program)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.execv(command[0], command)
        _, status, used = os.wait4(child, 0)
        assert status == 0, status
        return used.ru_utime + used.ru_stime

    return measurement


def benchmarks(quick: bool) -> Iterator[Result]:
    """The filter's cost."""
    program = usual_filter()
    yield Result(
        "seccomp: the filter read and loaded",
        measure({"nbhull": loading}, rounds=100 if quick else 500, warmups=5),
        target_ms=1.0,
    )
    # The kernel's own price for having a filter at all is what one that allows everything costs.
    variants = {
        "nbhull": calling(program),
        "allow all": calling(ALLOW_ALL),
        "not cached": calling(UNCACHED + program),
        "no filter": calling(None),
    }
    samples = measure(variants, rounds=10 if quick else 60, warmups=1)
    yield Result(f"seccomp: {2 * COUNT:,} system calls of dd", samples, target_ratio=1.02)
    for name, command in WORKLOADS.items():
        variants = {"nbhull": calling(program, command), "no filter": calling(None, command)}
        samples = measure(variants, rounds=10 if quick else 40, warmups=2)
        yield Result(f"seccomp: {name}", samples, target_ratio=1.02)
