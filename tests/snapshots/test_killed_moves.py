"""kill -9 of who moves a container, at every step: it ends or goes on, its files are whole, and snapshots stay as they
are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import contextlib, mmap, os, signal, sys, time
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import ContainerLost, LauncherLost
from nbhull.runtime.launcher.sweeping import sweep
from nbhull.runtime.launcher import carrying, census, move, standstill
from nbhull.runtime.linux import mount
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from support.boxes import Box
from support.waiting import eventually

fault = mmap.mmap(-1, 4096)  # all forks of this process have it

def plan(text):
    fault[:] = text.encode().ljust(4096, b"\\0")

def strike(step):
    wanted, _, rest = fault[:].rstrip(b"\\0").decode().partition(" ")
    if wanted == step:
        victim, launcher = rest.split()
        plan({"mover": f"kill {os.getpid()}", "holder": f"kill {os.getppid()}", "launcher": f"kill {launcher}"}[victim])
        signal.pause()  # it ends, by itself or with the others

def make_mortal(owner, name):
    method, calls = getattr(owner, name), []
    def act(*args, **kwargs):
        calls.append(name)
        strike(f"{name}:{len(calls)}")
        return method(*args, **kwargs)
    setattr(owner, name, act)

for owner, name in [
    (standstill.Standstill, "catch"), (standstill.Standstill, "release"), (census.Census, "take"),
    (carrying.Carrying, "carry"), (os, "link"), (move.Move, "prepare_hands"), (move.Hand, "rehearse"),
    (move.Move, "exchange"), (mount, "pivot_root"), (carrying.Carrying, "settle"), (carrying.Carrying, "end"),
    (move.Move, "hand_over"), (move.Hand, "replace"), (move.Hand, "enter"), (move.Move, "seal"),
    (move.Hand, "finish"),
]:
    make_mortal(owner, name)
moved = mount.move_mount
def move_mount(*args):
    # those of a move have descriptors; the others make a mount in the launcher's own namespace
    if args[2] in ("the container's root", "/proc", "/etc"):
        strike(f"move_mount:{args[2].replace(' ', '_')}")
    return moved(*args)
mount.move_mount = move_mount

WRITER = '''
cd /srv/w; exec 3>>log; i=$(wc -l < log)
while :; do i=$((i+1)); echo $i >&3; done
'''
ours = os.getpid()
killer = os.fork()
while killer == 0 and os.getppid() == ours:
    # since who moves has not the rights to end a launcher of root's
    word, _, number = fault[:].rstrip(b"\\0").partition(b" ")
    if word == b"kill":
        plan("")
        os.kill(int(number), signal.SIGKILL)
    time.sleep(0.001)
if killer == 0:
    os._exit(0)
home, *faults = sys.argv[1:]
with Engine(home, fork=True) as engine:
    box = Box(engine, ContainerSpec(name="box"))
    box.out("mkdir -p /srv/w; echo 1 > /srv/w/log; echo 2 >> /srv/w/log")
    taken = []
    for planned in faults:
        step, _, victim = planned.partition(" ")
        before = int(box.out("wc -l < /srv/w/log"))
        with engine.spawn("box", ProcessSpec(("sh", "-c", WRITER))):
            eventually(lambda: int(box.out("wc -l < /srv/w/log")) > before, "the writer writes")
            plan(f"{planned} {engine.launcher().pid}")
            images = len(engine.images())
            try:
                image = engine.snapshot("box")
            except LauncherLost as error:
                assert isinstance(error, ContainerLost) == (victim == "mover"), (planned, error)
            else:
                raise AssertionError((planned, image.road, image.reason))
        assert fault[:1] == b"\\0", f"{planned} was not reached"
        eventually(lambda: engine.container("box").state != "running", "the container is seen to have ended")
        if victim != "mover":
            sweep(engine.row("box")["launcher"])  # as the next launcher does
        assert len(engine.images()) == images, planned
        engine.start("box")
        lines = box.out("cat /srv/w/log").split("\\n")
        if lines[-1] != str(len(lines)):  # the writer was killed in its last line
            box.out("sed -i '$d' /srv/w/log")
            del lines[-1]
        assert lines == [str(number) for number in range(1, len(lines) + 1)] and len(lines) >= before, planned
        assert box.out("ls -A /srv/w") == "log", planned
        with engine.spawn("box", ProcessSpec(("sh", "-c", WRITER))):
            eventually(lambda: int(box.out("wc -l < /srv/w/log")) > len(lines), "the writer writes")
            image = engine.snapshot("box")
            assert image.road == "moved", (planned, image.reason)
            size = int(box.out("wc -l < /srv/w/log"))
            eventually(lambda: int(box.out("wc -l < /srv/w/log")) > size, "the writer goes on")
            if step in ("link:1", "pivot_root:1", "settle:1", "end:1"):
                there = Box(engine, ContainerSpec(image=image.id))
                taken.append((image.id, planned, there.out("sha256sum < /srv/w/log")))
        box.out("rm /srv/w/log; echo 1 > /srv/w/log; echo 2 >> /srv/w/log")
        assert "carried" not in os.listdir(engine.store.path("containers", box.id)), planned
    for image, planned, told in taken:
        assert Box(engine, ContainerSpec(image=image)).out("sha256sum < /srv/w/log") == told, planned
"""
STEPS = (
    "catch:1", "take:1", "carry:1", "link:1", "prepare_hands:1", "rehearse:1", "exchange:1",
    "move_mount:the container's root", "move_mount:/etc", "move_mount:/proc", "pivot_root:1", "settle:1", "end:1",
    "hand_over:1", "replace:1", "enter:1", "seal:1", "finish:1", "release:1",
)  # fmt: skip
OTHERS = ("link:1", "settle:1", "enter:1")


@pytest.mark.parametrize("victim", ["mover", "holder", "launcher"])
def test_who_moves_is_killed(victim: str, store: Path) -> None:
    faults = [f"{step.replace(' ', '_')} {victim}" for step in (STEPS if victim == "mover" else OTHERS)]
    tests = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, store, *faults],
        env={"PATH": "/usr/bin:/bin", "HOME": str(store), "PYTHONPATH": str(tests)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
