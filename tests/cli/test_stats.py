"""`stats`: what containers use, against their limits."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.limits import Limits
from nbhull.runtime.model import ContainerSpec, ProcessSpec


def stats(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nbhull.runtime.cli", "stats", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nothing_runs(engine: Engine) -> None:
    assert stats().stdout.split() == "CONTAINER ID NAME CPU MEMORY SWAP PROCESSES DISK READ / WRITTEN".split()
    assert json.loads(stats("--json").stdout) == []
    container = engine.create(ContainerSpec())
    assert "is not running" in stats(container.id).stderr


@pytest.mark.requires("cgroup-memory", "cgroup-cpu", "cgroup-pids")
def test_what_a_busy_container_uses(engine: Engine) -> None:
    limits = Limits(memory=256 << 20, cpus=1, pids=50, disk=1 << 30)
    box = engine.start(engine.create(ContainerSpec(name="busy", limits=limits)).id)
    with engine.spawn(box.id, ProcessSpec(("sh", "-c", "while :; do :; done"))):
        (item,) = json.loads(stats("--json", "busy").stdout)
        assert item["cpu_percent"] > 10
        assert 0 < item["memory"] < item["memory_limit"] == 256 << 20
        assert 2 <= item["pids"] <= item["pids_limit"] == 50
        assert item["disk_limit"] == 1 << 30
        shown = stats("--no-stream").stdout
        assert "busy" in shown
        assert "of 256 MiB" in shown
