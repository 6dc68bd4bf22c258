"""Which launchers, and so which containers, run: told by locks and folders, whoever asks."""

from __future__ import annotations

import fcntl
import os
import time

from nbhull.runtime.launcher import client

YOUNG = 10.0
"""seconds; a launcher's folder without a held lock is left alone for so long, since it may be starting, unless it has
listened already"""


def default_home() -> str:
    """The store's folder: $NBHULL_HOME, else /var/lib/nbhull for root, else the XDG data folder."""
    if home := os.environ.get("NBHULL_HOME"):
        return home
    if os.getuid() == 0 and "XDG_DATA_HOME" not in os.environ:
        return "/var/lib/nbhull"
    return f"{os.environ.get('XDG_DATA_HOME') or os.path.expanduser('~/.local/share')}/nbhull"


def socket_folder(launcher: str, identity: str) -> str:
    """The folder for a running container's sockets."""
    return f"{launcher}/{identity}"


def is_running(folder: str) -> bool:
    """Whether the launcher of that folder lives: it holds its lock."""
    try:
        fd = os.open(f"{folder}/{client.LOCK}", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def holds(launcher: str, identity: str) -> bool:
    """Whether a launcher lives and runs that container."""
    return bool(launcher) and os.path.isdir(socket_folder(launcher, identity)) and is_running(launcher)


def sweep_ended() -> None:
    """Clean up after launchers that were killed: their folders and cgroups."""
    base = client.runtime_folder()
    for name in os.listdir(base):
        folder = f"{base}/{name}"
        try:
            young = time.time() - os.stat(folder).st_mtime < YOUNG
        except FileNotFoundError:
            continue
        may_be_starting = young and not os.path.exists(f"{folder}/{client.SOCKET}")
        if not may_be_starting and not is_running(folder):
            from nbhull.runtime.launcher.sweeping import sweep

            sweep(folder)
