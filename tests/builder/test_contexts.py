"""Contexts: each a folder with a Containerfile, and a script that verifies the result from inside.

`options` holds words of the command line; `config.json` what the image's configuration must have.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec
from nbhull.runtime.verbs.building import build
from nbhull.runtime.verbs.parser import parse
from support.boxes import Box

CONTEXTS = Path(__file__).with_name("contexts")
NAMES = sorted(path.name for path in CONTEXTS.iterdir())


def test_there_are_enough_of_them() -> None:
    assert len(NAMES) >= 40
    assert all((CONTEXTS / name / "verify").exists() for name in NAMES)


def build_context(engine: Engine, folder: Path, tag: str) -> None:
    """Build a context by the command line's own words."""
    options = shlex.split((folder / "options").read_text()) if (folder / "options").exists() else []
    _, values = parse(["build", "--progress", "plain", "-t", tag, *options, str(folder)])
    build(engine, values)


@pytest.mark.parametrize("name", NAMES)
def test_context(name: str, base_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "context"
    shutil.copytree(CONTEXTS / name, folder, symlinks=True)
    monkeypatch.chdir(folder)
    build_context(base_engine, folder, f"made-{name}")
    image = base_engine.catalog.find(f"made-{name}")
    box = Box(base_engine, ContainerSpec(image=f"made-{name}", host_settings=False))
    try:
        done = box.run("set -e\n" + (folder / "verify").read_text())
    finally:
        base_engine.remove(box.id, force=True)
    assert done.returncode == 0, done
    if (folder / "config.json").exists():
        config = base_engine.catalog.config(image).document["config"]
        wanted = json.loads((folder / "config.json").read_text())
        assert {key: config.get(key) for key in wanted} == wanted
    os.chdir("/")
