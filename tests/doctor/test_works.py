"""What doctor finds where the machine refuses nothing, as whoever runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def doctor(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nbhull.runtime.cli", "doctor", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def findings() -> dict[str, Any]:
    return {finding["name"]: finding for finding in json.loads(doctor("--json").stdout)}


@pytest.mark.nosubuid
def test_containers_can_run_here_and_nothing_is_left_behind(store: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    done = doctor()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\ncontainers can run here\n")
    assert "✗" not in done.stdout
    assert not store.exists()
    assert not list(store.parent.iterdir())
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.mark.nosubuid
def test_what_containers_are_made_of_works(store: Path) -> None:
    found = findings()
    for name in (
        "linux",
        "user namespaces",
        "store",
        "overlay",
        "idmapped mounts",
        "seccomp",
        "runtime folder",
        "python",
    ):
        assert (found[name]["works"], found[name]["mend"]) == ("yes", ""), found[name]


@pytest.mark.requires("subuid")
def test_containers_have_all_ids(store: Path) -> None:
    found = findings()["user ids"]
    assert found["works"] == "yes"
    assert found["seen"].startswith(("65536 ids", "65537 ids"))


@pytest.mark.nosubuid
@pytest.mark.requires("nosubuid")
def test_a_user_without_subordinate_ids_is_told_how_to_get_them(store: Path) -> None:
    found = findings()["user ids"]
    assert found["works"] == "partly"
    assert found["mend"].startswith("sudo usermod --add-subuids ")
    assert found["mend"].endswith(Path("~").expanduser().name)


@pytest.mark.requires("cgroup-memory", "cgroup-cpu", "cgroup-pids")
def test_limits_can_be_set(store: Path) -> None:
    found = findings()["cgroups"]
    assert found["works"] == "yes"
    have = found["seen"].partition("limits of ")[2].partition(";")[0]
    assert {"memory", "cpus", "pids"} <= set(have.split(", "))


@pytest.mark.requires("root")
def test_root_writes_maps_itself(store: Path) -> None:
    assert os.getuid() == 0
    assert findings()["user ids"]["seen"].endswith("written directly")
