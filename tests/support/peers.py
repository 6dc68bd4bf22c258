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
"""seconds for dockerd to come up, and to end"""


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
def docker(*options: str) -> Iterator[Peer]:
    """A Docker engine on a socket of its own, root's only, which ends with this process however that ends.
    `options`: more of dockerd's. Raises TimeoutError if it does not come up."""
    with storage("docker") as folder:
        socket = folder / "docker.sock"
        words = [
            f"--host=unix://{socket}", f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}",
            f"--pidfile={folder / 'pid'}", "--iptables=false", "--ip6tables=false", "--bridge=none", *options,
        ]  # fmt: skip
        with open(folder / "log", "w") as log:
            bound = ["setpriv", "--pdeathsig", "TERM", "dockerd"]
            daemon = subprocess.Popen([*bound, *words], stdout=log, stderr=log, env=direct())
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
            try:
                daemon.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@contextlib.contextmanager
def podman(*options: str) -> Iterator[Peer]:
    """Podman with a storage of its own; the options that it needs on machines with cgroup v1, and `options`."""
    with storage("podman") as folder:
        peer = Peer(
            "podman", "--root", folder / "root", "--runroot", folder / "run", "--tmpdir", folder / "tmp",
            "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--log-level", "error", *options,
        )  # fmt: skip
        try:
            yield peer
        finally:
            peer.run("system", "reset", "--force")


@contextlib.contextmanager
def storage(name: str) -> Iterator[Path]:
    """A folder for what an engine keeps, which is gone afterwards with whatever is still mounted in it. Its path is
    short, since sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix=f"{name[0]}-", dir="/tmp"))
    try:
        yield folder
    finally:
        mounted = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in reversed([place for place in mounted if place.startswith(f"{folder}/")]):
            subprocess.run(["umount", "--lazy", mount], check=True)
        if os.getuid() == 0:
            shutil.rmtree(folder)
        else:  # files of subordinate ids
            subprocess.run(["unshare", "--map-auto", "--map-root-user", "rm", "-rf", folder], check=True)
