"""Containers for the tests of snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec
from support.boxes import Box


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--torture", type=float, default=4.0, metavar="SECONDS", help="how long snapshots are tortured"
    )


@pytest.fixture
def make_box(shared_engine: Engine) -> Iterator[Callable[..., Box]]:
    """Makes containers, which are removed after the test."""
    made: list[Box] = []

    def make(**fields: object) -> Box:
        made.append(Box(shared_engine, ContainerSpec(**fields)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for box in made:
        shared_engine.remove(box.id, force=True)


@pytest.fixture
def layer_of(shared_engine: Engine) -> Callable[[str], Path]:
    """The folder of a snapshot's own changes to the root file system."""
    return lambda image: Path(shared_engine.store.path("layers", image, "root"))
