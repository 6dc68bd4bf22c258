"""What `nbhull run` does not import: each of these modules takes longer than a part of the container's start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nbhull.runtime.launcher.client import package_folder

SLOW = set(
    "argparse asyncio collections contextlib copy ctypes dataclasses datetime difflib email enum functools "
    "hashlib importlib.metadata inspect ipykernel jupyter_client jupyter_core json logging pathlib random re "
    "secrets shutil signal socket sqlite3 ssl subprocess tempfile textwrap threading tokenize traceback traitlets "
    "typing uuid warnings weakref".split()
)

RUN = """
import sys
from nbhull.runtime.cli import main
status = main(["run", "--rm", "host", "true"])
print(*sys.modules)
sys.exit(status)
"""


def test_a_command_in_a_new_container_imports_nothing_slow(store: Path) -> None:
    # Without site, as the command starts: what the environment's .pth files import is not nbhull's doing.
    for _ in range(2):  # the first one in a store also compiles the filter of system calls
        done = subprocess.run(
            [sys.executable, "-S", "-P", "-c", RUN], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": package_folder()},
        )  # fmt: skip
    modules = done.stdout.split()
    assert "nbhull.runtime.engine" in modules
    assert SLOW.intersection(modules) == set()
    assert "nbhull.runtime.verbs.groups.images" not in modules, "other verbs' definitions"


def test_nor_does_its_launcher() -> None:
    code = "import sys; import nbhull.runtime.launcher.broker, nbhull.runtime.launcher.veth; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": package_folder()},
    )  # fmt: skip
    assert SLOW.intersection(done.stdout.split()) == set()
