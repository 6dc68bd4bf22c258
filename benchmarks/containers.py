"""Containers without a kernel: ready in an engine that runs, and one command in one new container."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import Measurement, Result, measure
from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec

TRUE = "/usr/bin/true"
PEERS = {"runc": "runc", "bwrap": "bubblewrap", "podman": "podman"}
"""what nbhull is compared with, and the Debian packages"""
NBHULL = Path(sys.executable).with_name("nbhull")


def ready(quick: bool) -> Result:
    """`Engine.create` and `Engine.start`, the launcher warm."""
    with Engine() as engine:

        def measurement() -> float:
            started = time.perf_counter()
            container = engine.create(ContainerSpec())
            engine.start(container.id)
            seconds = time.perf_counter() - started
            engine.remove(container.id, force=True)
            return seconds

        samples = measure({"nbhull": measurement}, rounds=50 if quick else 300, warmups=5)
    return Result("engine: container created and started", samples, target_ms=6.0)


def command(argv: Sequence[str | Path]) -> Measurement:
    """From fork to the end of a command; raises CalledProcessError if it fails."""

    def measurement() -> float:
        started = time.perf_counter()
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return time.perf_counter() - started

    return measurement


def fork_exec() -> float:
    """The floor: nothing but a new process."""
    started = time.perf_counter()
    pid = os.posix_spawn(TRUE, [TRUE], os.environ)
    os.waitpid(pid, 0)
    return time.perf_counter() - started


BWRAP = (
    "bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", TRUE,
)


SYSTEM = ("bin", "etc", "lib", "lib64", "sbin", "usr")
"""what of the machine's root is needed to run its programs"""


@contextlib.contextmanager
def machine_root() -> Iterator[tuple[Path, list[Path]]]:
    """A folder to be the root of runc's and podman's containers, and the folders to bind onto it.

    Root binds the machine's root there. Nobody else can, so they get the same system folder by folder.

    It is bound read-only, and nothing is deleted recursively: where unmounting fails, or never comes to pass, a
    recursive deletion would take the machine's own files.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-root-"))
    folder.chmod(0o755)
    if os.getuid() == 0:
        subprocess.run(["mount", "-o", "bind,ro", "/", folder], check=True)
        try:
            yield folder, []
        finally:
            subprocess.run(["umount", folder], check=True)
            folder.rmdir()
        return
    binds, links = [], []
    for path in (Path("/") / name for name in SYSTEM):
        if path.is_symlink():
            (folder / path.name).symlink_to(path.readlink())
            links.append(path.name)
        elif path.is_dir():
            binds.append(path)
    folders = [*(path.name for path in binds), "dev", "proc", "sys"]
    for name in folders:
        (folder / name).mkdir()
    try:
        yield folder, binds
    finally:
        for name in links:
            (folder / name).unlink()
        for name in folders:
            (folder / name).rmdir()
        folder.rmdir()


def runc_config(bundle: Path, rootfs: Path, binds: Sequence[Path]) -> dict[str, Any]:
    """runc's own example, with the namespaces that nbhull uses, this root, and no terminal."""
    rootless = ["--rootless"] if os.getuid() else []
    subprocess.run(["runc", "spec", *rootless], cwd=bundle, check=True)
    config: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    config["process"].update(terminal=False, args=[TRUE], cwd="/")
    config["root"] = {"path": str(rootfs), "readonly": True}
    # Without a network namespace of one's own there is no new sysfs, so the machine's is bound.
    config["mounts"] = [
        mount for mount in config["mounts"] if not mount["destination"].startswith("/sys")
    ] + [
        {"destination": str(path), "type": "none", "source": str(path), "options": ["rbind", "nosuid", "ro"]}
        for path in (Path("/sys"), *binds)
    ]
    kinds = ("pid", "ipc", "uts", "mount", "cgroup", "user")
    config["linux"]["namespaces"] = [{"type": kind} for kind in kinds]
    if os.getuid() == 0:
        whole = [{"containerID": 0, "hostID": 0, "size": 1 << 16}]
        config["linux"].update(uidMappings=whole, gidMappings=whole)
    return config


def podman(rootfs: Path, binds: Sequence[Path]) -> list[str | Path]:
    """podman's command line; its own limits may be higher than what a machine lets it set."""
    return [
        "podman", "--log-level", "error", "--runtime", "runc", "--cgroup-manager", "cgroupfs",
        "run", "--rm", "--network", "host", "--read-only", "--read-only-tmpfs=false",
        "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
        *(f"--volume={path}:{path}:ro" for path in binds), "--rootfs", rootfs, TRUE,
    ]


@contextlib.contextmanager
def peers() -> Iterator[dict[str, Measurement]]:
    """What else runs one command in one new container here; each may turn out not to work."""
    with machine_root() as (root, binds), tempfile.TemporaryDirectory(prefix="bench-bundle-") as name:
        bundle = Path(name)
        bundle.chmod(0o755)
        found: dict[str, Measurement] = {}
        if shutil.which("runc"):
            (bundle / "config.json").write_text(json.dumps(runc_config(bundle, root, binds)))
            run: list[str | Path] = ["run", "--bundle", bundle, f"bench-{os.getpid()}"]
            found["runc"] = command(["runc", "--root", bundle / "state", *run])
        if shutil.which("bwrap"):
            found["bwrap"] = command(BWRAP)
        if shutil.which("podman"):
            found["podman"] = command(podman(root, binds))
        yield found
        if "podman" in found and os.getuid() != 0:
            # It leaves a process behind that holds its user namespace.
            subprocess.run(["podman", "system", "migrate"], check=True)


def one_shot(quick: bool) -> Result:
    """One command in one new container, from nothing to nothing."""
    variants = {"nbhull": command([NBHULL, "run", "--rm", "host", TRUE])}
    unavailable = {}
    with peers() as others:
        for name, measurement in others.items():
            try:
                measurement()
                variants[name] = measurement
            except subprocess.CalledProcessError as error:
                unavailable[name] = f"exit status {error.returncode} on this machine"
        for name in set(PEERS) - set(others):
            unavailable[name] = "not installed"
        if os.getuid() == 0:  # whose containers have a network of their own, which runc's here have not
            variants["nbhull --network host"] = command([NBHULL, "run", "--rm", "--network", "host", "host", TRUE])
        variants["fork+exec"] = fork_exec
        samples = measure(variants, rounds=10 if quick else 50, warmups=2)
    # The target is to be faster than runc, which comes second where it works.
    target = 1.0 if "runc" in samples else None
    name = "command: run `true` in a new container"
    return Result(name, samples, target_ratio=target, unavailable=unavailable)


def benchmarks(quick: bool) -> Iterator[Result]:
    """Container ready, and one command in a new container."""
    yield ready(quick)
    yield one_shot(quick)
