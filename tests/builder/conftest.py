"""Images of a root file system of next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbhull.runtime.builder.build import Result
from nbhull.runtime.engine import Engine
from support.builds import built
from support.indexes import python_root
from support.roots import busybox_root


@pytest.fixture(scope="session")
def busybox_tar() -> bytes:
    return busybox_root()


@pytest.fixture(scope="session")
def base_engine(shared_engine: Engine, busybox_tar: bytes) -> Engine:
    """The shared engine, with the image `base`."""
    shared_engine.catalog.import_root([busybox_tar], ["base"], {"Cmd": ["/bin/sh"]})
    return shared_engine


@pytest.fixture(scope="session")
def with_python(base_engine: Engine, busybox_tar: bytes) -> str:
    """Name of an image that has the machine's own Python, too."""
    base_engine.catalog.import_root([python_root(busybox_tar)], ["with-python"])
    return "with-python"


@pytest.fixture
def build(base_engine: Engine, tmp_path: Path) -> Callable[..., Result]:
    """Builds a Containerfile given as text, with the files given: `build(text, {path: text}, target=…)`."""

    def build(text: str, files: dict[str, str] | None = None, context: Path | None = None, **options: Any) -> Result:
        folder = context or tmp_path / "context"
        folder.mkdir(exist_ok=True)
        for name, content in {"Containerfile": text, **(files or {})}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return built(base_engine, folder, **options)

    return build
