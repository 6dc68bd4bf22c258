"""The watch over the suite itself: it can fail, and nothing is skipped unseen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.abilities import current_run

TESTS = Path(__file__).resolve().parents[1]


def run_suite(folder: Path, source: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one test module under our conftest, in a process of its own."""
    (folder / "test_inner.py").write_text(f"import os, pathlib, subprocess, pytest\n\n{source}")
    command: list[str | Path] = [
        sys.executable, "-m", "pytest", "-p", "conftest", "-c", TESTS.parent / "pyproject.toml",
        "--rootdir", folder, "--leak-patience", "0.3", "-p", "no:cacheprovider", "test_inner.py",
    ]
    base = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        command, cwd=folder, env=base | {"PYTHONPATH": str(TESTS)} | env,
        capture_output=True, text=True, check=False,
    )


@pytest.fixture
def runtime_folder() -> Iterator[Path]:
    folder = Path(f"/tmp/nbhull-inner-{os.getpid()}")
    yield folder
    shutil.rmtree(folder)


def test_a_file_left_in_the_runtime_folder_fails_the_session(tmp_path: Path, runtime_folder: Path) -> None:
    done = run_suite(
        tmp_path,
        f"def test_leaves():\n    pathlib.Path({str(runtime_folder)!r}).mkdir()\n"
        f"    pathlib.Path({str(runtime_folder)!r}, 'socket').touch()\n",
    )
    assert "1 passed" in done.stdout
    assert f"file: {runtime_folder}/socket" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_a_process_left_fails_the_session(tmp_path: Path) -> None:
    fifo = tmp_path / "end"
    os.mkfifo(fifo)
    # As long as this descriptor is open, a process that reads the pipe goes on.
    writer = os.open(fifo, os.O_RDWR)
    try:
        done = run_suite(
            tmp_path,
            f"def test_leaves():\n"
            f"    left = subprocess.Popen(['nbhull-init', {str(fifo)!r}], executable='cat')\n"
            f"    left.returncode = 0  # not to be warned of as a child still running\n",
        )
    finally:
        os.close(writer)
    assert "1 passed" in done.stdout
    assert "process: " in done.stdout
    assert "nbhull-init" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


HOLD_A_SOCKET = """
import socket, sys
held = socket.socket(socket.AF_UNIX)
held.bind(sys.argv[1])
print("bound", flush=True)
open(sys.argv[2]).read()
"""


def test_a_socket_left_fails_the_session(tmp_path: Path) -> None:
    fifo = tmp_path / "end"
    os.mkfifo(fifo)
    writer = os.open(fifo, os.O_RDWR)
    holder = [sys.executable, "-c", HOLD_A_SOCKET, str(tmp_path / "nbhull.sock"), str(fifo)]
    try:
        done = run_suite(
            tmp_path,
            f"def test_leaves():\n"
            f"    left = subprocess.Popen({holder!r}, stdout=subprocess.PIPE)\n"
            f"    with left.stdout:\n"
            f"        assert left.stdout.readline() == b'bound\\n'\n"
            f"    left.returncode = 0\n",
        )
    finally:
        os.close(writer)
    assert "1 passed" in done.stdout
    assert f"socket: {tmp_path}/nbhull.sock" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_a_clean_session_passes(tmp_path: Path) -> None:
    done = run_suite(tmp_path, "def test_nothing():\n    pass\n")
    assert done.returncode == pytest.ExitCode.OK


def test_an_unknown_ability_is_refused(tmp_path: Path) -> None:
    done = run_suite(tmp_path, "@pytest.mark.requires('rooot')\ndef test_nothing():\n    pass\n")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "rooot: no such ability" in done.stderr


STRACE = "@pytest.mark.requires('strace')\ndef test_nothing():\n    pass\n"


def test_an_unmet_ability_skips_with_its_reason_at_home(tmp_path: Path) -> None:
    done = run_suite(tmp_path, STRACE, PATH="/nowhere")
    assert "requires strace: strace is not installed" in done.stdout
    assert "1 skipped" in done.stdout
    assert done.returncode == pytest.ExitCode.OK


def test_an_unmet_ability_fails_where_nothing_may_be_skipped(tmp_path: Path) -> None:
    done = run_suite(tmp_path, STRACE, PATH="/nowhere", CI="true")
    assert "requires strace: strace is not installed" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    ("mark", "runs"),
    [
        ("", {"root", "user"}),
        ("@pytest.mark.nosubuid", {"root", "user", "nosubuid"}),
        ("@pytest.mark.requires('root')", {"root"}),
        ("@pytest.mark.requires('user')", {"user"}),
        ("@pytest.mark.requires('nosubuid')", {"nosubuid"}),
    ],
)
@pytest.mark.nosubuid
def test_a_test_runs_in_the_runs_it_belongs_to(tmp_path: Path, mark: str, runs: set[str]) -> None:
    done = run_suite(tmp_path, f"{mark}\ndef test_nothing():\n    pass\n")
    assert ("1 passed" if current_run() in runs else "1 deselected") in done.stdout


def test_a_run_by_the_wrong_user_refuses_to_start() -> None:
    wrong = "user" if current_run() == "root" else "root"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--run={wrong}", "--collect-only"],
        cwd=TESTS.parent, capture_output=True, text=True, check=False,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
