"""Snapshots of running containers that have written little or much, beside the commits of Docker and Podman; resets;
the disk that many snapshots take."""

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
from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec, ProcessSpec

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from support import peers

MB = "dd if=/dev/urandom of=/root/file bs=1048576 count={} 2>/dev/null"
CHANGES = {
    "1 MB": MB.format(1),
    "1 GB": MB.format(1024),
    "5,000 files": "i=0; while [ $i -lt 5000 ]; do echo $i > /root/f$i; i=$((i+1)); done",
}
WAIT = "cd /root; while :; do sleep 1000; done"


def write(engine: Engine, container: str, script: str) -> None:
    """Have a shell in a container change files."""
    with engine.spawn(container, ProcessSpec(("sh", "-c", script))) as process:
        if status := process.wait(300):
            raise RuntimeError(f"the shell in the container ended with {status}")


@contextlib.contextmanager
def own(script: str) -> Iterator[Measurement]:
    """nbhull, in an engine that runs. Each container is snapshotted once, for all of its changes to count."""
    with Engine() as engine:

        def measurement() -> float:
            container = engine.start(engine.create(ContainerSpec()).id)
            write(engine, container.id, script)
            with engine.spawn(container.id, ProcessSpec(("sh", "-c", WAIT))):
                os.sync()  # what was written, here or by others, is not part of it
                started = time.perf_counter()
                image = engine.snapshot(container.id)
                seconds = time.perf_counter() - started
            if image.road != "moved":
                raise RuntimeError(f"the files were copied: {image.reason}")
            engine.remove(container.id, force=True)
            return seconds

        yield measurement


def commit(peer: peers.Peer, script: str) -> Measurement:
    """A commit of a running container, into an image that goes again."""
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")  # podman's own may be more than can be set
    command = ("/bin/busybox", "sh", "-c", f"{script}; : > /done; {WAIT}")
    name = peer.run("run", "-d", "--network=none", *limits, "busybox", *command)
    look = [*peer.command, "exec", name, "/bin/busybox", "test", "-e", "/done"]
    while subprocess.run(look, check=False).returncode:
        time.sleep(0.1)

    def measurement() -> float:
        os.sync()
        seconds = peer.seconds("commit", name, "bench")
        peer.run("rmi", "-f", "bench")
        return seconds

    return measurement


def import_busybox(peer: peers.Peer, folder: str) -> None:
    """An image of busybox alone."""
    root = Path(folder, "root")
    (root / "bin").mkdir(parents=True, exist_ok=True)
    (root / "root").mkdir(exist_ok=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin/busybox")
    for tool in ("sh", "dd", "sleep", "test", "["):
        (root / "bin" / tool).unlink(missing_ok=True)
        (root / "bin" / tool).symlink_to("busybox")
    archive = f"{folder}/root.tar"
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    peer.run("import", archive, "busybox")


def reset(quick: bool) -> Result:
    """Of the files of a container that runs, to its last snapshot."""
    with Engine() as engine:
        container = engine.start(engine.create(ContainerSpec()).id)
        write(engine, container.id, CHANGES["1 MB"])
        engine.snapshot(container.id)

        def measurement() -> float:
            write(engine, container.id, "echo changed > /root/file")
            os.sync()
            started = time.perf_counter()
            engine.reset(container.id)
            return time.perf_counter() - started

        samples = measure({"nbhull": measurement}, rounds=10 if quick else 50, warmups=3)
        engine.remove(container.id, force=True)
    return Result("reset of a container's files", samples, target_ms=10.0)


def disk(quick: bool) -> Result:
    """What the disk has less after snapshots of a container that changes a megabyte before each."""
    count = 10 if quick else 100
    with tempfile.TemporaryDirectory(prefix="bench-store-") as home, Engine(home) as engine:
        container = engine.start(engine.create(ContainerSpec()).id)
        write(engine, container.id, CHANGES["1 MB"])
        before = used(home)
        for _ in range(count):
            write(engine, container.id, CHANGES["1 MB"])
            engine.snapshot(container.id)
        taken = used(home) - before
        engine.remove(container.id, force=True)
    return Result(f"disk for {count} snapshots of 1 MB", {"nbhull": [float(taken)]}, target_mb=1.1 * count, unit="MB")


def used(folder: str) -> int:
    """Bytes that the files of a folder take on the disk, each counted once."""
    os.sync()  # blocks are given to a file when it is written out
    process = subprocess.run(["du", "-s", "-B1", folder], check=True, capture_output=True, text=True)
    return int(process.stdout.split()[0])


def benchmarks(quick: bool) -> Iterator[Result]:
    """Snapshots by what was written, and resets."""
    for name, script in CHANGES.items():
        if quick and name == "1 GB":
            continue
        with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory(prefix="bench-busybox-") as folder:
            variants = {"nbhull": stack.enter_context(own(script))}
            unavailable = {}
            engines = {"docker commit": ("dockerd", peers.docker), "podman commit": ("podman", peers.podman)}
            for peer_name, (program, make) in engines.items():
                if shutil.which(program) is None or os.getuid() != 0:
                    unavailable[peer_name] = "it is compared as root"
                    continue
                try:
                    peer = stack.enter_context(make())
                    import_busybox(peer, folder)
                    variants[peer_name] = commit(peer, script)
                except (subprocess.CalledProcessError, TimeoutError) as error:
                    unavailable[peer_name] = str(error)
            rounds = (3 if quick else 5) if len(variants) > 1 else (10 if quick else 20)
            samples = measure(variants, rounds=rounds)
            yield Result(
                f"snapshot of {name}", samples, target_ms=10.0, unavailable=unavailable,
                target_ratio=1 / 300 if name == "1 GB" and len(variants) > 1 else None,
            )  # fmt: skip
    yield reset(quick)
    yield disk(quick)
