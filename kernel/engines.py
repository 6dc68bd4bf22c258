"""The one Engine of this process, and the threads that wait for it, so that no event loop has to."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from nbhull.runtime.engine import Engine

P = ParamSpec("P")
T = TypeVar("T")

WORKERS = 32

_lock = threading.Lock()
_engine: Engine | None = None
_pid = 0
_pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="nbhull")


def shared_engine() -> Engine:
    """The engine of this process, made on first use and closed when the process ends."""
    global _engine, _pid
    with _lock:
        # an engine inherited through a fork belongs to the parent: its launcher answers the parent
        if _engine is None or _pid != os.getpid():
            _engine, _pid = Engine(), os.getpid()
            atexit.register(close_shared_engine)
        return _engine


def close_shared_engine() -> None:
    """End the launcher of this process and all its kernels. The next call makes a new engine."""
    global _engine
    with _lock:
        if _engine is not None and _pid == os.getpid():
            _engine.close()
        _engine = None


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a blocking function in one of our threads; the loop goes on meanwhile.

    The loop's own threads are fewer than the kernels that may start at the same time.
    """
    return await asyncio.get_running_loop().run_in_executor(_pool, lambda: function(*args, **kwargs))


def submit(function: Callable[[], None]) -> Future[None]:
    """Have a function called in one of our threads; what it raises is logged."""
    future = _pool.submit(function)
    future.add_done_callback(_log_failure)
    return future


def _log_failure(future: Future[None]) -> None:
    if (error := future.exception()) is not None:
        logging.getLogger("nbhull").error("a request from a container failed", exc_info=error)
