"""Registries for the tests: one without, one with TLS and a password; and stores to pull into."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from support.registry import Answers, Registry, Wire
from support.stores import delete_tree
from support.tars import archive, file, pieces, small_root


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry without TLS."""
    running = Registry(tmp_path_factory.mktemp("registry"), secure=False)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def secure_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with a certificate that nobody knows, and a password."""
    running = Registry(tmp_path_factory.mktemp("secure"), secure=True)
    yield running
    running.stop()


@pytest.fixture
def user_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration folder of this test's own: no credentials, no certificates."""
    config = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    return config


@pytest.fixture(autouse=True)
def _own_files(user_files: Path) -> None:
    """No test of registries sees the credentials of who runs it."""


@pytest.fixture(scope="session")
def pushed_layers() -> list[bytes]:
    """The layers of the test image: busybox, and two that do not compress."""
    return [small_root(), *(archive(file(f"data/{n}", os.urandom(3 << 20))) for n in (1, 2))]


@pytest.fixture(scope="session")
def small(shared_engine: Engine, pushed_layers: list[bytes]) -> str:
    """An image of three layers in the shared store."""
    from nbhull.runtime.images import documents

    catalog = shared_engine.catalog
    layers = [catalog.layers.ingest(pieces(gzip.compress(layer, 1))) for layer in pushed_layers]
    config = documents.make_config(
        {"Env": ["GREETING=hello", "PATH=/bin:/usr/bin"], "Cmd": ["sh", "-c", "echo $GREETING"]},
        [str(layer.diff_id) for layer in layers],
        [],
        "2026-01-01T00:00:00Z",
    )
    catalog.register(documents.canonical(config), [layer.id for layer in layers], ["pushed"])
    return "pushed"


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Engine]]:
    """Makes engines with empty stores."""
    made: list[Engine] = []

    def make() -> Engine:
        made.append(Engine(tmp_path / f"store-{len(made)}"))
        return made[-1]

    yield make
    for number, engine in enumerate(made):
        for container in engine.containers():
            engine.remove(container.id, force=True)
        engine.close()
        delete_tree(tmp_path / f"store-{number}")


@pytest.fixture
def wire(registry: Registry) -> Iterator[Wire]:
    """A wire to the registry that can be cut."""
    wire = Wire(registry.port)
    yield wire
    wire.close()


@pytest.fixture
def answers() -> Iterator[Answers]:
    """A server that a test speaks for."""
    answers = Answers()
    yield answers
    answers.close()
