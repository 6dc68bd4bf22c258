"""What `client.spawn` executes: the launcher, with its server's socket as standard input."""

from __future__ import annotations

import os
import signal
import socket

from nbhull.runtime.launcher.broker import Launcher


def main() -> None:
    """Run as a launcher until the server at the other end of standard input goes away.

    It sends the launcher's folder and the store's, each in a packet."""
    server = socket.socket(fileno=os.dup(0))
    folder, store = (os.fsdecode(server.recv(4096)) for _ in range(2))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the server's terminal is the server's
    Launcher(server, folder, store, keep_spare=True).run()
