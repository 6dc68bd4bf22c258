"""A minimal Debian with Python, as a tar that all runs of the suite share."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

SHARED = Path("/var/cache/nbhull-tests")
PACKAGES = "python3-minimal,libpython3-stdlib"


def tar() -> Path:
    """The root file system's tar, made by mmdebstrap where there is none yet (half a minute)."""
    name = "bookworm-python3.tar"
    if os.access(SHARED / name, os.R_OK):
        return SHARED / name
    folder = SHARED if os.getuid() == 0 else Path.home() / ".cache/nbhull-tests"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    with open(folder / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_suffix(".part.tar")
            argv: list[str | Path] = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
            argv += ["bookworm", part]
            subprocess.run(argv, check=True)
            part.chmod(0o644)
            part.rename(path)
    return path
