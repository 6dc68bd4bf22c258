"""ipykernel 6, in a folder of its own that all runs of the suite share: it comes before the environment's by
$PYTHONPATH."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from support.debian_root import SHARED

REQUIREMENT = "ipykernel>=6.29,<7"


def folder() -> Path:
    """The folder, filled by pip where it is missing."""
    done = SHARED / "ipykernel-6"
    if os.access(done, os.R_OK):
        return done
    base = SHARED if os.getuid() == 0 else Path.home() / ".cache/nbhull-tests"
    base.mkdir(parents=True, exist_ok=True)
    done = base / "ipykernel-6"
    with open(base / "lock-ipykernel", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            part = base / f"ipykernel-6.part-{os.getpid()}"
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
            subprocess.run([*pip, "--target", str(part), REQUIREMENT], check=True)
            part.chmod(0o755)
            part.rename(done)
    return done
