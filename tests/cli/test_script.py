"""The script `nbhull`, which finds its Python by itself: however it is called, and wherever it is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nbhull.runtime.launcher.client import package_folder

NBHULL = Path(sys.executable).with_name("nbhull")


def out(*command: str | Path, cwd: Path = Path("/")) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout


def test_called_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(NBHULL)
    assert out(tmp_path / "link", "version") == out(NBHULL, "version")


def test_called_in_its_folder() -> None:
    assert out("sh", "nbhull", "version", cwd=NBHULL.parent) == out(NBHULL, "version")


@pytest.mark.parametrize("kind", ["site-packages", "dist-packages"])
def test_an_installation_below_any_prefix(tmp_path: Path, kind: str) -> None:
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = tmp_path / f"lib/{version}/{kind}"
    library.mkdir(parents=True)
    shutil.copytree(f"{package_folder()}/nbhull", library / "nbhull", ignore=shutil.ignore_patterns("__pycache__"))
    (library / "nbhull/__init__.py").write_text('__version__ = "of this prefix"\n')
    (tmp_path / "bin").mkdir()
    shutil.copy(NBHULL, tmp_path / "bin")
    (tmp_path / "bin/jupyter-container").write_text(f"#!{sys.executable}\n")
    assert "of this prefix" in out(tmp_path / "bin/nbhull", "version")


def test_a_line_that_names_no_python_leaves_it_to_the_other_script(tmp_path: Path) -> None:
    shutil.copy(NBHULL, tmp_path)
    other = tmp_path / "jupyter-container"
    other.write_text("#!/bin/sh\necho other \"$@\"\n")
    other.chmod(0o755)
    assert out(tmp_path / "nbhull", "a", "b c") == "other a b c\n"


def test_what_needs_the_environment_s_packages_finds_them() -> None:
    assert "KERNELSPEC" in out(NBHULL, "kernel", "list")
