"""Kernels whose kernelspec or notebook confines them more than usual."""

from __future__ import annotations

import json
from pathlib import Path

from support.jupyter import Place, Start, execute, install_spec, value

STATUS = "dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines() if line.startswith('Cap'))"


def test_a_kernel_with_nothing_to_spare(place: Place, start: Start, folder: Path) -> None:
    """No capability, and nothing but the notebook's own folder and memory to write to."""
    spec = install_spec(
        "tight", place.prefix, cap_drop=["ALL"], read_only=True, tmpfs=["/tmp", "/root:size=8m"], ulimits=["core=0"]
    )
    _, client = start(spec)
    assert value(client, f"set({STATUS}.values())") == f"{{{'0' * 16!r}}}"
    assert execute(client, "open('/etc/new', 'w')").ename == "OSError"
    assert value(client, "open('/tmp/new', 'w').write('x'), open('mine', 'w').write('x')") == "1 1"
    assert (folder / "mine").exists()


def test_a_notebook_confines_itself(place: Place, start: Start, folder: Path) -> None:
    path = folder / "work.ipynb"
    asked = {"cap_drop": ["net_raw", "CAP_MKNOD"], "read_only": True}
    document = {"cells": [], "metadata": {"container": asked}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(document))
    _, client = start(env={"JPY_SESSION_NAME": str(path)})
    raw, node = 1 << 13, 1 << 27
    assert value(client, f"int({STATUS}['CapBnd'], 16) & {raw | node}") == "0"
    assert execute(client, "open('/srv/new', 'w')").ename == "OSError"
