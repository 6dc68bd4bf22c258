"""Images between a registry, archives and a store: pulled until something runs in them, pushed after a small change,
saved, loaded; and the memory that a pull takes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from harness import Measurement, Result, measure

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))

from nbhull.runtime.engine import Engine  # noqa: E402
from support import debian_root  # noqa: E402
from support.peers import Peer, direct, docker, podman  # noqa: E402
from support.registry import Registry  # noqa: E402

NBHULL = Path(sys.executable).with_name("nbhull")
MORE = "mkdir /opt/more && cp -a /usr/lib /usr/bin /opt/more"
"""what makes the Debian one of more than 300 MB, by one more layer"""
SCRIPT = "head -c 1000000 /dev/urandom > /new"
UNLIMITED = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
"""Docker and Podman would raise limits, which root may not everywhere"""
NEEDS = {"docker-registry": "docker-registry", "mmdebstrap": "mmdebstrap", "podman": "podman",
         "dockerd": "docker.io", "setpriv": "util-linux"}  # fmt: skip
"""programs, and the Debian packages that they come in"""
LAYERS: tuple[tuple[int, Literal["gzip", "zstd"]], ...] = (
    (10, "gzip"), (300, "gzip"), (300, "zstd"), (1500, "gzip"), (1500, "zstd"),
)  # fmt: skip
"""megabytes and compression of layers whose pull is looked at for memory"""
GLANCE = 0.01
"""seconds between two looks at what processes have in memory"""


class Hull:
    """nbhull with a store of its own, deleted with the folder that it lies in."""

    def __init__(self, folder: str) -> None:
        self.environment = {**direct(), "NBHULL_HOME": f"{folder}/store"}

    def run(self, *words: str | Path) -> str:
        """Run a verb; its output. Raises CalledProcessError, its complaint on standard error."""
        done = subprocess.run(
            [NBHULL, *words], check=True, env=self.environment, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    def seconds(self, *words: str | Path) -> float:
        """How long a verb takes."""
        started = time.perf_counter()
        self.run(*words)
        return time.perf_counter() - started

    def peak(self, *words: str | Path) -> float:
        """The most bytes that the processes of a verb have in memory together. They are told by their environment,
        since the forks that unpack layers are nobody's children any more."""
        mark = f"NBHULL_HOME={self.environment['NBHULL_HOME']}\0".encode()
        ours: dict[int, bool] = {}
        with subprocess.Popen([NBHULL, *words], env=self.environment, stdout=subprocess.DEVNULL) as process:
            ours[process.pid] = True
            most = 0
            while process.poll() is None:
                for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
                    if pid not in ours:
                        ours[pid] = mark in environment(pid)
                most = max(most, sum(resident(pid) for pid, is_ours in ours.items() if is_ours))
                time.sleep(GLANCE)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, [NBHULL, *words])
        return float(most)


def environment(pid: int) -> bytes:
    """What a process was started with; nothing where it has ended, or cannot be asked."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def resident(pid: int) -> int:
    """Bytes that a process has in memory, what it shares with others by its share (smaps_rollup of proc_pid_smaps(5));
    none where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:")), 0)


def make_image(folder: str, registry: Registry) -> str:
    """A Debian with Python in the registry, in two layers of which one has what many systems have; gives its name."""
    hull = Hull(f"{folder}/origin")
    hull.run("import", debian_root.tar(), "base")
    hull.run("run", "--name", "grown", "--network", "none", "base", "sh", "-c", MORE)
    hull.run("snapshot", "grown", "large")
    name = f"{registry.host}/bench/large:1"
    hull.run("push", "-q", "large", name)
    hull.run("rm", "grown")
    return name


def settled(measurement: Measurement) -> Measurement:
    """A measurement that begins when nothing waits to be written, whatever was measured before."""

    def begin() -> float:
        os.sync()
        return measurement()

    return begin


def quiet(peer: str) -> list[str]:
    """What keeps Podman from telling its progress; Docker tells none where nobody looks."""
    return ["-q"] if peer == "podman" else []


def plain(peer: str) -> list[str]:
    """What Podman must be told to speak without TLS; Docker does so with loopback."""
    return ["--tls-verify=false"] if peer == "podman" else []


Peers = dict[str, Peer]
Each = Callable[[str, Peer], Measurement]


def compare(title: str, own: Measurement, each: Each, peers: Peers, rounds: int) -> Result:
    """nbhull and its peers in turns; as fast as the fastest of them is the aim."""
    variants = {"nbhull": settled(own), **{name: settled(each(name, peer)) for name, peer in peers.items()}}
    return Result(title, measure(variants, rounds, warmups=0), target_ratio=1.0, of_fastest=True)


def pulls(name: str, hull: Hull, peers: Peers, rounds: int) -> Result:
    """From nothing to the end of a first command in the image."""

    def with_hull() -> float:
        seconds = hull.seconds("pull", "-q", name) + hull.seconds("run", "--rm", "--network", "none", name, "true")
        hull.run("rmi", name)
        return seconds

    def with_peer(peer_name: str, peer: Peer) -> Measurement:
        def measurement() -> float:
            seconds = peer.seconds("pull", "-q", *plain(peer_name), name)
            seconds += peer.seconds("run", "--rm", *UNLIMITED, "--network", "none", name, "true")
            peer.run("rmi", "-f", name)
            return seconds

        return measurement

    return compare("image of 350 MB: pull until a command has run", with_hull, with_peer, peers, rounds)


def pushes(name: str, hull: Hull, peers: Peers, rounds: int) -> Result:
    """A layer of a megabyte on top of an image that the registry has; to commit it is not measured."""
    tags = (f"{name.rpartition(':')[0]}:{number}" for number in range(2, 1_000_000))

    def with_hull() -> float:
        target = next(tags)
        hull.run("run", "--name", "changed", "--network", "none", name, "sh", "-c", SCRIPT)
        hull.run("snapshot", "changed", "changed")
        seconds = hull.seconds("push", "-q", "changed", target)
        hull.run("rm", "changed")
        hull.run("rmi", "changed")
        return seconds

    def with_peer(peer_name: str, peer: Peer) -> Measurement:
        def measurement() -> float:
            target = next(tags)
            peer.run("run", "--name", "changed", *UNLIMITED, "--network", "none", name, "sh", "-c", SCRIPT)
            peer.run("commit", *quiet(peer_name), "changed", target)
            seconds = peer.seconds("push", "-q", *plain(peer_name), target)
            peer.run("rm", "changed")
            peer.run("rmi", target)
            return seconds

        return measurement

    return compare("image of 350 MB: push of a changed megabyte", with_hull, with_peer, peers, rounds)


def saves(name: str, hull: Hull, peers: Peers, folder: str, rounds: int) -> Result:
    """To a docker-archive, which is what Docker and Podman write unless told otherwise."""

    def with_hull() -> float:
        return hull.seconds("save", "--format", "docker-archive", "-o", f"{folder}/saved", name)

    def with_peer(peer_name: str, peer: Peer) -> Measurement:
        def measurement() -> float:
            Path(folder, peer_name).unlink(missing_ok=True)
            return peer.seconds("save", *quiet(peer_name), "-o", f"{folder}/{peer_name}", name)

        return measurement

    return compare("image of 350 MB: save", with_hull, with_peer, peers, rounds)


def loads(name: str, hull: Hull, peers: Peers, folder: str, rounds: int) -> Result:
    """The archive that Docker has saved, into a store that has nothing of it."""
    source = f"{folder}/docker"

    def with_hull() -> float:
        hull.run("rmi", name)
        os.sync()
        return hull.seconds("load", "-i", source)

    def with_peer(peer_name: str, peer: Peer) -> Measurement:
        def measurement() -> float:
            peer.run("rmi", "-f", name)
            os.sync()
            return peer.seconds("load", "-q", "-i", source)

        return measurement

    return compare("image of 350 MB: load", with_hull, with_peer, peers, rounds)


def updates(name: str, hull: Hull, peers: Peers, rounds: int) -> Result:
    """Pull of the same image with another last layer of a megabyte, where the layers below are here already."""
    tags = (f"{name.rpartition(':')[0]}:update-{number}" for number in range(1_000_000))

    def published() -> str:
        """A new one in the registry, made by a store that the pulls have nothing of."""
        origin = Hull(str(Path(hull.environment["NBHULL_HOME"]).parent / "origin"))
        target = next(tags)
        origin.run("run", "--name", "changed", "--network", "none", "large", "sh", "-c", SCRIPT)
        origin.run("snapshot", "changed", "changed")
        origin.run("push", "-q", "changed", target)
        origin.run("rm", "changed")
        origin.run("rmi", "changed")
        os.sync()
        return target

    def with_hull() -> float:
        target = published()
        seconds = hull.seconds("pull", "-q", target)
        hull.run("rmi", target)
        return seconds

    def with_peer(peer_name: str, peer: Peer) -> Measurement:
        def measurement() -> float:
            target = published()
            seconds = peer.seconds("pull", "-q", *plain(peer_name), target)
            peer.run("rmi", "-f", target)
            return seconds

        return measurement

    return compare("image of 350 MB: pull of a changed last megabyte", with_hull, with_peer, peers, rounds)


def make_layer(folder: str, origin: Hull, name: str, megabytes: int, kind: Literal["gzip", "zstd"]) -> None:
    """An image of one layer in the registry, half of it in one file, of which a quarter cannot be compressed."""
    def block() -> bytes:
        return (os.urandom(1 << 16) + bytes(3 << 16)) * 4

    root = Path(folder, "root")
    root.mkdir()
    with open(root / "large", "wb") as large:
        for _ in range(megabytes // 2):
            large.write(block())
    for number in range(megabytes // 2):
        (root / f"file-{number}").write_bytes(block())
    with subprocess.Popen(["tar", "-C", root, "-cf", "-", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run([NBHULL, "import", "-", "one"], check=True, env=origin.environment, stdin=tar.stdout,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    shutil.rmtree(root)
    with Engine(origin.environment["NBHULL_HOME"]) as engine:
        for layer in engine.store.image_layers(engine.catalog.find("one")):
            engine.catalog.layers.packed(layer, kind)
    origin.run("push", "-q", "one", name)
    origin.run("rmi", "one")


def memory(folder: str, registry: Registry) -> Iterator[Result]:
    """Of a pull of one layer, by its size and compression."""
    origin, hull = Hull(f"{folder}/origin"), Hull(f"{folder}/memory")
    for megabytes, kind in LAYERS:
        name = f"{registry.host}/bench/one:{megabytes}-{kind}"
        make_layer(folder, origin, name, megabytes, kind)

        def measurement(name: str = name) -> float:
            most = hull.peak("pull", "-q", name)
            hull.run("rmi", name)
            return most

        samples = measure({"nbhull": measurement}, rounds=2, warmups=0)
        title = f"pull of a layer of {megabytes} MB ({kind}): memory of all processes"
        yield Result(title, samples, target_mb=150, unit="MB")


def benchmarks(quick: bool) -> Iterator[Result]:
    """Beside Docker and Podman; root's only, since Docker is. Nothing in the quick run, which this alone would take
    twice as long."""
    if os.getuid() != 0 or quick:
        return
    missing = [package for program, package in NEEDS.items() if shutil.which(program) is None]
    if missing:
        print(f"skipped: registries; for them: apt-get install -y {' '.join(missing)}", flush=True)
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-images-"))
        served = Path(folder, "registry")
        served.mkdir()
        registry = Registry(served, secure=False)
        stack.callback(registry.stop)
        name = make_image(folder, registry)
        peers = {"docker": stack.enter_context(docker()), "podman": stack.enter_context(podman())}
        hull = Hull(folder)
        yield pulls(name, hull, peers, rounds=3)
        hull.run("pull", "-q", name)
        for peer_name, peer in peers.items():
            peer.run("pull", "-q", *plain(peer_name), name)
        yield pushes(name, hull, peers, rounds=3)
        yield updates(name, hull, peers, rounds=3)
        yield saves(name, hull, peers, folder, rounds=2)
        yield loads(name, hull, peers, folder, rounds=2)
        yield from memory(folder, registry)


if __name__ == "__main__":
    import report

    for result in benchmarks(quick=False):
        print("\n".join(report.rows(result.to_dict(), "root")), flush=True)
