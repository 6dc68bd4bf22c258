"""Files of a container's socket folder: the container writes there, so each of them may be anything."""

from __future__ import annotations

import os
import stat


def read_plain(path: str, most: int) -> bytes:
    """What a plain file holds; empty where there is none, or one of more than `most` bytes. No link is followed, and
    nothing is waited for."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with open(fd, "rb") as file:
        data = file.read(most + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    return data if len(data) <= most else b""
