"""What the documents promise is there: links lead somewhere, make targets exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_relative_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z][a-z-]*)`", document.read_text()))
    assert named <= targets


def test_make_help_tells_of_the_targets() -> None:
    told = subprocess.run(["make", "-s", "help"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for target in ("run", "lab", "test", "check", "bench", "bench-quick", "docs", "clean"):
        assert re.search(rf"\b{target}\b", told), target


@pytest.mark.requires("root")
def test_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    sphinx_build = Path(sys.executable).parent / "sphinx-build"
    options = ["-q", "-W", "--keep-going", "-d", str(tmp_path / "trees")]
    built = subprocess.run([sphinx_build, *options, ROOT / "docs", tmp_path / "pages"], check=False,
                           capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    assert "Engine" in (tmp_path / "pages/api.html").read_text()
