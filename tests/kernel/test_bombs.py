"""Bombs in one kernel: its limit stops them, and another kernel goes on. (How fast, benchmarks/bombs.py measures.)"""

from __future__ import annotations

import pytest

from support.jupyter import PATIENCE, Place, Start, install_spec, value
from support.waiting import eventually

FORKS = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
MEMORY = "import subprocess, sys\nwhile True: subprocess.run([sys.executable, '-c', 'bytearray(1 << 32)'])"
DISK = (  # not as fast as it can: what a disk has to write stands before what the neighbour has it sync
    "import time\nwhile True:\n    try:\n        with open('/root/fill', 'ab', buffering=0) as file:\n"
    "            while True: file.write(bytes(1 << 18)); time.sleep(0.002)\n    except OSError: time.sleep(0.01)"
)
FILES = "number = 0\nwhile True:\n    number += 1\n    open(f'/root/{number}', 'w').close()"


def goes_off(start: Start, spec: str, bomb: str, event: str) -> None:
    """A bomb is stopped by the limit that counts as `event`, and a kernel beside it answers."""
    _, neighbour = start()
    manager, client = start(spec)
    kernel = manager.provisioner.contained
    container = kernel.container
    assert container is not None
    client.execute(bomb)
    eventually(lambda: kernel.engine.events(container.id).get(event), f"{event} is counted", timeout=PATIENCE)
    assert value(neighbour, "6 * 7") == "42"
    manager.shutdown_kernel(now=True)
    assert value(neighbour, "6 * 7") == "42"


@pytest.mark.requires("cgroup-memory", "cgroup-pids", "cgroup-cpu")
@pytest.mark.parametrize(("bomb", "event"), [(FORKS, "pids_hits"), (MEMORY, "oom_kills")])
def test_a_bomb_is_stopped_by_a_cgroup(start: Start, place: Place, bomb: str, event: str) -> None:
    spec = install_spec(f"bombed-{event.replace('_', '-')}", place.prefix, memory="256m", cpus=1, pids=100)
    goes_off(start, spec, bomb, event)


@pytest.mark.nosubuid
@pytest.mark.parametrize("bomb", [DISK, FILES])
def test_a_bomb_is_stopped_by_a_quota(start: Start, place: Place, bomb: str) -> None:
    name = "filled" if bomb == DISK else "littered"
    goes_off(start, install_spec(name, place.prefix, disk="32m", inodes=1000), bomb, "disk_hits")
