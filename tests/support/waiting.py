"""Waiting for what no descriptor announces."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str, timeout: float = 30.0) -> T:
    """The first true value of `condition`; raises TimeoutError naming `what` after `timeout` seconds.

    For states that can only be polled, such as the end of a process that is no child of ours.
    """
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.02)
