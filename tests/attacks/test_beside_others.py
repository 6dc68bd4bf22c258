"""The same attempts made in Docker's and Podman's containers on this machine: nbhull allows nothing that they refuse.

They run the same Python from the same /usr, without a network of the host's, and are started with their defaults.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.attacks import PYTHON, Outside, Tried, program
from support.peers import docker

LINKS = ("bin", "lib", "lib64", "sbin")
FOLDERS = ("dev", "etc", "mnt", "proc", "run", "sys", "tmp", "usr")

DOCKERS_OWN = {"packet_socket", "raw_socket"}
"""what Podman refuses and Docker allows: NET_RAW is among Docker's capabilities, in a network of the container's own"""

Results = dict[str, Any]


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    """A root with nothing but links to /usr, which is bound in."""
    with tempfile.TemporaryDirectory(prefix="nbhull-peer-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for entry in FOLDERS:
            (folder / entry).mkdir()
        (folder / "tmp").chmod(0o1777)
        for entry in LINKS:
            (folder / entry).symlink_to(f"usr/{entry}")
        (folder / "attack.py").write_text(program())
        yield folder


def results(command: Sequence[str | Path], outside: Outside) -> Results:
    attack = [PYTHON, "/attack.py", *outside.arguments()]
    done = subprocess.run([*command, *attack], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Results = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def in_podman(root: Path, outside: Outside) -> Results:
    command: list[str | Path] = [
        "podman", "--log-level", "error", "--runtime", "runc", "--cgroup-manager", "cgroupfs", "run", "--rm",
        "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "-v", "/usr:/usr:ro",
        "--rootfs", root,
    ]  # fmt: skip
    return results(command, outside)


@pytest.fixture(scope="module")
def in_docker(root: Path, outside: Outside) -> Iterator[Results]:
    with docker("--storage-driver=vfs") as engine:
        packed = subprocess.run(["tar", "-C", root, "-c", "."], capture_output=True, check=True)
        subprocess.run([*engine.command, "import", "-", "peer"], input=packed.stdout, check=True, capture_output=True)
        yield results([*engine.command, "run", "--rm", "--network", "none", "-v", "/usr:/usr:ro", "peer"], outside)


def allowed(found: Results) -> set[str]:
    return {name for name, outcome in found.items() if name != "state" and outcome.startswith("ok")}


def wider(ours: Results, theirs: Results) -> list[str]:
    """Where a state shows more abilities than another one."""
    sets = [key for key in theirs["state"] if key.startswith("Cap")]
    found = [key for key in sets if int(ours["state"][key], 16) & ~int(theirs["state"][key], 16)]
    if set(ours["state"]["writable"]) - set(theirs["state"]["writable"]):
        found.append("writable")
    return found


@pytest.mark.requires("root", "dockerd")
def test_nothing_is_allowed_that_docker_refuses(tried: Tried, in_docker: Results) -> None:
    ours = tried("alone")
    assert allowed(ours) - allowed(in_docker) == set()
    assert wider(ours, in_docker) == []
    # The comparison can fail: there is much that Docker allows and nbhull does not.
    assert {"read /proc/1/environ", "make_the_node_of_null"} <= allowed(in_docker) - allowed(ours)
    assert "clone_new_user_namespace" in allowed(tried("unfiltered")) - allowed(in_docker)


@pytest.mark.requires("root", "podman", "runc")
def test_nothing_is_allowed_that_podman_refuses(tried: Tried, in_podman: Results) -> None:
    ours = tried("alone")
    assert allowed(ours) - allowed(in_podman) == DOCKERS_OWN
    assert set(ours["state"]["writable"]) <= set(in_podman["state"]["writable"])


def test_more_is_seen_where_the_defences_are_down(tried: Tried) -> None:
    """What the comparison goes by: each set of settings allows all that a stricter one does."""
    usual = allowed(tried("alone"))
    assert usual < allowed(tried("privileged"))
    assert os.path.exists(PYTHON)
