"""Containers for the tests of the engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.boxes import Box


@pytest.fixture
def box(make_box: Callable[..., Box]) -> Box:
    """A running container of the image `host`."""
    return make_box()
