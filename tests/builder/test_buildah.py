"""The same contexts built by buildah: the same files, owners, modes and content, the same configuration."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.images import archives
from nbhull.runtime.verbs.building import build
from nbhull.runtime.verbs.parser import parse

pytestmark = pytest.mark.requires("buildah", "busybox", "root")

CONTEXTS = Path(__file__).with_name("contexts")
NAMES = (
    "args-given",
    "config",
    "config-resets",
    "copy-chown",
    "copy-folder",
    "copy-workdir",
    "deletes",
    "names-with-spaces",
    "stage-chain",
    "user",
)
"""some of those that buildah of Debian 12 (1.28) can build: it knows no heredocs, and not all flags"""
STORAGE = ("--storage-driver", "vfs")


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory, busybox_tar: bytes) -> Iterator[list[str]]:
    """buildah with a storage of its own, which has the image `base`."""
    folder = tmp_path_factory.mktemp("buildah")
    command = ["buildah", "--root", str(folder / "root"), "--runroot", str(folder / "run"), *STORAGE]
    (folder / "base.tar").write_bytes(busybox_tar)
    (folder / "Containerfile").write_text('FROM scratch\nADD base.tar /\nCMD ["/bin/sh"]\n')
    subprocess.run([*command, "bud", "-q", "-t", "base", folder], check=True, stdout=subprocess.DEVNULL)
    yield command
    subprocess.run([*command, "rmi", "-af"], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(folder)


def listing(root: Path) -> dict[str, tuple[Any, ...]]:
    """Every file below a folder: kind, mode, owner, content."""
    found: dict[str, tuple[Any, ...]] = {}
    for folder, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(folder, name)
            status = path.lstat()
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            mode = 0o777 if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
            found[str(path.relative_to(root))] = (
                stat.S_IFMT(status.st_mode),
                mode,
                status.st_uid,
                status.st_gid,
                content,
            )
    return found


OWN = ("proc", "sys", "dev", "run", "etc/hosts", "etc/resolv.conf", "etc/mtab", "etc/hostname", "run/secrets")
"""what a builder itself leaves as places to mount on"""


def without_own(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return {
        path: facts
        for path, facts in found.items()
        if not any(path == own or path.startswith(f"{own}/") for own in OWN)
    }


@pytest.mark.parametrize("name", NAMES)
def test_same_as_buildah(
    name: str, buildah: list[str], base_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "context"
    shutil.copytree(CONTEXTS / name, folder, symlinks=True)
    monkeypatch.chdir(folder)
    options = shlex.split((folder / "options").read_text()) if (folder / "options").exists() else []

    _, values = parse(["build", "--progress", "plain", "-t", "compared", *options, str(folder)])
    build(base_engine, values)
    archives.save(base_engine.catalog, ["compared"], str(tmp_path / "ours.tar"))
    done = subprocess.run(
        [*buildah, "bud", "-q", "--isolation", "chroot", "--layers=false", "-t", "compared", *options, folder],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done
    ours = subprocess.run(
        [*buildah, "from", "-q", f"oci-archive:{tmp_path}/ours.tar"], capture_output=True, text=True, check=True
    ).stdout.strip()
    theirs = subprocess.run(
        [*buildah, "from", "-q", "--pull=never", "compared"], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        trees = [
            listing(
                Path(
                    subprocess.run([*buildah, "mount", one], capture_output=True, text=True, check=True).stdout.strip()
                )
            )
            for one in (ours, theirs)
        ]
        assert without_own(trees[0]) == without_own(trees[1])
        configs = [
            json.loads(subprocess.run([*buildah, "inspect", one], capture_output=True, text=True, check=True).stdout)[
                "OCIv1"
            ]["config"]
            for one in (ours, theirs)
        ]
        for key in ("Env", "Entrypoint", "Cmd", "User", "WorkingDir", "ExposedPorts", "Volumes", "StopSignal"):
            one, other = (config.get(key) or None for config in configs)
            if key == "Env":
                one, other = (
                    sorted(v for v in value or [] if not v.startswith("PATH=/usr/local")) for value in (one, other)
                )
            assert one == other, key
    finally:
        subprocess.run([*buildah, "rm", ours, theirs], check=True, stdout=subprocess.DEVNULL)
