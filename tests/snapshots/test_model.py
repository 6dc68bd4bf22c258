"""Snapshots, resets, undos, branches, deletions and prunes in any order, against a plain copy of the files.

Each change is made twice by one shell script: in the container, and in a plain folder of the machine, of which
snapshots are copies.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Conflict, NotFound
from nbhull.runtime.images import upkeep
from nbhull.runtime.model import ContainerSpec
from nbhull.runtime.snapshots import chains, keeping
from support.boxes import Box
from support.waiting import eventually

PLACE = "/srv/t"
PATHS = ("a", "b", "a/x", "a/y", "b/x", "a/d", "a/d/x", "b/d", "b/d/y")
CHANGES = {
    "write": "rm -rf {0}; echo {2} > {0}",
    "append": "[ ! -d {0} ] && [ ! -L {0} ] && [ ! -p {0} ] && echo {2} >> {0}",
    "folder": "mkdir {0}",
    "deep": "mkdir -p {0}/d/d; echo {2} > {0}/d/d/x",
    "delete": "rm -rf {0}",
    "again": "[ -d {0} ] && rm -rf {0} && mkdir {0} && echo {2} > {0}/x",
    "move": "[ ! -e {1} ] && mv {0} {1}",
    "replace": "[ -f {0} ] && [ ! -d {1} ] && mv -f {0} {1}",
    "copy": "[ -e {0} ] && [ ! -e {1} ] && cp -a {0} {1}",
    "link": "rm -rf {0}; ln -s {1} {0}",
    "fifo": "rm -rf {0}; mkfifo {0}",
    "mode": "[ -e {0} ] && [ ! -L {0} ] && chmod 7{3}{3} {0}",
}
"""by name: a line of shell on two paths, a word, and a digit"""
LOOK = r"""
find . -mindepth 1 -printf '%P|%y|%m|%l\n' | sort; find . -type f -exec sha256sum {} + | sort -k2
"""
TIMES = r"find . -mindepth 1 -printf '%P|%T@\n' | sort"
change = st.tuples(
    st.sampled_from(sorted(CHANGES)), st.sampled_from(PATHS), st.sampled_from(PATHS), st.sampled_from("057")
)
choice = st.integers(0, 99)
LONGEST_ROW = 4
"""layers of a merged folder, automatic snapshots: few, so that all that happens to many happens"""


class State:
    """What a snapshot has."""

    def __init__(self, plain: Path, times: str) -> None:
        self.plain = plain
        self.times = times


class Model(RuleBasedStateMachine):
    """One container, the folder that it must be like, and what it was before."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        super().__init__()
        self.engine = engine
        self.folder = folder
        self.numbers = itertools.count()
        self.box = Box(engine, ContainerSpec())
        self.plain = self.new_plain()
        self.box.out(f"mkdir {PLACE}")
        self.pinned: set[str] = set()
        self.states: dict[str, State] = {}
        self.take(pinned=True)  # of which all that follows are children
        self.undo_to: State | None = None

    def new_plain(self) -> Path:
        path = self.folder / str(next(self.numbers))
        path.mkdir(parents=True)
        return path

    def look(self, script: str = LOOK, box: Box | None = None) -> str:
        return (box or self.box).out(f"cd {PLACE}\n{script}")

    def state(self) -> State:
        """As it is now."""
        copy = self.folder / str(next(self.numbers))
        shutil.copytree(self.plain, copy, symlinks=True, copy_function=copy_any)
        return State(copy, self.look(TIMES))

    def return_to(self, state: State) -> None:
        self.plain = self.folder / str(next(self.numbers))
        shutil.copytree(state.plain, self.plain, symlinks=True, copy_function=copy_any)
        assert self.look(TIMES) == state.times

    def pick(self, number: int) -> str:
        return list(self.states)[number % len(self.states)]

    @property
    def stands_on(self) -> str | None:
        return self.engine.container(self.box.id).snapshot

    def forget_gone(self, *, allowed: Callable[[str], bool]) -> None:
        """Take note of snapshots that were removed."""
        there = {image.id for image in self.engine.images()}
        for identity in [one for one in self.states if one not in there]:
            assert allowed(identity), identity
            assert identity not in self.pinned
            del self.states[identity]

    # What may happen

    @rule(changes=st.lists(change, min_size=1, max_size=5))
    def work(self, changes: list[tuple[str, str, str, str]]) -> None:
        lines = [CHANGES[name].format(a, b, next(self.numbers), digit) for name, a, b, digit in changes]
        script = "umask 022\n" + "\n".join(f"{{ {line}; }} 2>&-" for line in lines) + "\ntrue"
        self.box.out(f"cd {PLACE}\n{script}")
        subprocess.run(["/bin/sh", "-c", script], cwd=self.plain, check=True)

    @rule(pinned=st.booleans())
    def take(self, pinned: bool) -> None:
        image = self.engine.snapshot(self.box.id, pinned=pinned)
        assert (image.road, image.reason) == ("moved", "")
        self.states[image.id] = self.state()
        if pinned:
            self.pinned.add(image.id)

    @rule(number=choice)
    def reset(self, number: int) -> None:
        target = self.pick(number)
        before = self.state()
        known = {image.id for image in self.engine.images()}
        self.engine.reset(self.box.id, target)
        self.undo_to = before
        self.return_to(self.states[target])
        for image in self.engine.images():
            if image.id not in known:
                assert image.auto == "reset"
                self.states[image.id] = before
        self.forget_gone(allowed=lambda identity: identity not in self.pinned)

    @precondition(lambda self: self.undo_to is not None)
    @rule()
    def undo(self) -> None:
        before = self.state()
        known = {image.id for image in self.engine.images()}
        try:
            self.engine.undo(self.box.id)
        except NotFound:
            record = json.loads(self.engine.row(self.box.id)["record"])
            assert record["undo"] not in known  # somebody has removed it
            return
        assert self.undo_to is not None
        self.return_to(self.undo_to)
        self.undo_to = before
        for image in self.engine.images():
            if image.id not in known:
                self.states[image.id] = before
        self.forget_gone(allowed=lambda identity: identity not in self.pinned)

    @rule(number=choice)
    def delete(self, number: int) -> None:
        target = self.pick(number)
        try:
            upkeep.remove(self.engine.catalog, target)
        except Conflict:
            below = self.engine.store.container_layers(self.engine.row(self.box.id))
            assert target in below or self.stands_on == target
            return
        assert self.stands_on != target
        self.pinned.discard(target)
        self.forget_gone(allowed=lambda identity: identity == target)

    @rule(everything=st.booleans())
    def prune(self, everything: bool) -> None:
        upkeep.prune(self.engine.catalog, everything=everything)
        self.forget_gone(allowed=lambda identity: everything and identity != self.stands_on)

    @rule()
    def start_anew(self) -> None:
        self.engine.stop(self.box.id, 0)
        self.engine.start(self.box.id)

    @rule()
    def take_of_a_stopped_one(self) -> None:
        times = self.look(TIMES)
        self.engine.stop(self.box.id, 0)
        image = self.engine.snapshot(self.box.id)
        self.engine.start(self.box.id)
        self.states[image.id] = self.state()
        assert self.states[image.id].times == times

    @rule(one=choice, other=st.none() | choice)
    def compare(self, one: int, other: int | None) -> None:
        """All that differs is told, and what is said to be new or gone is."""
        old, new = self.pick(one), self.box.id if other is None else self.pick(other)
        mine = files(self.states[old].plain)
        theirs = files(self.plain if other is None else self.states[new].plain)
        found = {
            entry.path.removeprefix(f"{PLACE}/"): entry.what
            for entry in self.engine.diff(old, new).changes
            if entry.path.startswith(f"{PLACE}/")
        }
        added = {path for path, what in found.items() if what == "added"}
        gone = {path for path, what in found.items() if what == "deleted"}
        assert added == theirs.keys() - mine.keys()
        kept = {"", *(path for path, (mode, _) in theirs.items() if stat.S_ISDIR(mode))}
        assert gone == {path for path in mine.keys() - theirs.keys() if os.path.dirname(path) in kept}
        assert {path for path in mine.keys() & theirs.keys() if mine[path] != theirs[path]} <= found.keys()

    @rule(number=choice)
    def run(self, number: int) -> None:
        """A container of a snapshot has its files."""
        target = self.pick(number)
        box = Box(self.engine, ContainerSpec(image=target))
        try:
            assert self.look(box=box) == listing(self.states[target].plain)
            assert self.look(TIMES, box) == self.states[target].times
        finally:
            self.engine.remove(box.id, force=True)

    @invariant()
    def is_like_the_plain_copy(self) -> None:
        assert self.look() == listing(self.plain)

    def teardown(self) -> None:
        try:
            for number in range(0, len(self.states), 3):
                self.run(number)
            self.engine.remove(self.box.id, force=True)
            upkeep.prune(self.engine.catalog, everything=True)
            for identity in self.pinned:
                upkeep.remove(self.engine.catalog, identity)
            store = self.engine.store
            left = [os.listdir(store.path(kind)) for kind in ("layers", "containers")]
            assert left == [[], []]
        finally:
            for container in self.engine.containers():  # a failure is tried again from the start
                self.engine.remove(container.id, force=True)
            for image in self.engine.images():
                if image.id != "host":
                    keeping.forget(self.engine.store, image.id)


def copy_any(source: str, target: str) -> None:
    """shutil's `copy2`, of FIFOs, too."""
    if os.path.islink(source) or not Path(source).is_fifo():
        shutil.copy2(source, target, follow_symlinks=False)
    else:
        os.mkfifo(target)
        os.chmod(target, os.lstat(source).st_mode & 0o7777)


def listing(plain: Path) -> str:
    done = subprocess.run(["/bin/sh", "-c", LOOK], cwd=plain, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def files(plain: Path) -> dict[str, tuple[int, str | bytes]]:
    """By path: what can be seen of a file."""
    found: dict[str, tuple[int, str | bytes]] = {}
    for path in plain.rglob("*"):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(plain))] = (status.st_mode, content)
    return found


def test_snapshots_are_like_copies(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.setattr(chains, "MANY", 2 * LONGEST_ROW)
    monkeypatch.setattr(keeping, "COUNT", LONGEST_ROW)
    examples = max(1, round(pytestconfig.getoption("--torture")))
    folders = itertools.count()
    run_state_machine_as_test(
        lambda: Model(engine, tmp_path / f"plain{next(folders)}"),  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    eventually(lambda: not os.listdir(engine.store.path("layers")), "nothing is left")
