"""The engines that nbhull is compared with, each with a storage of its own that is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 60.0
"""seconds for dockerd to come up"""


class Peer:
    """A command that begins every one of the engine's commands."""

    def __init__(self, *command: str | Path) -> None:
        self.command = list(command)

    def run(self, *words: str | Path) -> str:
        """Run a command of the engine's; its output. Raises CalledProcessError, its complaint on standard error."""
        done = subprocess.run([*self.command, *words], check=True, stdout=subprocess.PIPE, text=True, env=direct())
        return done.stdout.strip()

    def seconds(self, *words: str | Path) -> float:
        """How long a command takes."""
        started = time.perf_counter()
        self.run(*words)
        return time.perf_counter() - started


def direct() -> dict[str, str]:
    """The environment without proxies: the registries here are this machine's."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


@contextlib.contextmanager
def docker() -> Iterator[Peer]:
    """A Docker engine on a socket of its own, root's only. Raises TimeoutError if it does not come up."""
    with tempfile.TemporaryDirectory(prefix="bench-docker-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        socket = folder / "docker.sock"
        options = [
            f"--host=unix://{socket}", f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}",
            f"--pidfile={folder / 'pid'}", "--iptables=false", "--ip6tables=false", "--bridge=none",
        ]  # fmt: skip
        with open(folder / "log", "w") as log:
            daemon = subprocess.Popen(["dockerd", *options], stdout=log, stderr=log, env=direct())
        try:
            peer = Peer("docker", "--host", f"unix://{socket}")
            deadline = time.monotonic() + PATIENCE
            while subprocess.run([*peer.command, "version"], check=False, capture_output=True).returncode:
                if daemon.poll() is not None or time.monotonic() > deadline:
                    raise TimeoutError(f"dockerd did not come up: {(folder / 'log').read_text()[-500:]}")
                time.sleep(0.1)
            yield peer
        finally:
            daemon.terminate()
            daemon.wait(PATIENCE)


@contextlib.contextmanager
def podman() -> Iterator[Peer]:
    """Podman with a storage of its own; the options that it needs on machines with cgroup v1."""
    with tempfile.TemporaryDirectory(prefix="bench-podman-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        peer = Peer(
            "podman", "--root", folder / "root", "--runroot", folder / "run", "--tmpdir", folder / "tmp",
            "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--log-level", "error",
        )  # fmt: skip
        try:
            yield peer
        finally:
            subprocess.run([*peer.command, "system", "reset", "--force"], check=False, capture_output=True)
            subprocess.run(["podman", "unshare", "rm", "-rf", folder / "root"], check=False, capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)
