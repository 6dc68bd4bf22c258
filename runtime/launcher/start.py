"""What `client.spawn` executes: the launcher, with its server's socket as standard input."""

from __future__ import annotations

import os
import sys

from nbhull.runtime.launcher import client
from nbhull.runtime.launcher.broker import Launcher
from nbhull.runtime.lean import Socket, signal


def main() -> None:
    """Run as a launcher until the server at the other end of standard input goes away.

    It sends the launcher's folder, the store's, and that of libraries, each in a packet."""
    server = Socket(fileno=os.dup(0))
    folder, store, libraries = (os.fsdecode(server.recv(4096)) for _ in range(3))
    if libraries != client.NO_LIBRARIES:
        sys.path.append(libraries)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the server's terminal is the server's
    Launcher(server, folder, store, keep_spare=True).run()
