"""kill -9 at every step of a snapshot and a reset: the store stays whole, the container is on one side or the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import HullError
from nbhull.runtime.launcher import wire
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from nbhull.runtime.running import holds
from support.boxes import Box
from support.waiting import eventually

VICTIM = """
import os, signal, sys
from nbhull.runtime.engine import Engine
from nbhull.runtime.launcher import client
from nbhull.runtime.snapshots import generations, journal, resetting
from nbhull.runtime.store import Store

act, step, when, home, box = sys.argv[1:]

def die(owner, name):
    method = getattr(owner, name)
    def mortal(*args, **kwargs):
        if name == "request" and args[1] != step.partition(":")[2]:
            return method(*args, **kwargs)
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return method(*args, **kwargs)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, mortal)

owners = {"make": generations, "note": journal, "finish": journal, "add_image": Store, "update_container": Store,
          "request": client.Client, "rename": os, "start": resetting, "remove_work": generations}
with Engine(home) as engine:
    name = step.partition(":")[0]
    die(owners[name], name)
    getattr(engine, act)(box, *sys.argv[6:]) if act == "snapshot" else engine.reset(box, "base")
    print("not reached")
"""
STEPS = {
    "snapshot": ("make", "request:generation", "request:move", "note", "add_image", "update_container", "finish",
                 "rename", "remove_work"),
    "reset": ("request:kill", "make", "note", "add_image", "update_container", "finish", "start"),
}  # fmt: skip


@pytest.mark.parametrize("act", STEPS)
def test_the_engine_is_killed(act: str, engine: Engine) -> None:
    """The container's launcher belongs to another engine, and lives on."""
    box = Box(engine, ContainerSpec(name="box"))
    box.out("echo base > /root/base")
    engine.snapshot("box", "base")
    with engine.spawn("box", ProcessSpec(("sh", "-c", "cd /root; while :; do echo alive > beat; done"))):
        for number, step in enumerate(STEPS[act]):
            for when in ("before", "after"):
                revive(engine, box)
                word = f"{number}-{when}"
                box.out(f"echo {word} > /root/word")
                victim = subprocess.run(
                    [sys.executable, "-c", VICTIM, act, step, when, engine.store.home, "box"],
                    capture_output=True, text=True, timeout=60, check=False,
                )  # fmt: skip
                assert victim.returncode == -signal.SIGKILL, (step, when, victim)
                check(engine, box, word, {"snapshot": [word], "reset": [word, ""]}[act], (step, when))
    whole(engine)


def revive(engine: Engine, box: Box) -> None:
    """Start the container if it was ended, which shows as soon as its launcher has noticed who is gone."""
    if ended(engine, box):
        eventually(lambda: not holds(engine.row("box")["launcher"], box.id), "the container is seen to have ended")
        engine.start("box")


def ended(engine: Engine, box: Box) -> bool:
    """Whether no process can be started in the container."""
    try:
        return box.run("true").returncode != 0
    except HullError:
        return True


def check(engine: Engine, box: Box, word: str, expected: list[str], where: tuple[str, str]) -> None:
    """The container can go on, has what it must have, and can be snapshotted, reset and brought back."""
    revive(engine, box)
    found = box.run("cat /root/word").stdout.strip()
    assert found in expected, where
    assert box.out("cat /root/base") == "base", where
    image = engine.snapshot("box")
    box.out("echo later > /root/word")
    engine.reset("box", image.id)
    assert box.run("cat /root/word").stdout.strip() == found, where
    if found != word:
        # what a reset had thrown away was kept
        kept = [image for image in engine.images() if image.auto]
        words = {Box(engine, ContainerSpec(image=one.id)).run("cat /root/word").stdout.strip() for one in kept[:3]}
        assert word in words, where


def whole(engine: Engine) -> None:
    """Every image can be run, and nothing lies about that no row names."""
    for image in engine.images():
        if image.id != "host":
            assert Box(engine, ContainerSpec(image=image.id)).out("cat /root/base") == "base"
    assert set(os.listdir(engine.store.path("layers"))) == engine.store.needed_layers()
    assert os.listdir(engine.store.path("journal")) == []


@pytest.mark.parametrize("victim", ["launcher", "holder"])
def test_the_launcher_is_killed_while_it_copies(victim: str, store: Path) -> None:
    with Engine(store) as engine:
        box = Box(engine, ContainerSpec(name="box"))
        box.out("echo base > /root/base; echo 1 > /root/file")
        launcher = engine.launcher()
        holder = int(launcher.request("usage", container=box.id) and children(launcher.pid)[0])
        with launcher.open("freeze", container=box.id) as frozen:
            wire.receive_answer(frozen)
            os.kill(launcher.pid if victim == "launcher" else holder, signal.SIGKILL)
        eventually(lambda: not holds(engine.row("box")["launcher"], box.id), "the container has ended")
        engine.start("box")
        assert box.out("cat /root/file") == "1"
        engine.snapshot("box", "one")
        engine.remove("box", force=True)


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
