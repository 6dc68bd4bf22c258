"""A container whose processes were moved onto other files, by a snapshot or a reset, holds what it held before."""

from __future__ import annotations

from typing import Any

import pytest

from nbhull.runtime.confinement import Confinement
from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec
from support.attacks import Outside, attack
from support.boxes import Box

pytestmark = pytest.mark.nosubuid


def seen(engine: Engine, box: Box, outside: Outside) -> tuple[set[str], dict[str, Any], set[tuple[str, ...]]]:
    """What is allowed, what a process is told of itself, and where which mounts are."""
    found = attack(engine, box.id, outside)
    state = found.pop("state")
    mounts = {tuple(mount) for mount in state.pop("mounts")}
    return {name for name, outcome in found.items() if outcome.startswith("ok")}, state, mounts


@pytest.mark.parametrize("read_only", [False, True])
def test_a_moved_container_holds_what_it_held(engine: Engine, outside: Outside, read_only: bool) -> None:
    box = Box(engine, ContainerSpec(network="none", confinement=Confinement(read_only=read_only)))
    before = seen(engine, box, outside)
    engine.snapshot(box.id, "one")
    assert seen(engine, box, outside) == before
    engine.reset(box.id, "one")
    assert seen(engine, box, outside) == before
    assert (box.run("touch /new").returncode != 0) is read_only
