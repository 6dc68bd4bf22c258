"""Bombs in one kernel, and what another kernel's user notices of them: its round trip, quiet and beside a bomb."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from jupyter_client.manager import KernelManager

from harness import Measurement, Result
from kernels import TIMEOUT, connected, disconnect
from nbhull.kernel import specs
from nbhull.runtime import cgroups
from nbhull.runtime.limits import Limits

BOMBED = "nbhull-bombed"
"""the kernelspec of the kernel with the bomb, which has limits as one would give them"""
LIMITS = Limits(memory=256 << 20, cpus=1.0, pids=200, disk=64 << 20)
BOMBS = {
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "memory bomb": "import subprocess, sys\nwhile True: subprocess.run([sys.executable, '-c', 'bytearray(1 << 32)'])",
    "disk fill": (
        "while True:\n    try:\n        with open('/root/fill', 'ab', buffering=0) as file:\n"
        "            while True: file.write(bytes(1 << 20))\n    except OSError: pass"
    ),
    "output flood": "while True: print('x' * 1000)",
}


def benchmarks(quick: bool) -> Iterator[Result]:
    """A result for each bomb: the round trip beside it, against the quiet one."""
    controllers = {"memory", "cpu", "pids"}
    if missing := controllers - cgroups.probe().places.keys():
        print(f"no bombs: this user can set no limits of {', '.join(sorted(missing))}", flush=True)
        return
    specs.install(BOMBED, limits=LIMITS, prefix=os.environ["JUPYTER_PATH"].removesuffix("/share/jupyter"))
    count = 20 if quick else 200
    with neighbour() as round_trip:
        for name, bomb in BOMBS.items():
            quiet = [round_trip() for _ in range(count)]
            with going_off(bomb):
                beside = [round_trip() for _ in range(count)]
            samples = {"nbhull": beside, "quiet": quiet}
            yield Result(f"a kernel's round trip beside a {name}", samples, target_ratio=2.0)


@contextlib.contextmanager
def neighbour() -> Iterator[Measurement]:
    """A kernel without a bomb; gives what measures an execution in it."""
    manager = KernelManager(kernel_name="nbhull")
    manager.start_kernel()
    client = connected(manager)
    client.execute("1", reply=True, timeout=TIMEOUT)

    def round_trip() -> float:
        started = time.perf_counter()
        client.execute_interactive("1", timeout=TIMEOUT, store_history=False, output_hook=lambda message: None)
        return time.perf_counter() - started

    try:
        yield round_trip
    finally:
        disconnect(client)
        manager.shutdown_kernel(now=True)


@contextlib.contextmanager
def going_off(bomb: str) -> Iterator[None]:
    """A kernel in which a bomb has been going off for a second."""
    manager = KernelManager(kernel_name=BOMBED)
    manager.start_kernel()
    client = connected(manager)
    client.execute("1", reply=True, timeout=TIMEOUT)
    client.execute(bomb)
    time.sleep(1)
    try:
        yield
    finally:
        disconnect(client)
        manager.shutdown_kernel(now=True)
