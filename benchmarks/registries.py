"""Images between a registry and a store: pulled until something runs in them, pushed after a small change."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Measurement, Result, measure

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from support.peers import Peer, direct, docker, podman  # noqa: E402
from support.registry import Registry  # noqa: E402

NBHULL = Path(sys.executable).with_name("nbhull")
PACKAGES = ("python3-numpy", "python3-matplotlib", "git")
"""what makes a Debian of more than 250 MB"""
UNLIMITED = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
"""Docker and Podman would raise limits, which root may not everywhere"""
NEEDS = {"docker-registry": "docker-registry", "skopeo": "skopeo", "mmdebstrap": "mmdebstrap", "podman": "podman",
         "dockerd": "docker.io"}  # fmt: skip
"""programs, and the Debian packages that they come in"""


class Hull:
    """nbhull with a store of its own."""

    def __init__(self, folder: str) -> None:
        self.environment = {**direct(), "NBHULL_HOME": f"{folder}/store"}

    def run(self, *words: str) -> str:
        """Run a verb; its output."""
        command = [str(NBHULL), *words]
        done = subprocess.run(
            command, check=True, env=self.environment, capture_output=True, text=True
        )
        return done.stdout.strip()

    def seconds(self, *words: str) -> float:
        """How long a verb takes."""
        started = time.perf_counter()
        self.run(*words)
        return time.perf_counter() - started


def make_image(folder: str, registry: Registry) -> str:
    """A Debian with Python and its numbers in the registry, in two layers; gives its name there."""
    hull = Hull(f"{folder}/origin")
    wanted = [word for package in PACKAGES for word in ("--include", package)]
    hull.run("bootstrap", *wanted, "debian:bookworm", "base")
    hull.run("run", "--name", "grown", "base", "sh", "-c", "head -c 20000000 /dev/urandom > /opt/data")
    hull.run("snapshot", "grown", "large")
    name = f"{registry.host}/bench/large:1"
    hull.run("push", "-q", "large", name)
    return name


def pulls(name: str, hull: Hull, peers: dict[str, Peer], rounds: int) -> Result:
    """From nothing to the end of a first command in the image."""

    def with_hull() -> float:
        seconds = hull.seconds("pull", "-q", name) + hull.seconds("run", "--rm", "--network", "none", name, "true")
        hull.run("rmi", name)
        hull.run("prune")
        return seconds

    def with_peer(peer: Peer, *options: str) -> Measurement:
        def measurement() -> float:
            seconds = peer.seconds("pull", "-q", *options, name)
            seconds += peer.seconds("run", "--rm", *UNLIMITED, "--network", "none", name, "true")
            peer.run("rmi", "-f", name)
            return seconds

        return measurement

    variants: dict[str, Measurement] = {"nbhull": with_hull}
    for peer_name, peer in peers.items():
        variants[peer_name] = with_peer(peer, *(["--tls-verify=false"] if peer_name == "podman" else []))
    return Result("image of 300 MB: pull until a command has run", measure(variants, rounds), target_ratio=1.0)


def pushes(name: str, hull: Hull, peers: dict[str, Peer], rounds: int) -> Result:
    """A layer of a megabyte on top of an image that the registry has."""
    number = iter(range(1_000_000))

    def with_hull() -> float:
        tag = f"hull-{next(number)}"
        hull.run("run", "--name", tag, "--network", "none", name, "sh", "-c", "head -c 1000000 /dev/urandom > /new")
        hull.run("snapshot", tag, tag)
        seconds = hull.seconds("push", "-q", tag, f"{name.rpartition(':')[0]}:{tag}")
        hull.run("rm", tag)
        hull.run("rmi", tag)
        return seconds

    def with_peer(peer: Peer, *options: str) -> Measurement:
        def measurement() -> float:
            tag = f"peer-{next(number)}"
            target = f"{name.rpartition(':')[0]}:{tag}"
            script = "head -c 1000000 /dev/urandom > /new"
            peer.run("run", "--name", tag, *UNLIMITED, "--network", "none", name, "sh", "-c", script)
            peer.run("commit", tag, target)
            seconds = peer.seconds("push", "-q", *options, target)
            peer.run("rm", tag)
            peer.run("rmi", target)
            return seconds

        return measurement

    hull.run("pull", "-q", name)
    variants: dict[str, Measurement] = {"nbhull": with_hull}
    for peer_name, peer in peers.items():
        options = ["--tls-verify=false"] if peer_name == "podman" else []
        peer.run("pull", "-q", *options, name)
        variants[peer_name] = with_peer(peer, *options)
    return Result("image of 300 MB: push of a changed megabyte", measure(variants, rounds), target_ratio=1.0)


def benchmarks(quick: bool) -> Iterator[Result]:
    """Pull and push, against Docker and Podman; root's only, since Docker is. Nothing for the quick run: to make the
    image takes longer than all of that."""
    if os.getuid() != 0 or quick:
        return
    missing = [package for program, package in NEEDS.items() if shutil.which(program) is None]
    if missing:
        print(f"skipped: registries; for them: apt-get install -y {' '.join(missing)}", flush=True)
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-images-", ignore_cleanup_errors=True))
        served = Path(folder, "registry")
        served.mkdir()
        registry = Registry(served, secure=False)
        stack.callback(registry.stop)
        name = make_image(folder, registry)
        peers = {"docker": stack.enter_context(docker()), "podman": stack.enter_context(podman())}
        hull = Hull(folder)
        yield pulls(name, hull, peers, rounds=3)
        yield pushes(name, hull, peers, rounds=5)


