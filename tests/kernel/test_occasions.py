"""Snapshots that are taken without being asked for, of a notebook's kernel."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from nbhull.kernel.occasions import Keeper
from support.jupyter import Start, execute, value
from support.waiting import eventually

pytestmark = pytest.mark.requires("root")  # what differs for users is in the moves themselves
SNAPSHOTS = "get_ipython().find_line_magic('container')('snapshots')"


def occasions(client: BlockingKernelClient, container: str) -> list[Any]:
    """The occasions of the snapshots of a kernel, the oldest first."""
    code = f"[item['auto'] for item in {SNAPSHOTS} if item['auto'] and item['name'].startswith('{container}')]"
    return list(json.loads(value(client, f"__import__('json').dumps({code})")))


def test_before_installations_and_after_cells(start: Start) -> None:
    manager, client = start()
    box = manager.provisioner.contained.container.name
    execute(client, "open('/root/before', 'w').write('1')")
    # a program of that name, since the test has no index of packages
    execute(client, "import os; os.mkdir('/root/bin'); open('/root/bin/pip', 'w').write('#!/bin/sh\\n')")
    outcome = execute(client, "!chmod +x /root/bin/pip; /root/bin/pip install  nothing; rm /root/before")
    assert (outcome.status, outcome.errors) == ("ok", "")
    before = "before: !chmod +x /root/bin/pip; /root/bin/pip install nothing; rm /root/before"
    assert occasions(client, box) == [before]
    differing = value(client, "[c['path'] for c in get_ipython().find_line_magic('container')('diff')]")
    assert "/root/bin" in differing, "since what was asked for"
    shown = execute(client, "%container auto --cells on --installs off").data[0]["text/plain"]
    assert shown.split("\n")[:2] == ["before installations   no", "after each cell        yes"]
    told = [before, "after: %container auto --cells on --installs off"]
    eventually(lambda: occasions(client, box) == told, "what was changed before is kept")
    execute(client, "# writes\nopen('/root/cell', 'w').write('1')")
    eventually(lambda: len(occasions(client, box)) > len(told), "a snapshot after the cell")
    told = occasions(client, box)
    assert told[-1].startswith("after: ")  # it, or the cell that looked
    execute(client, "!/root/bin/pip install nothing")
    execute(client, "1 + 1")
    execute(client, "%container auto --cells off")
    execute(client, "open('/root/cell', 'w').write('2')")
    assert occasions(client, box) == told, "neither what has changed nothing nor what is off"
    name = value(client, f"[i['name'] for i in {SNAPSHOTS} if i['name'].startswith('{box}')][0]")
    execute(client, f"%container reset {name}")
    assert value(client, "open('/root/before').read()") == "1"


def test_by_time(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[float] = []
    manager, client = start()
    kernel = manager.provisioner.contained
    monkeypatch.setattr(Keeper, "begin", lambda self: begun.append(self.occasions.minutes))
    kernel.keeper.change({"minutes": 10})
    execute(client, "open('/root/file', 'w').write('1')")
    kernel.keeper.keep_by_time()  # as its timer does
    kernel.keeper.keep_by_time()
    assert occasions(client, kernel.container.name) == ["time: every 10 minutes"]
    assert begun == [10, 10, 10]
