"""The notebooks that teach nbhull, executed as a reader would."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from nbhull.runtime.images import exchange, upkeep
from support import debian_root
from support.jupyter import Place
from support.registry import Registry

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LONGEST_CELL = 150
"""seconds; one builds an environment from packages"""


def run(name: str, folder: Path, **parameters: str) -> None:
    """Execute a tutorial in a folder; what is given takes the place of its cell `parameters`, as with papermill."""
    notebook = nbformat.read(NOTEBOOKS / "tutorials" / name, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    NotebookClient(notebook, timeout=LONGEST_CELL, resources={"metadata": {"path": str(folder)}}).execute()
    assert os.listdir(folder) == [], "a tutorial leaves nothing in its folder"


@pytest.mark.requires("user")
@pytest.mark.parametrize("name", ["1-first-steps.ipynb", "3-snapshots.ipynb"])
def test_in_a_container(name: str, folder: Path) -> None:
    run(name, folder)


@pytest.fixture
def programs(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """`nbhull` and `jupyter` are found by a notebook's shell."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.requires("user")
def test_with_volumes(folder: Path, programs: None) -> None:
    run("4-data-and-volumes.ipynb", folder)


@pytest.fixture(scope="module")
def debian(place: Place) -> Iterator[None]:
    """The base that a reader is told to get first."""
    exchange.import_file(place.engine, str(debian_root.tar()), "debian:bookworm")
    yield
    upkeep.prune(place.engine.catalog, everything=True)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    data = tmp_path / "registry"
    data.mkdir()
    registry = Registry(data, secure=False)
    yield registry
    registry.stop()


@pytest.mark.requires("root", "mmdebstrap", "docker-registry")
@pytest.mark.timeout(300)
def test_on_the_host(folder: Path, programs: None, debian: None, registry: Registry) -> None:
    # in their order: what the first builds, the others give away
    run("2-environment.ipynb", folder)
    run("5-reproducibility.ipynb", folder, registry=registry.host)
    run("6-sharing.ipynb", folder, registry=registry.host)


def test_every_tutorial_is_executed() -> None:
    named = Path(__file__).read_text()
    assert [path.name for path in (NOTEBOOKS / "tutorials").iterdir() if f'"{path.name}"' not in named] == []
