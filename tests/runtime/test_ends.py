"""Whatever is killed, nothing of it is left, and the store is whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.launcher import wire
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from nbhull.runtime.running import is_running, sweep_ended
from support.boxes import Box
from support.leaks import traces
from support.waiting import eventually

pytestmark = pytest.mark.nosubuid

SERVER = """
import sys, time
from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec, ProcessSpec
engine = Engine(sys.argv[1], fork=sys.argv[2] == "fork")
for number in range(3):
    container = engine.start(engine.create(ContainerSpec(name=f"c{number}")).id)
    engine.spawn(container.id, ProcessSpec(("sh", "-c", "sleep 1000 & exec sleep 1000")))
print(engine.launcher().pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("way", ["execute", "fork"])
def test_a_killed_server_leaves_nothing(store: Path, way: str) -> None:
    before = traces()
    with subprocess.Popen([sys.executable, "-c", SERVER, store, way], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        assert len(traces() - before) > 5
        server.kill()
    eventually(lambda: not traces() - before, "all that the server started is gone")
    with Engine(store) as engine:
        assert [c.state for c in engine.containers()] == ["stopped"] * 3
        assert engine.start("c1").state == "running"
        for number in range(3):
            engine.remove(f"c{number}", force=True)


def test_a_killed_launcher_leaves_nothing_that_the_next_does_not_clean_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(engine, ContainerSpec(name="lost"))
    process = engine.spawn("lost", ProcessSpec(("sleep", "1000")))
    box.out("echo kept > /root/file")
    launcher = engine.launcher()
    os.kill(launcher.pid, signal.SIGKILL)
    assert process.wait(10) == -9
    eventually(lambda: not is_running(launcher.folder), "the launcher is gone")
    assert engine.container("lost").state == "stopped"
    assert engine.start("lost").state == "running"
    assert box.out("cat /root/file") == "kept"
    monkeypatch.setattr("nbhull.runtime.running.YOUNG", 0.0)
    sweep_ended()
    assert not os.path.exists(launcher.folder)


def test_a_killed_holder_ends_its_launcher(engine: Engine) -> None:
    Box(engine, ContainerSpec(name="held"))
    launcher = engine.launcher()
    os.kill(children(launcher.pid)[0], signal.SIGKILL)
    eventually(lambda: not os.path.exists(launcher.folder), "the launcher has cleaned up")
    assert engine.container("held").state == "stopped"
    assert engine.start("held").state == "running"


def test_a_killed_init_ends_its_container_alone(engine: Engine) -> None:
    Box(engine, ContainerSpec(name="one"))
    two = Box(engine, ContainerSpec(name="two"))
    process = engine.spawn("one", ProcessSpec(("sleep", "1000")))
    holder = children(engine.launcher().pid)[0]
    os.kill(children(holder)[0], signal.SIGKILL)  # the oldest init
    assert process.wait(10) == -9
    eventually(lambda: engine.container("one").state == "stopped", "the container has ended")
    assert two.out("echo alive") == "alive"
    assert engine.start("one").state == "running"


def children(pid: int) -> list[int]:
    """The children of a single-threaded process, oldest first."""
    return sorted(int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_a_client_that_dies_does_not_leave_a_container_frozen(engine: Engine) -> None:
    box = Box(engine, ContainerSpec())
    channel = engine.launcher().open("freeze", container=box.id)
    wire.receive_answer(channel)
    channel.close()  # as the end of its process does
    process = engine.spawn(box.id, ProcessSpec(("true",)))
    assert process.wait(10) == 0


def test_after_close_nothing_runs(store: Path) -> None:
    engine = Engine(store)
    box = Box(engine, ContainerSpec())
    process = engine.spawn(box.id, ProcessSpec(("sleep", "1000")))
    launcher = engine.launcher()
    pid, groups = launcher.pid, Path(launcher.folder, "cgroups").read_text().split()
    engine.close()
    assert process.wait(10) == -9
    assert not os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(launcher.folder)
    assert not any(os.path.exists(group) for group in groups)
