"""A containerized kernel against the bare kernel of the same environment, through jupyter_client."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator

import zmq
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from harness import Measurement, Result, measure

CONTAINER, BARE = "nbhull", "python3"
"""the kernelspecs compared"""
TIMEOUT = 60.0
PAIRS = 8
"""of kernels whose round trips are measured, one pair after the other"""


def connected(manager: KernelManager) -> BlockingKernelClient:
    """A client of a kernel that may not have bound its sockets yet.

    It tries again every millisecond, not every 100 to 200 as ZeroMQ would, so that what is measured is
    the kernel's start and not the client's patience."""
    context = zmq.Context()
    context.setsockopt(zmq.RECONNECT_IVL, 1)
    client = manager.client(context=context)
    assert isinstance(client, BlockingKernelClient)
    client.start_channels(hb=False)
    return client


def disconnect(client: BlockingKernelClient) -> None:
    """Close a client, and the context that it was given."""
    client.stop_channels()
    client.context.term()


def cold_start(kernelspec: str) -> Measurement:
    """From the wish for a kernel to the reply to the first execution."""

    def measurement() -> float:
        manager = KernelManager(kernel_name=kernelspec)
        started = time.perf_counter()
        manager.start_kernel(stderr=subprocess.DEVNULL)
        client = connected(manager)
        reply = client.execute("1", reply=True, timeout=TIMEOUT, store_history=False)
        seconds = time.perf_counter() - started
        assert reply["content"]["status"] == "ok"
        disconnect(client)
        manager.shutdown_kernel(now=True)
        return seconds

    return measurement


@contextlib.contextmanager
def running(kernelspec: str) -> Iterator[Measurement]:
    """The round trip of an execution in a kernel that is running: sent, replied to, idle again."""
    manager = KernelManager(kernel_name=kernelspec)
    manager.start_kernel(stderr=subprocess.DEVNULL)
    client = connected(manager)
    try:
        client.wait_for_ready(timeout=TIMEOUT)

        def measurement() -> float:
            started = time.perf_counter()
            sent = client.execute("1", store_history=False)
            client.get_shell_msg(timeout=TIMEOUT)
            while True:
                message = client.get_iopub_msg(timeout=TIMEOUT)
                mine = message["parent_header"].get("msg_id") == sent
                if mine and message["content"].get("execution_state") == "idle":
                    return time.perf_counter() - started

        yield measurement
    finally:
        disconnect(client)
        manager.shutdown_kernel(now=True)


@contextlib.contextmanager
def reset() -> Iterator[Measurement]:
    """A reset to a snapshot of the files: from its cell to the reply, which the new kernel sends to the same client."""
    manager = KernelManager(kernel_name=CONTAINER)
    manager.start_kernel(stderr=subprocess.DEVNULL)
    client = connected(manager)

    def execute(code: str) -> float:
        started = time.perf_counter()
        reply = client.execute_interactive(
            code, timeout=TIMEOUT, store_history=False, allow_stdin=False, output_hook=lambda message: None
        )
        seconds = time.perf_counter() - started
        assert reply["content"]["status"] == "ok", reply["content"]
        return seconds

    try:
        execute("%container snapshot bench-reset")

        def measurement() -> float:
            execute("open('/root/changed', 'w').write('changed')")
            return execute("%container reset bench-reset")

        yield measurement
    finally:
        disconnect(client)
        manager.shutdown_kernel(now=True)


def round_trips(quick: bool) -> dict[str, list[float]]:
    """Samples of several pairs of kernels, since two kernels of one kind differ by some percent for as long as they
    run: by where their objects lie, and how their hashes fall."""
    samples: dict[str, list[float]] = {CONTAINER: [], BARE: []}
    for _ in range(2 if quick else PAIRS):
        with running(CONTAINER) as container, running(BARE) as bare:
            pair = measure({CONTAINER: container, BARE: bare}, rounds=150 if quick else 500, warmups=50)
        for name, values in pair.items():
            samples[name] += values
    return samples


def benchmarks(quick: bool) -> Iterator[Result]:
    """Cold start to first reply, a reset, and the execute round trip."""
    starts = measure(
        {name: cold_start(name) for name in (CONTAINER, BARE)}, rounds=8 if quick else 40, warmups=2
    )
    yield Result("kernel: cold start to first reply", starts, target_ratio=1.05)
    with reset() as back:
        resets = measure({CONTAINER: back, BARE: cold_start(BARE)}, rounds=5 if quick else 20, warmups=1)
    yield Result("kernel: reset of the files to a usable kernel, beside a bare start", resets, target_ratio=1.05)
    yield Result("kernel: execute round trip", round_trips(quick), target_ratio=1.02)
