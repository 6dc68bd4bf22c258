"""Many snapshots in a row, and those that nobody asked for."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec
from nbhull.runtime.snapshots import chains, keeping
from support.boxes import Box
from support.waiting import eventually

LOOK = """
cd /srv; find . -printf '%p %y %m %l\\n' | sort; ls -AR; cat t/last t/f* | sha256sum
ls -d /opt /etc/debian_version 2>&1 || true
"""


def step(number: int) -> str:
    """A change that each snapshot in the row has more; later ones hide, delete and bring back what earlier ones had."""
    lines = [f"cd /srv; mkdir -p t/d/deep t/n{number}; echo {number} > t/last; echo {number} > t/f{number % 7}"]
    if number % 3 == 0:
        lines.append(f"rm -rf t/d; mkdir -m 750 t/d; echo {number} > t/d/only; ln -s {number} t/d/link")
    if number % 4 == 0:
        lines.append(f"rm -rf t/n{number - 2}; rm -f t/f{(number - 1) % 7}; mkdir -p t/n{number - 1}/x")
    if number == 5:
        lines.append("rm -rf /opt; rm /etc/debian_version")
    if number == 20:
        lines.append("echo back > /opt")
    return "; ".join(lines)


def test_a_long_chain_is_kept_short(make_box: Callable[..., Box], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MANY", 9)
    box = make_box()
    store = box.engine.store
    states = {}
    lengths = {}
    for number in range(22):
        box.out(step(number))
        seen = box.out(LOOK)
        image = box.engine.snapshot(box.id)
        assert (image.road, image.reason) == ("moved", "")
        assert box.out(LOOK) == seen
        states[image.id] = seen
        rows = [*store.query("select * from images where id = ?", image.id), box.engine.row(box.id)]
        lengths[number] = sum(len(str(value)) for row in rows for value in tuple(row))
    assert lengths[21] < lengths[5] + 100, "rows that grow with the number of snapshots"
    assert list(store.chain(image.id)) == list(reversed(states))

    def folders(identity: str) -> list[str]:
        return chains.folders(store, identity, [])

    last = list(states)[-1]
    eventually(lambda: len(folders(last)) <= 6, "the chain is short")
    merged = [identity for identity in states if folders(identity)[0].startswith("flat/")]
    assert merged
    for identity in [*list(states)[::7], *merged]:
        assert make_box(image=identity).out(LOOK) == states[identity]
    assert box.engine.diff(list(states)[3], last).changes
    assert box.engine.diff(last, box.id).changes == ()


def test_what_nobody_asked_for_is_kept_under_a_budget(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "COUNT", 3)
    box = Box(engine, ContainerSpec(name="box"))
    box.out("echo base > /root/base")
    base = engine.snapshot("box", "base")
    for number in range(6):
        box.out(f"echo {number} > /root/file")
        if number == 1:
            engine.snapshot("box", "named")
            box.out("echo more > /root/more")
        engine.reset("box", "base")
    autos = [image for image in engine.images() if image.auto]
    assert len(autos) == 3
    engine.undo("box")
    assert box.out("cat /root/file /root/base") == "5\nbase"
    assert {image.name for image in engine.images() if not image.auto} == {"host", "base", "named"}
    needed = {base.id} | {image.id for image in engine.images()} - {"host"}
    eventually(lambda: set(os.listdir(engine.store.path("layers"))) == needed, "only what is needed is left")
    assert Box(engine, ContainerSpec(image="named")).out("cat /root/file") == "1"
