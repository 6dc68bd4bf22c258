"""The verbs that look at, stop and remove containers, and the program itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec

NBHULL = [sys.executable, "-m", "nbhull.runtime.cli"]


def nbhull(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*NBHULL, *words], capture_output=True, text=True, check=False)


def running(engine: Engine, name: str) -> str:
    """A container that runs in this process's launcher, not in the command line's."""
    return engine.start(engine.create(ContainerSpec(name=name)).id).id


def test_containers_of_other_processes_are_listed(engine: Engine) -> None:
    identity = running(engine, "one")
    engine.create(ContainerSpec(name="two"))
    assert nbhull("ps", "-q").stdout == f"{identity}\n"
    heading, line = nbhull("ps").stdout.splitlines()
    assert heading.split() == ["CONTAINER", "ID", "IMAGE", "CREATED", "STATE", "NAME"]
    assert line.split()[0] == identity
    assert line.split()[-2:] == ["running", "one"]
    assert heading.index("NAME") == line.index("one")
    listed = json.loads(nbhull("ps", "-a", "--json").stdout)
    assert {(c["name"], c["state"], c["image"]) for c in listed} == {
        ("one", "running", "host"),
        ("two", "created", "host"),
    }


@pytest.mark.nosubuid
def test_containers_of_other_processes_are_entered_stopped_and_removed(engine: Engine) -> None:
    identity = running(engine, "one")
    assert nbhull("exec", identity[:6], "sh", "-c", "echo $((6 * 7)); exit 4").stdout == "42\n"
    refused = nbhull("rm", "one")
    assert refused.returncode == 1
    assert refused.stderr.startswith("nbhull: the container one is running\n  hint: ")
    assert nbhull("stop", "-t", "0", "one").stdout == "one\n"
    assert engine.container("one").state == "stopped"
    assert nbhull("exec", "one", "true").returncode == 125
    assert nbhull("rm", "one").stdout == "one\n"
    assert engine.containers() == []


def test_removing_goes_on_after_one_that_cannot_be_removed(engine: Engine) -> None:
    running(engine, "one")
    engine.create(ContainerSpec(name="two"))
    done = nbhull("rm", "nobody", "one", "two")
    assert (done.returncode, done.stdout) == (1, "two\n")
    assert [line for line in done.stderr.splitlines() if line.startswith("nbhull: ")] == [
        "nbhull: there is no container 'nobody'",
        "nbhull: the container one is running",
    ]
    assert nbhull("rm", "-f", "one").returncode == 0
    assert engine.containers() == []


def test_snapshots_are_listed_run_and_reset_to(engine: Engine) -> None:
    identity = running(engine, "one")
    nbhull("exec", "one", "sh", "-c", "echo first > /srv/file")
    assert nbhull("snapshot", "one", "clean").stdout == "clean\n"
    nbhull("exec", "one", "rm", "-r", "/srv/file", "/usr/share/doc")
    assert nbhull("reset", "one").stdout == "one\n"
    assert nbhull("exec", "one", "cat", "/srv/file").stdout == "first\n"
    assert nbhull("exec", "one", "test", "-d", "/usr/share/doc").returncode == 0
    listed = {image["name"]: image for image in json.loads(nbhull("images", "--json").stdout)}
    assert set(listed) == {"host", "clean"}
    assert listed["clean"]["size"] == len("first\n")
    assert nbhull("images", "-q").stdout.split() == ["host", listed["clean"]["id"]]
    assert nbhull("images").stdout.splitlines()[2].split()[0] == "clean"
    taken = nbhull("snapshot", identity, "clean")
    assert (taken.returncode, taken.stdout) == (1, "")
    assert nbhull("reset", "one", "no-such-snapshot").returncode == 1


def test_a_reader_that_goes_away_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*NBHULL, "help", "run"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_help_and_version() -> None:
    assert nbhull("--help").stdout == nbhull("help").stdout
    assert nbhull("run", "--help").stdout.startswith("usage: nbhull run [OPTION...] IMAGE [COMMAND [ARGUMENT...]]\n")
    assert "kernel install" in nbhull("kernel", "--help").stdout
    assert nbhull("help", "no-such-verb").returncode == 1
    versions = json.loads(nbhull("version", "--json").stdout)
    assert nbhull("--version").stdout.splitlines()[0].split() == ["nbhull", versions["nbhull"]]
    assert versions["linux"] == os.uname().release


@pytest.mark.parametrize("program", [["nbhull"], ["jupyter-container"], ["jupyter", "container"]])
def test_the_program_goes_by_all_its_names(program: list[str]) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [shutil.which(program[0], path=path) or program[0], *program[1:], "version", "--json"]
    done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(nbhull("version", "--json").stdout)


def test_the_way_to_a_verb_imports_little() -> None:
    def loaded(code: str) -> set[str]:
        command = [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"]
        return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())

    way = "from nbhull.runtime.cli import parse; parse(['run', '--rm', '-it', 'host', 'true'])"
    costly = "argparse ctypes dataclasses difflib inspect json pathlib sqlite3 subprocess"
    assert not (loaded(way) - loaded("pass")) & set(costly.split())
