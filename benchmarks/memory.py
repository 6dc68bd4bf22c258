"""Snapshots with the memory of a kernel, and resets to them, as a client with ZeroMQ's own patience sees them: it tries
every 100 ms to connect again, which is a part of every reset."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from jupyter_client.manager import KernelManager

from harness import Measurement, Result, measure
from kernels import CONTAINER, TIMEOUT

WORK = """
import ipywidgets
heap = [bytearray(b"x") * (1 << 20) for _ in range(300)]
slider = ipywidgets.IntSlider()
try:
    import pandas
    frame = pandas.DataFrame({"number": range(1000)})
except ImportError:
    pass
"""


def benchmarks(quick: bool) -> Iterator[Result]:
    """A snapshot, to the reply of its cell; a reset, to its reply on the client's old connection."""
    manager = KernelManager(kernel_name=CONTAINER)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=TIMEOUT)
    names = (f"bench-{number}" for number in itertools.count())

    def timed(code: str) -> float:
        started = time.perf_counter()
        reply = client.execute_interactive(code, allow_stdin=False, timeout=TIMEOUT, output_hook=lambda message: None)
        seconds = time.perf_counter() - started
        assert reply["content"]["status"] == "ok", reply["content"]
        return seconds

    def reset_to(name: str) -> Measurement:
        return lambda: timed(f"%container reset {name}")

    rounds = 5 if quick else 20
    try:
        timed(WORK)
        taken = measure({"nbhull": lambda: timed(f"%container snapshot --memory {next(names)}")}, rounds)
        yield Result("memory: snapshot of files and 300 MB", taken, target_ms=30)
        timed("%container snapshot --memory bench-memory")
        yield Result(
            "memory: reset to first reply", measure({"nbhull": reset_to("bench-memory")}, rounds), target_ms=200
        )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
