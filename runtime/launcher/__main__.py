"""What `client.spawn` executes: the launcher, with its server's socket as standard input."""

from __future__ import annotations

import os
import signal
import socket
import sys

from nbhull.runtime.launcher.broker import Launcher


def main(folder: str, store: str) -> None:
    """Run as a launcher until the server at the other end of standard input goes away."""
    server = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the server's terminal is the server's
    Launcher(server, folder, store, keep_spare=True).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
