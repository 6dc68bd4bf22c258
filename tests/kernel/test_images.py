"""Kernels in images that are no `host`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from nbhull.kernel.adding import LIBRARY
from nbhull.kernel.failure import KernelFailed
from nbhull.runtime.engine import Engine
from nbhull.runtime.images import exchange, upkeep
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from support import debian_root
from support.jupyter import Place, Start, execute, value
from support.registry import Registry
from support.tars import pieces, small_root

pytestmark = [pytest.mark.requires("mmdebstrap"), pytest.mark.nosubuid]


@pytest.fixture(scope="module")
def debian(place: Place) -> Iterator[str]:
    """An image with Python and without ipykernel."""
    exchange.import_file(place.engine, str(debian_root.tar()), "debian", {"User": "nobody", "Env": ["COLOUR=blue"]})
    yield "debian"
    upkeep.remove(place.engine.catalog, "debian")
    upkeep.prune(place.engine.catalog, everything=True)


def install(place: Place, name: str, image: str) -> str:
    """A kernelspec for an image."""
    folder = place.prefix / "share/jupyter/kernels" / name
    folder.mkdir()
    spec = json.loads((folder.parent / "nbhull/kernel.json").read_text())
    spec["metadata"]["kernel_provisioner"].setdefault("config", {})["image"] = image
    (folder / "kernel.json").write_text(json.dumps(spec))
    return name


def test_an_image_without_ipykernel_runs_kernels(place: Place, debian: str, start: Start, folder: Path) -> None:
    (folder / "data.txt").write_text("mine")
    name = install(place, "in-debian", debian)
    _, client = start(name)
    code = "import ipykernel, os; print(ipykernel.__file__, open('data.txt').read(), os.environ['COLOUR'], os.getuid())"
    outcome = execute(client, code)
    assert outcome.text.startswith(LIBRARY), outcome
    assert outcome.text.split()[1:] == ["mine", "blue", "0"]
    assert execute(client, "%container snapshot kept").status == "ok"
    assert execute(client, "open('/etc/debian_version').read()").status == "ok"
    engine: Engine = place.engine
    layers = engine.store.query("select count(*) as n from layers")[0]["n"]
    _, second = start(name)
    assert execute(second, "print(1)").text == "1\n"
    assert engine.store.query("select count(*) as n from layers")[0]["n"] == layers


def test_the_python_of_the_image_s_path_runs_the_kernel(
    place: Place, debian: str, start: Start, folder: Path
) -> None:
    script = "python3 -m venv --without-pip /opt/mine && cd /opt/mine/lib/*/site-packages && echo x=7 > only_here.py"
    container = place.engine.create(ContainerSpec(image=debian))
    place.engine.start(container.id)
    assert place.engine.spawn(container.id, ProcessSpec(("sh", "-c", script), user="0")).wait() == 0
    exchange.commit(place.engine, container.id, "with-environment", ["ENV PATH=/opt/mine/bin:/usr/bin:/bin"])
    place.engine.remove(container.id, force=True)
    _, client = start(install(place, "in-environment", "with-environment"))
    assert value(client, "__import__('sys').prefix, __import__('only_here').x") == "/opt/mine 7"


def test_a_way_to_the_index_that_fails_is_told(
    place: Place, debian: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setattr("nbhull.kernel.adding.REQUIREMENT", "ipykernel>=6.30")  # not the one that is there already
    with pytest.raises(KernelFailed, match="has no ipykernel, and it cannot be added"):
        start(install(place, "no-way", debian))


def test_an_image_without_python_is_told(place: Place, start: Start) -> None:
    place.engine.catalog.import_root(pieces(small_root()), ["bare"])
    with pytest.raises(KernelFailed, match="has no python"):
        start(install(place, "bare", "bare"))
    upkeep.remove(place.engine.catalog, "bare")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry without TLS."""
    running = Registry(tmp_path, secure=False)
    yield running
    running.stop()


@pytest.mark.requires("docker-registry", "root")  # what it needs of the user is in the tests above
def test_a_pinned_notebook_gets_just_that_image(place: Place, debian: str, folder: Path, registry: Registry) -> None:
    """Executed by nbclient, which tells nobody which notebook it is."""
    catalog, name = place.engine.catalog, f"{registry.host}/team/lab:1"
    catalog.tag(debian, name)
    place.engine.push(name)
    path = folder / "pinned.ipynb"
    notebook = new_notebook(
        cells=[new_code_cell("print(open('/etc/debian_version').read())")], metadata={"container": {"image": name}}
    )
    nbformat.write(notebook, path)
    pinned = exchange.pin(place.engine, str(path))
    upkeep.remove(catalog, name)
    catalog.import_root(pieces(small_root()), [name])
    place.engine.push(name)  # what has the name now, here and there, is another image
    with place.engine.store.transaction():
        place.engine.store.query("delete from digests")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, kernel_name="nbhull", timeout=60).execute()
    assert notebook.cells[0].outputs[0].text.startswith("12")
    row = catalog.find(pinned)
    assert catalog.store.image_layers(catalog.find(debian)) == catalog.store.image_layers(row)
    assert catalog.find(name)["id"] != row["id"]  # a notebook moves no names

    gone = f"{name}@sha256:{'0' * 64}"
    notebook.metadata["container"]["image"] = gone
    with pytest.raises(KernelFailed, match=f"has no team/lab@sha256:{'0' * 64}.*no other is taken for it"):
        NotebookClient(notebook, kernel_name="nbhull", timeout=60).execute()
    upkeep.remove(catalog, name)
