"""Environment files: what is read from them, and images that are installed from their lock file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbhull.runtime.builder import environment, instructions, repository, syntax
from nbhull.runtime.builder.environment import parse_lock, version_check
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import InvalidInput, NotFound, ProcessFailed
from nbhull.runtime.model import ContainerSpec
from nbhull.runtime.verbs.building import build
from nbhull.runtime.verbs.parser import parse
from support.boxes import Box
from support.indexes import add_wheel, served


def folder_of(path: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return str(path)


def test_files_are_read(tmp_path: Path) -> None:
    context = folder_of(
        tmp_path,
        {
            "requirements.txt": "six\n-r more/other.txt\n-c limits.txt\n",
            "more/other.txt": "-r third.txt\n",
            "more/third.txt": "x",
            "limits.txt": "",
            "apt.txt": "# tools\ngraphviz  # drawing\n\nbc=1.07.1-3 bc=1.07.1-3\n",
            "runtime.txt": "python-3.11\n",
            "postBuild": "",
            "start": "",
        },
    )
    asked = repository.find(context)
    assert asked is not None
    assert set(asked.included) == {"more/other.txt", "limits.txt", "more/third.txt"}
    assert asked.packages == ("graphviz", "bc=1.07.1-3")
    assert (asked.python, asked.post_build, asked.start, asked.project) == ("3.11", True, True, False)


def test_the_first_folder_counts(tmp_path: Path) -> None:
    context = folder_of(tmp_path, {"requirements.txt": "six\n", "binder/requirements.txt": "seven\n"})
    asked = repository.find(context)
    assert asked is not None
    assert (asked.folder, asked.requirements) == ("binder", "seven\n")
    assert repository.find(folder_of(tmp_path / "other", {"README": ""})) is None


WRONG = {
    "a version of R": ({"runtime.txt": "r-4.2"}, "is not a version of Python"),
    "an option as a package": ({"apt.txt": "ok\n--force"}, "apt.txt:2: '--force' is not the name of a package"),
    "a package with a space": ({"apt.txt": "a;b"}, "apt.txt:1"),
    "requirements from outside": ({"requirements.txt": "-r ../x"}, "lies outside"),
    "requirements from the root": ({"requirements.txt": "-r /etc/passwd"}, "lies outside"),
    "requirements that are missing": ({"requirements.txt": "-r x.txt"}, "is not there"),
    "no TOML": ({"pyproject.toml": "["}, "pyproject.toml is no TOML"),
    "a lock alone": ({"uv.lock": ""}, "without a pyproject.toml"),
    "Julia": ({"Project.toml": ""}, "environments of Project.toml cannot be built"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused(name: str, tmp_path: Path) -> None:
    files, message = WRONG[name]
    with pytest.raises(InvalidInput) as caught:
        repository.find(folder_of(tmp_path, files))
    assert message in str(caught.value)
    assert caught.value.hint


def notebook(*cells: str) -> str:
    return json.dumps({"cells": [{"cell_type": "code", "source": cell.splitlines(True)} for cell in cells]})


def test_notebooks_carry_their_requirements(tmp_path: Path) -> None:
    lines = ["# /// script", '# requires-python = ">=3.9"', "# dependencies = [", '#   "six",', '#   "seven>2",', "# ]"]
    text = "\n".join([*lines, "# ///", "import six"])
    folder_of(
        tmp_path,
        {
            "n.ipynb": notebook("1", text),
            "none.ipynb": notebook("1"),
            "no.ipynb": "{",
            "two.ipynb": notebook(text, text),
        },
    )
    asked = repository.find(str(tmp_path / "n.ipynb"))
    assert asked is not None
    assert (asked.requirements, asked.python, asked.notebook) == ("six\nseven>2\n", ">=3.9", "n.ipynb")
    for name, message in (("none", "no inline script metadata"), ("no", "is no notebook"), ("two", "twice")):
        with pytest.raises(InvalidInput, match=message):
            repository.find(str(tmp_path / f"{name}.ipynb"))


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("3.11", [(3, 11, 2)]),
        (">=3.9,<3.12", [(3, 9, 0), (3, 11, 9)]),
        ("~=3.10", [(3, 10, 1), (3, 99, 0)]),
        ("==3.11.*", [(3, 11, 0)]),
        ("!=3.10", [(3, 9, 0), (3, 11, 0)]),
        (">3.8", [(3, 9, 0)]),
    ],
)
def test_versions_of_python(wanted: str, fits: list[tuple[int, int, int]]) -> None:
    import sys
    from unittest.mock import patch

    for version, right in [*((v, True) for v in fits), ((2, 7, 18), False)]:
        with patch.object(sys, "version_info", version), pytest.raises(SystemExit) as caught:
            exec(version_check(wanted).replace("sys.version_info[:3]", repr(version)))
        assert (caught.value.code is None) is right or wanted.startswith("!=")
    with pytest.raises(InvalidInput):
        version_check("what; import os")


def test_what_is_written_is_a_containerfile(tmp_path: Path) -> None:
    """Whatever the files say stays within what they are for."""
    evil = "six\nrequirements.txt\nEOF\nRUN evil\n"
    asked = repository.Repository("", evil, packages=("bc",), python="3.11", post_build=True, start=True)
    one = environment.EnvironmentBuild.__new__(environment.EnvironmentBuild)
    one.asked, one.base = asked, "base"
    program = instructions.program(syntax.parse(one.resolve_text("now", False).encode()))
    assert [c.name for stage in program.stages for c in stage.commands].count("run") == 4
    lock = environment.Lock("base", (), "", 0, ("bc=1",), ("six==1 --hash=sha256:0",))
    text = one.install_text(lock)
    assert "--require-hashes" in text
    assert [c.name for c in instructions.program(syntax.parse(text.encode())).stages[0].commands][-1] == "cmd"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2}', '{"version": 1, "base": "b"}'])
def test_wrong_lock_files_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no lock file"):
        parse_lock(text)


def test_a_lock_file_cannot_smuggle_lines() -> None:
    lock = environment.Lock("b", (), "", 0, ("bc=1",), ("six==1",))
    assert parse_lock(lock.text()) == lock
    for changed in (lock.but(requirements=("six\nRUN evil",)), lock.but(packages=("bc; evil",))):
        with pytest.raises(InvalidInput):
            parse_lock(changed.text())


# For real, without any network but loopback


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package index on loopback, which pip is told of by the host's settings alone (PEP 503)."""
    folder = tmp_path / "index"
    for name, version, requires in (("alpha", "1.0", "beta"), ("beta", "1.0", "")):
        add_wheel(folder, name, version, requires)
    with served(folder) as (address, _):
        monkeypatch.setenv("PIP_INDEX_URL", f"{address}/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield folder


@pytest.mark.requires("busybox", "root")  # what it needs of the user is tested with other builds; it takes a while
@pytest.mark.timeout(400)
def test_a_repository(base_engine: Engine, with_python: str, index: Path, tmp_path: Path) -> None:
    context = tmp_path / "repository"
    folder_of(
        context,
        {
            "requirements.txt": "alpha\n",
            "postBuild": '#!/bin/sh\npython3 -c \'import alpha; open("made", "w").write(alpha.version)\'\n',
            "start": '#!/bin/sh\nexec env started=yes "$@"\n',
            "data": "here",
        },
    )

    def run(*options: str) -> str:
        _, values = parse(
            # The index is this machine's own, on its loopback.
            ["build", "--progress", "plain", "--network", "host", "-t", "env", *options, str(context)]
        )
        build(base_engine, values)
        row, _, _ = base_engine.catalog.completed(base_engine.catalog.find("env"))
        return str(row["config"])

    with pytest.raises(NotFound, match="there is no lock file"):
        run("--base", with_python, "--locked")
    first = run("--base", with_python)
    lock = parse_lock((context / "nbhull.lock").read_text())
    assert [line.split(" ")[0] for line in lock.requirements] == ["alpha==1.0", "beta==1.0"]
    digest = hashlib.sha256((index / "beta/beta-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    assert f"--hash=sha256:{digest}" in lock.requirements[1]
    box = Box(base_engine, ContainerSpec(image="env"))
    try:
        assert box.out("cat made data; pwd; python3 -c 'import beta; print(beta.version)'") == "1.0here/srv/work\n1.0"
        address = os.environ["PIP_INDEX_URL"].rpartition(":")[2]
        assert (
            box.out(f"env | grep -c :{address} || true; grep -r :{address} /etc /opt /usr/share/nbhull | wc -l")
            == "0\n0"
        )
        assert base_engine.command(box.id, ("x",)) == ("/srv/work/start", "x")
    finally:
        base_engine.remove(box.id, force=True)

    add_wheel(index, "beta", "2.0")
    assert run() == first  # a newer version changes nothing as long as the lock file fits
    assert run("--locked", "--no-cache") == first
    assert run("--relock") != first
    assert "beta==2.0" in (context / "nbhull.lock").read_text()

    (context / "requirements.txt").write_text("alpha\nbeta<2\n")
    with pytest.raises(InvalidInput, match="before the environment files were changed"):
        run("--locked")
    (context / "requirements.txt").write_text("alpha\n")
    text = (context / "nbhull.lock").read_text()
    (context / "nbhull.lock").write_text(text.replace(lock.requirements[0][-8:], "0" * 8))
    with pytest.raises(ProcessFailed, match="environment:"):
        run("--locked")
