"""Small images for the tests."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.images.catalog import Catalog
from support.tars import pieces, small_root


@pytest.fixture(scope="session")
def catalog(shared_engine: Engine) -> Catalog:
    return shared_engine.catalog


@pytest.fixture(scope="session")
def small(catalog: Catalog) -> str:
    """The name of an image of busybox alone."""
    settings = {"Env": ["GREETING=hello", "PATH=/bin:/usr/bin"], "Cmd": ["sh", "-c", "echo $GREETING"]}
    catalog.import_root(pieces(gzip.compress(small_root(), 1)), ["small"], settings)
    return "small"


@pytest.fixture
def layer_of(catalog: Catalog) -> Iterator[Callable[[bytes], str]]:
    """Makes layers of tars; gives their ids."""
    made: list[str] = []

    def make(tar: bytes) -> str:
        layer = catalog.layers.ingest(pieces(tar))
        made.append(layer.id)
        return layer.id

    yield make
    for identity in made:
        for row in catalog.store.query("select id from images where record like ?", f"%{identity}%"):
            catalog.store.query("delete from images where id = ?", row["id"])
        catalog.layers.remove(identity)


@pytest.fixture
def nothing_left(catalog: Catalog) -> Iterator[None]:
    """Nothing is left of what failed."""
    folders = [Path(catalog.store.home, "layers"), Path(catalog.blobs.folder)]
    before = [sorted(folder.iterdir()) for folder in folders]
    yield
    assert [sorted(folder.iterdir()) for folder in folders] == before
