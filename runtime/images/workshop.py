"""The client of the worker: starts it when it is first needed, and asks it (worker.py tells what)."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from nbhull.runtime import usermap
from nbhull.runtime.launcher import client, wire
from nbhull.runtime.linux.process import has_capability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROGRAM = """import os, sys; sys.path[:] = os.read(0, 65536).decode().split("\\0")
from nbhull.runtime.images.worker import main; main()"""


class Workshop:
    """A worker; thread-safe, requests run side by side."""

    def __init__(self, launcher: Callable[[], client.Client]) -> None:
        """`launcher`: gives the running launcher, whose containers' user namespace it is."""
        self.launcher = launcher
        self.lock = threading.Lock()
        self.worker: client.Client | None = None

    def ask(self, op: str, descriptors: list[int] | None = None, **arguments: Any) -> dict[str, str]:
        """Ask, and wait for the answer. Raises the HullError that the worker met."""
        return self.worker_client().request(op, descriptors, **arguments)[1]

    @staticmethod
    def is_needed_to_read() -> bool:
        """Whether layers can be read in the worker alone: not by real root, in whose store files have the ids that
        they have in a container, and whom no mode keeps from reading them."""
        return not (has_capability("DAC_OVERRIDE") and usermap.plan().strategy == "direct")

    def worker_client(self) -> client.Client:
        """The worker, started on first use."""
        with self.lock:
            if self.worker is None:
                self.worker = start(self.launcher())
            return self.worker

    def close(self) -> None:
        """End the worker; idempotent."""
        with self.lock:
            if self.worker is not None:
                self.worker.close()
                self.worker = None


def start(launcher: client.Client) -> client.Client:
    """Execute a worker, and have it enter the launcher's user namespace."""
    from nbhull.runtime.launcher.broker import STAGE

    _, fields, descriptors = launcher.request("workspace")
    ours, theirs = wire.pair()
    moves = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)]
    argv = [sys.executable, "-I", "-S", "-c", PROGRAM]
    pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=moves, setpgroup=0)
    theirs.close()
    worker = client.Client(ours, "", pid)
    try:
        ours.send("\0".join([client.package_folder(), *library_paths()]).encode())
        worker.request(
            "enter",
            descriptors,
            alone=fields["idmapped"] == "1",
            stage=f"{launcher.folder}/{STAGE}",
            store=fields["store"],
        )
    except BaseException:
        worker.close()
        raise
    finally:
        for fd in descriptors:
            os.close(fd)
    return worker


def library_paths() -> list[str]:
    """Where this process imports from; the environment's own packages too, which it may have been started without."""
    import sysconfig

    paths = [path for path in sys.path if os.path.isabs(path)]
    return list(dict.fromkeys([*paths, sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]))
