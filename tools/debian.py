"""Debian packages that the tests and benchmarks use; root only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable


def install(packages: Iterable[str]) -> None:
    """Install packages; the lists are updated only if the ones at hand do not do.

    Raises CalledProcessError, apt-get's complaint on standard error."""
    print("installing", *packages, flush=True)
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    first = subprocess.run(install, env=environment, check=False, capture_output=True)
    if first.returncode:
        subprocess.run(["apt-get", "update", "-q"], env=environment, check=True)
        subprocess.run(install, env=environment, check=True)
