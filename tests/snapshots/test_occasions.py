"""Snapshots that nobody asked for: told in a cell's text, taken on their occasion, kept under a budget."""

from __future__ import annotations

import pytest

from nbhull.kernel.app.occasions import installation
from nbhull.kernel.occasions import USUAL, Occasions, changed, parse_occasions
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.model import ContainerSpec
from nbhull.runtime.snapshots import keeping
from nbhull.runtime.verbs.snapshots import snapshot_table
from support.boxes import Box


@pytest.mark.requires("root")
@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("%pip install six", "%pip install six"),
        ("import os\n  !pip3 uninstall -y six", "!pip3 uninstall -y six"),
        ("pip install six", "pip install six"),
        ("out = !sudo apt-get -y install jq", "out = !sudo apt-get -y install jq"),
        ("!!python -m pip install -U six", "!!python -m pip install -U six"),
        ("%conda install numpy", "%conda install numpy"),
        ("%%bash\ncd /tmp\napt update && apt install jq", "apt update && apt install jq"),
        ("%%time\n!uv pip install six", "!uv pip install six"),
        ("%system /opt/bin/pip install six", "%system /opt/bin/pip install six"),
        ("%pip list", ""),
        ("!pip --version; install -d x", ""),
        ("pip = install = 1", ""),
        ("# %pip install six", ""),
        ("print('pip install six')", ""),
        ("!echo pipes install", ""),
        ("%%writefile x\npip install six", ""),
        ("%%container run debian\napt-get install jq", ""),
        ("", ""),
    ],
)
def test_a_cell_that_installs_is_known_by_its_text(code: str, line: str) -> None:
    assert installation(code) == line


@pytest.mark.requires("root")
def test_occasions_are_checked() -> None:
    assert Occasions(installs=True, cells=False, minutes=0.0) == USUAL
    assert parse_occasions({"minutes": 5}) == Occasions(minutes=5)
    assert changed(Occasions(cells=True), {"installs": False}) == Occasions(installs=False, cells=True)
    for wrong in ("yes", {"cell": True}, {"cells": 1}, {"minutes": -1}, {"minutes": True}, {"minutes": float("nan")}):
        with pytest.raises(InvalidInput):
            parse_occasions(wrong)


def test_what_has_not_changed_is_not_kept_and_each_kind_has_its_budget(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "COUNT", 2)
    box = Box(engine, ContainerSpec(name="kept-box"))
    box.out("echo base > /root/file")
    asked = engine.snapshot("kept-box", "kept-asked", note="mine")
    assert engine.keep("kept-box", "before: %pip install x") is None
    box.out("echo 1 > /root/file")
    first = engine.keep("kept-box", "before: %pip install x")
    assert first is not None
    assert [change.path for change in engine.diff("kept-box").changes] == ["/root/file"], "since what was asked for"
    for number in range(4):
        box.out(f"echo {number} > /root/more")
        assert engine.keep("kept-box", f"after: cell {number}") is not None
    kept = [image for image in engine.images() if image.auto]
    assert sorted(image.auto for image in kept) == ["after: cell 2", "after: cell 3", first.auto]
    shown = {row[0].strip("└├│ "): row[5] for row in snapshot_table(engine.snapshots("kept-box"), 2e9).rows}
    assert shown[first.name] == "auto · before: %pip install x"
    engine.reset("kept-box")
    assert box.out("cat /root/file; ls /root/more 2>&1 || true").startswith("base")
    assert engine.container("kept-box").snapshot == asked.id
    engine.reset("kept-box", first.id)
    assert box.out("cat /root/file") == "1"
