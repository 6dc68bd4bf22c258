"""The panel's parts without a page."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from nbhull.kernel.rpc import ContainerError
from nbhull.magics.panel import beat, panel, talk
from nbhull.magics.panel.deeds import MOST_CHANGES, difference


def test_there_is_no_panel_outside_of_a_container(shell: InteractiveShell) -> None:
    with pytest.raises(ContainerError, match="does not run in a container"):
        shell.run_line_magic("container", "panel")
    with pytest.raises(ContainerError, match="does not run in a container"):
        panel()


def test_a_difference_is_cut_where_it_is_too_long_to_look_at() -> None:
    entry = {"kind": "file", "size": 1}
    changes = [{"path": f"/srv/{n}", "change": "added", "old": None, "new": entry} for n in range(MOST_CHANGES + 3)]
    package = {"package": "numpy", "old": None, "new": "2.0"}
    text = "--- /dev/null\n+++ /srv/1\n@@ -0,0 +1 @@\n+one"
    gone = "--- /srv/2\n+++ /dev/null\n@@ -1 +0,0 @@\n-one"
    found = difference({"items": [package, *changes], "texts": [text, gone]})
    assert found["packages"] == [package]
    assert (len(found["changes"]), found["omitted"]) == (MOST_CHANGES, 3)
    assert found["changes"][0] == {"path": "/srv/0", "change": "added", "kind": "file", "sizes": [None, 1]}
    assert found["texts"] == {"/srv/1": text, "/srv/2": gone}


async def test_a_beat_asks_nothing_anew_while_its_question_is_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def ask(path: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
        asked.append(method)
        return await answer

    monkeypatch.setattr(talk, "ask", ask)
    monkeypatch.setattr(beat, "INTERVAL", 0.0)
    stub: Any = SimpleNamespace(control="", stamp="", take=lambda item: None)
    pulse = beat.Beat(stub)
    assert [await pulse.look() for _ in range(20)] == [None] * 20
    assert asked == ["panel"]
    amounts = dict.fromkeys(("cpu_seconds", "io_read", "io_written", "memory", "memory_limit", "disk", "disk_limit"), 1)
    answer.set_result({"item": {"usage": {**amounts, "pids": 1, "pids_limit": None}}})
    await asyncio.sleep(0)
    sample = await pulse.look()
    assert sample is not None
    assert sample["memory"] == 1
    assert asked == ["panel"]
