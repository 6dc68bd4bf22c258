"""Containers for the tests of the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec
from support.boxes import Box


@pytest.fixture
def make_box(shared_engine: Engine) -> Iterator[Callable[..., Box]]:
    """Makes containers, which are removed after the test."""
    made: list[Box] = []

    def make(**fields: object) -> Box:
        box = Box(shared_engine, ContainerSpec(**fields))  # type: ignore[arg-type]
        made.append(box)
        return box

    yield make
    for box in made:
        shared_engine.remove(box.id, force=True)


@pytest.fixture
def box(make_box: Callable[..., Box]) -> Box:
    """A running container of the image `host`."""
    return make_box()
