"""The compiled code of a start's modules in one file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nbhull
from nbhull.runtime.engine import Engine

pytestmark = pytest.mark.requires("root")

LOADED = "from nbhull.runtime import bundle; print(bundle.use())"
COMMAND = "import sys; sys.argv[0] = 'nbhull'; from nbhull.runtime import entry; entry.main()"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder with a copy of the package, without what was compiled."""
    package = Path(nbhull.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, tmp_path / "library/nbhull", ignore=ignored)
    return tmp_path / "library"


def python(library: Path, code: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """A Python that takes nbhull from `library`, as the script starts it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(
        [sys.executable, "-S", "-P", "-c", code, *arguments], text=True, stdout=subprocess.PIPE,
        env={**environment, "PYTHONPATH": str(library), **variables},
    )  # fmt: skip


def said(library: Path, code: str, **variables: str) -> str:
    """What a Python with that code prints."""
    process = python(library, code, **variables)
    output = process.communicate()[0]
    assert process.returncode == 0
    return output.strip()


def test_it_holds_while_the_sources_are_as_they_were(library: Path) -> None:
    assert said(library, f"{LOADED}; bundle.write(); print(bundle.use())") == "False\nTrue"
    loaders = f"{LOADED}; from nbhull.runtime import engine, policy; print(engine.__loader__, policy.__loader__)"
    assert said(library, loaders).count("bundle.Loader") == 2
    assert said(library, f"{LOADED}; from nbhull.runtime import cores; print(cores.HIGHEST)") == "True\n8191"

    source = library / "nbhull/runtime/cores.py"
    source.write_text(source.read_text().replace("HIGHEST = 8191", "HIGHEST = 77"))
    assert said(library, f"{LOADED}; from nbhull.runtime import cores; print(cores.HIGHEST)") == "False\n77"
    source.unlink()
    assert said(library, LOADED) == "False"


def test_it_is_none_of_a_package_that_has_moved_or_where_nothing_is_to_be_compiled(library: Path) -> None:
    written = f"{LOADED}; bundle.write(); print(bundle.use())"
    assert said(library, written, PYTHONDONTWRITEBYTECODE="1") == "False\nFalse"
    assert said(library, written) == "False\nTrue"
    moved = library.rename(library.with_name("moved"))
    assert said(moved, LOADED) == "False"


def test_what_a_holder_may_load_later_is_all_that_it_then_lacks() -> None:
    code = (
        "import sys; import nbhull.runtime.launcher.broker; from nbhull.runtime.launcher.holder import LATER\n"
        "from nbhull.runtime import snapshots\n"
        "before = set(sys.modules)\n"
        "for name in LATER: __import__(f'nbhull.runtime.{name}')\n"
        "print(*set(sys.modules) - before - {f'nbhull.runtime.{name}' for name in LATER})"
    )
    assert said(Path(nbhull.__file__).parent.parent, code) == ""


def test_a_container_is_snapshotted_when_the_package_has_gone(library: Path, store: Path) -> None:
    said(library, f"{LOADED}; bundle.write()")
    command = ["run", "--name", "bundled", "host", "sh", "-c", "echo here; exec sleep 600"]
    running = python(library, COMMAND, *command)
    assert running.stdout is not None
    assert running.stdout.readline() == "here\n"
    shutil.rmtree(library)
    try:
        with Engine() as engine:
            snapshot = engine.snapshot("bundled", "of-bundled")
            assert (snapshot.road, snapshot.reason) == ("moved", "")
            engine.stop("bundled", 0)
    finally:
        running.kill()
        running.wait()
        running.stdout.close()
