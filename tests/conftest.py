"""Which tests run where, the fixtures that all share, and the watch over what a run leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec
from support.abilities import ABILITIES, RUNS, current_run, runs_able, why_missing
from support.boxes import Box
from support.leaks import Findings, left_behind, mark_session, traces
from support.stores import delete_tree


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--run", choices=RUNS, help="the run that this must be; refuses to start if the user makes it another"
    )
    parser.addoption(
        "--leak-patience", type=float, default=10.0, metavar="SECONDS",
        help="how long what a session started may take to vanish after it",
    )


def pytest_configure(config: pytest.Config) -> None:
    expected = config.getoption("--run")
    if expected and expected != current_run():
        raise pytest.UsageError(f"this is no {expected!r} run: the user makes it a {current_run()!r} run")
    config.pluginmanager.register(LeakWatch(), "leak-watch")


# -- which tests run ---------------------------------------------------------------------------


def requirements(item: pytest.Item) -> set[str]:
    """All that the item's `requires` marks name; raises UsageError for a name that means nothing."""
    names = {str(name) for mark in item.iter_markers("requires") for name in mark.args}
    if unknown := names - set(ABILITIES) - set(RUNS):
        raise pytest.UsageError(f"{item.nodeid} requires {', '.join(sorted(unknown))}: no such ability")
    return names


def runs_of(item: pytest.Item) -> set[str]:
    """The runs that the item belongs to."""
    names = requirements(item)
    runs = names & set(RUNS) or {"root", "user"}
    if item.get_closest_marker("nosubuid"):
        runs |= {"nosubuid"}
    for name in names - set(RUNS):
        runs &= runs_able(name)
    return runs


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    run = current_run()
    others = [item for item in items if run not in runs_of(item)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if run in runs_of(item)]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in sorted(requirements(item) - set(RUNS)):
        if reason := why_missing(name):
            if os.environ.get("CI") == "true":
                pytest.fail(f"requires {name}: {reason}", pytrace=False)
            pytest.skip(f"requires {name}: {reason}")


# -- what a run leaves behind ------------------------------------------------------------------


class LeakWatch:
    """Fails the session that leaves a trace of nbhull's on the machine."""

    def __init__(self) -> None:
        self.before: Findings = set()
        self.left: Findings = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        mark_session()
        self.before = traces()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        # Session fixtures are down by now.
        self.left = left_behind(self.before, patience=session.config.getoption("--leak-patience"))
        if self.left and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.left:
            terminalreporter.section("left behind", sep="=", red=True)
            for kind, what in sorted(self.left):
                terminalreporter.line(f"{kind}: {what}")


# -- fixtures ----------------------------------------------------------------------------------


def remove_containers(engine: Engine) -> None:
    for container in engine.containers():
        engine.remove(container.id, force=True)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh store, made $NBHULL_HOME for this test and all that it starts."""
    home = tmp_path / "nbhull-store"
    monkeypatch.setenv("NBHULL_HOME", str(home))
    yield home
    delete_tree(home)


@pytest.fixture
def engine(store: Path) -> Iterator[Engine]:
    """An engine on a fresh store."""
    with Engine(store) as engine:
        yield engine
        remove_containers(engine)


@pytest.fixture(scope="session")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One engine, one launcher and one store for all tests that keep to containers of their own."""
    home = tmp_path_factory.mktemp("shared") / "nbhull-store"
    with Engine(home) as engine:
        yield engine
        remove_containers(engine)
    delete_tree(home)


@pytest.fixture
def make_box(shared_engine: Engine) -> Iterator[Callable[..., Box]]:
    """Makes containers, which are removed after the test."""
    made: list[Box] = []

    def make(**fields: object) -> Box:
        box = Box(shared_engine, ContainerSpec(**fields))  # type: ignore[arg-type]
        made.append(box)
        return box

    yield make
    # a test may have removed some itself
    there = {container.id for container in shared_engine.containers()}
    for box in made:
        if box.id in there:
            shared_engine.remove(box.id, force=True)


@pytest.fixture
def kernelspec(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of nbhull's kernelspec, installed where only this test and its children find it."""
    prefix = tmp_path / "prefix"
    subprocess.run(
        [Path(sys.executable).with_name("nbhull"), "kernel", "install", "--prefix", prefix], check=True
    )
    monkeypatch.setenv("JUPYTER_PATH", str(prefix / "share/jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter-data"))
    return "nbhull"
