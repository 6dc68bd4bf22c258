"""The installed kernelspec, used by the tools that people use: each runs its kernel in a container."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

BIN = Path(sys.executable).parent
NAMESPACE = "import os; print('namespace', os.readlink('/proc/self/ns/mnt'))"
"""tells a kernel in a container from one on the host"""


def run(*command: str | Path, text: str | None = None) -> str:
    """The standard output of a command from the test environment; fails with its error output."""
    done = subprocess.run(
        [BIN / command[0], *command[1:]], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_contained(output: str) -> None:
    """`output` holds what NAMESPACE printed, in another mount namespace than this one."""
    assert "namespace mnt:[" in output
    assert os.readlink("/proc/self/ns/mnt") not in output


def notebook(path: Path) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NAMESPACE)]), path)
    return path


def printed(path: Path) -> str:
    """What the first cell of an executed notebook printed."""
    text: str = nbformat.read(path, as_version=4).cells[0].outputs[0].text
    return text


def test_jupyter_lists_it(kernelspec: str) -> None:
    specs = json.loads(run("jupyter", "kernelspec", "list", "--json"))["kernelspecs"]
    assert specs[kernelspec]["spec"]["display_name"] == "Python 3 (container)"
    assert specs[kernelspec]["spec"]["language"] == "python"


@pytest.mark.nosubuid
def test_nbclient(kernelspec: str, tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb")
    run("jupyter-execute", "--inplace", f"--kernel_name={kernelspec}", path)
    assert_contained(printed(path))


def test_nbconvert(kernelspec: str, tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb")
    run("jupyter-nbconvert", "--to=notebook", "--execute", "--inplace",
        f"--ExecutePreprocessor.kernel_name={kernelspec}", path)
    assert_contained(printed(path))


def test_papermill(kernelspec: str, tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb")
    run("papermill", "--kernel", kernelspec, path, tmp_path / "out.ipynb")
    assert_contained(printed(tmp_path / "out.ipynb"))


def test_jupyter_console(kernelspec: str) -> None:
    assert_contained(run("jupyter-console", "--simple-prompt", f"--kernel={kernelspec}", text=f"{NAMESPACE}\n"))


def test_jupyter_run(kernelspec: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(NAMESPACE)
    assert_contained(run("jupyter-run", f"--kernel={kernelspec}", script))
