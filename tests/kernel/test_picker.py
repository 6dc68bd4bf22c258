"""`%container picker`: a list of images to choose from, without a page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from nbhull.magics.picker import as_text, label, lines
from nbhull.runtime.images import upkeep
from nbhull.runtime.verbs.results import Table
from support.jupyter import PATIENCE, Place, Start, execute, make_image, value

IMAGES: list[dict[str, Any]] = [
    {"name": "host", "size": None},
    {"name": "quay.example/lab/Analysis:1", "size": 5 << 20},
    {"name": "", "size": 1},
    {"name": "debian:bookworm", "size": 0},
]


def test_what_is_offered() -> None:
    assert [name for _, name in lines(IMAGES, "")] == ["host", "quay.example/lab/Analysis:1", "debian:bookworm"]
    assert [name for _, name in lines(IMAGES, "  analysis LAB ")] == ["quay.example/lab/Analysis:1"]
    assert label(IMAGES[1]) == "quay.example/lab/Analysis:1  –  5.0 MiB"
    assert "%container use IMAGE" in as_text(Table(("image",), [("host",)], []))


@pytest.fixture
def offered(place: Place) -> Iterator[str]:
    yield make_image(place, "offered-image", "echo offered >/srv/offered")
    upkeep.remove(place.engine.catalog, "offered-image")


def message(client: BlockingKernelClient, model: str, content: dict[str, Any]) -> None:
    """Say to a widget what a page would."""
    data = {"comm_id": model, "data": content}
    client.shell_channel.send(client.session.msg("comm_msg", data))


def test_choosing_moves_the_notebook(offered: str, start: Start) -> None:
    _, client = start()
    outcome = execute(client, "import nbhull\npicker = nbhull.picker()\npicker")
    shown = outcome.data[-1]
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "offered-image" in shown["text/plain"]
    assert "%container use IMAGE" in shown["text/plain"]
    assert value(client, "picker.list.value") == "host"
    execute(client, "picker.filter.value = 'offered'")
    assert value(client, "picker.list.value, picker.status.value").startswith("offered-image ")
    execute(client, "picker.list.options = ['no-such-image']; picker.choose(None)")
    assert "there is no image" in value(client, "picker.status.value")
    execute(client, "picker.filter.value = ''; picker.filter.value = 'offered'")
    button = value(client, "picker.button.model_id")
    message(client, button, {"method": "custom", "content": {"event": "click"}})
    client.wait_for_ready(timeout=PATIENCE)
    assert value(client, "open('/srv/offered').read(), 'picker' in globals()") == "offered\n False"


def test_without_widgets_it_is_text(start: Start) -> None:
    _, client = start()
    outcome = execute(client, "import sys; sys.modules['ipywidgets'] = None\n%container picker")
    assert outcome.data[-1]["text/plain"].startswith("IMAGE"), outcome
    assert list(outcome.data[-1]) == ["text/plain"]


def test_on_the_host_it_is_told(start: Start) -> None:
    _, client = start("python3")
    assert "does not run in a container" in execute(client, "%load_ext nbhull\n%container picker").evalue
