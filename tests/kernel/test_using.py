"""`%container use`: a notebook goes on in another image, with the same client connected throughout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from nbhull.kernel.using import take_along
from nbhull.runtime.cli import main
from nbhull.runtime.images import upkeep
from support.jupyter import PATIENCE, Place, Start, execute, install_spec, make_image, value
from support.roots import busybox_root
from support.waiting import eventually

# The road is the same for all users, and resets, which it takes, are tried as each.
pytestmark = pytest.mark.requires("user")


@pytest.fixture(scope="module")
def other(place: Place) -> Iterator[str]:
    """An image that can be told from `host`."""
    yield make_image(place, "another-image", "echo other >/srv/which")
    upkeep.remove(place.engine.catalog, "another-image")


@pytest.fixture(scope="module")
def bare(place: Place) -> Iterator[str]:
    """An image in which no kernel can run."""
    place.engine.catalog.import_root([busybox_root()], ["without-python"])
    yield "without-python"
    upkeep.remove(place.engine.catalog, "without-python")


async def test_a_notebook_goes_on_in_another_image_and_back(folder: Path, place: Place, other: str) -> None:
    cells = [
        "open('/root/mine', 'w').write('kept'); variable = 1",
        f"%container use {other}",
        "import os; print(open('/srv/which').read(), os.path.exists('/root/mine'), 'variable' in globals())",
        "container = %container\nprint(container['image'])",
        "%container undo",
        "import os; print(open('/root/mine').read(), os.path.exists('/srv/which'))",
        f"%container use {other}",
        "open('/srv/which', 'w').write('changed')",
        "%container reset",
        "print(open('/srv/which').read())",
    ]
    notebook = new_notebook(cells=[new_code_cell(code) for code in cells])
    await NotebookClient(notebook, kernel_name="nbhull", timeout=int(PATIENCE)).async_execute()
    said = [
        "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")
        for cell in notebook.cells
    ]
    assert said[1].startswith(f"this notebook runs in {other} now, in a new kernel; %container undo goes back to ")
    assert f'write "container": {{"image": "{other}"}} into the notebook\'s metadata' in said[1]
    assert said[2] == "other\n False False\n"
    assert said[3] == f"{other}\n"
    assert said[5] == "kept False\n"
    assert said[9] == "other\n\n"


def test_it_holds_for_restarts_and_ends_with_the_kernel(start: Start, place: Place, other: str) -> None:
    manager, client = start()
    assert execute(client, f"%container use {other}").status == "ok"
    assert value(client, "open('/srv/which').read()") == "other"
    assert execute(client, f"%%container run {other}\ncat /srv/which").text == "other\n"
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=PATIENCE)
    assert value(client, "open('/srv/which').read()") == "other"
    name = manager.provisioner.contained.name
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    eventually(lambda: not [c for c in place.engine.containers() if c.name.startswith(name)], "no container is left")


def test_where_it_cannot_go_it_stays(
    start: Start, place: Place, bare: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = start()
    execute(client, "variable = 1")
    containers = {container.id for container in place.engine.containers()}
    for line, told in {
        f"use {bare}": "has no python",
        "use no-such-image": "there is no image",
        "use 127.0.0.1:1/team/image": "127.0.0.1:1",
        "use": "IMAGE is missing",
        "use ../x": "is not a name",
    }.items():
        outcome = execute(client, f"%container {line}")
        assert told in outcome.evalue, outcome
    (tmp_path / "nbhull").mkdir()
    (tmp_path / "nbhull/config.toml").write_text('[images]\nallowed = ["another"]\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert "images.allowed" in execute(client, "%container use host").evalue
    assert value(client, "variable") == "1"
    assert {container.id for container in place.engine.containers()} == containers


def test_one_that_no_kernel_of_ours_runs_in_is_refused(start: Start, place: Place, other: str) -> None:
    """Asked for as no magic would: what is wrong is found before the old container ends."""
    spec = {"argv": ["sh", "-c", "sleep 1000", "{connection_file}"], "display_name": "x", "language": "x"}
    name = make_image(
        place, "foreign-kernel", f"mkdir -p /opt/venv/share/jupyter/kernels/odd; echo '{json.dumps(spec)}' > "
        "/opt/venv/share/jupyter/kernels/odd/kernel.json"
    )  # fmt: skip
    manager, client = start()
    contained = manager.provisioner.contained
    contained.config = contained.config.__class__(**{**contained.config.__dict__, "kernel": "odd"})
    assert "would not know %container" in execute(client, f"%container use {name}").evalue
    assert value(client, "1 + 1") == "2"
    upkeep.remove(place.engine.catalog, name)


def test_a_kernel_without_control_is_told(place: Place, start: Start) -> None:
    _, client = start(install_spec("uses-nothing", place.prefix, control="none"))
    assert "no control" in execute(client, "%container use host").evalue


def test_a_kernel_on_the_host_is_told(start: Start) -> None:
    _, client = start("python3")
    execute(client, "%load_ext nbhull")
    assert "does not run in a container" in execute(client, "%container use host").evalue


def test_what_goes_along_may_be_a_trap(tmp_path: Path) -> None:
    assert take_along(str(tmp_path)) == b""
    (tmp_path / "panel.json").write_text("{}")
    assert take_along(str(tmp_path)) == b"{}"
    (tmp_path / "panel.json").rename(tmp_path / "real")
    (tmp_path / "panel.json").symlink_to(tmp_path / "real")
    assert take_along(str(tmp_path)) == b""
    (tmp_path / "panel.json").unlink()
    os.mkfifo(tmp_path / "panel.json")
    assert take_along(str(tmp_path)) == b""


def test_the_command_writes_it_into_the_notebook(
    place: Place, folder: Path, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = folder / "analysis.ipynb"
    metadata = '"metadata": {"container": {"memory": "1g"}}'
    notebook.write_text(f'{{\n "cells": [], {metadata}, "nbformat": 4, "nbformat_minor": 5}}\n')
    assert main(["use", other, "analysis.ipynb"]) == 0
    assert json.loads(notebook.read_text())["metadata"]["container"] == {"memory": "1g", "image": other}
    assert main(["use", "no-such-image", "analysis.ipynb"]) != 0
    assert main(["use", other, "missing.ipynb"]) != 0
    assert "there is no notebook" in capsys.readouterr().err
