"""Builds: done again unchanged, with a small and with a large context, and after a change of the last line."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from containers import NBHULL
from harness import Measurement, Result, measure

PEERS = {"buildah": "buildah", "busybox": "busybox-static", "podman": "podman"}
"""what nbhull is compared with, and what the image is made of, with the Debian packages"""
FILES, SIZE = 500, 100 << 10
"""how many files a large context has, and bytes of each: 50 MB"""
TEXT = """\
FROM scratch
COPY root/ /
RUN ["/bin/busybox", "touch", "/one"]
{copy}RUN ["/bin/busybox", "touch", "/{last}"]
CMD ["/bin/busybox", "sh"]
"""


def make_context(folder: Path, *, large: bool) -> None:
    """A context on a root file system of busybox alone."""
    (folder / "root/bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", folder / "root/bin/busybox")
    for number in range(FILES if large else 0):
        path = folder / f"data/{number % 20}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SIZE))
    write(folder, "two", large=large)


def write(folder: Path, last: str, *, large: bool) -> None:
    """The Containerfile, with a last line of its own."""
    (folder / "Containerfile").write_text(TEXT.format(copy="COPY data /data\n" if large else "", last=last))


def commands(scratch: Path) -> dict[str, Sequence[str | Path]]:
    """How each builder is called, without the context."""
    found: dict[str, Sequence[str | Path]] = {"nbhull": (NBHULL, "build", "-q", "-t", "bench")}
    store = ("--root", scratch / "storage", "--runroot", scratch / "run")
    if shutil.which("buildah"):
        found["buildah"] = ("buildah", *store, "bud", "--isolation", "chroot", "--layers", "-q", "-t", "bench")
    if shutil.which("podman") and os.getuid() == 0:
        options = ("--isolation", "chroot", "--layers", "-q", "-t", "bench")
        found["podman"] = ("podman", *store, "--cgroup-manager", "cgroupfs", "build", *options)
    return found


def build(command: Sequence[str | Path], folder: Path) -> float:
    """One build; seconds. Raises CalledProcessError if it fails."""
    started = time.perf_counter()
    subprocess.run([*command, folder], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def unchanged(command: Sequence[str | Path], folder: Path) -> Measurement:
    """Nothing has changed since the last build."""
    return lambda: build(command, folder)


def changed(command: Sequence[str | Path], folder: Path) -> Measurement:
    """The last RUN is another one each time."""

    def measurement() -> float:
        write(folder, f"file-{os.urandom(4).hex()}", large=False)
        return build(command, folder)

    return measurement


def benchmarks(quick: bool) -> Iterator[Result]:
    """All of them; targets are against buildah."""
    if shutil.which("busybox") is None:
        return
    rounds = 5 if quick else 30
    with tempfile.TemporaryDirectory(prefix="bench-builds-", ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        small, large = scratch / "small", scratch / "large"
        make_context(small, large=False)
        make_context(large, large=True)
        every = commands(scratch)
        for command in every.values():
            for folder in (small, large):
                build(command, folder)
        time.sleep(2.5)  # files that were just written are hashed again, since their times do not tell yet
        for command in every.values():
            build(command, large)
        missing = {} if "buildah" in every else {"buildah": "not installed"}
        for title, target, make, folder in (
            ("build: unchanged", 1.0, unchanged, small),
            ("build: unchanged, 50 MB of context", 0.5, unchanged, large),
            ("build: last line changed", 1.0, changed, small),
        ):
            samples = measure({n: make(command, folder) for n, command in every.items()}, rounds)
            yield Result(title, samples, target_ratio=target, unavailable=missing)
        for tool in ("buildah", "podman"):
            if tool in every:  # its storage has mounts and files of subordinate ids
                subprocess.run([*every[tool][:5], "rmi", "-af"], check=False, stdout=subprocess.DEVNULL)
