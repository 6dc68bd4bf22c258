"""Containers for the tests of snapshots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--torture", type=float, default=4.0, metavar="SECONDS", help="how long snapshots are tortured"
    )


@pytest.fixture
def layer_of(shared_engine: Engine) -> Callable[[str], Path]:
    """The folder of a snapshot's own changes to the root file system."""
    return lambda image: Path(shared_engine.store.path("layers", image, "root"))
