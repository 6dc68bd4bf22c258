"""Probes of the Python environment that the image `host` shows."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import sysconfig

from nbhull.runtime.doctor import mending
from nbhull.runtime.doctor.findings import Finding


def probe_python() -> Finding:
    """Whether the running Python environment has a kernel to start in a container."""
    version = ".".join(map(str, sys.version_info[:3]))
    seen = f"Python {version} in {sys.prefix}"
    if importlib.util.find_spec("ipykernel") is None:
        return Finding("python", "partly", f"{seen}, without ipykernel", install_line())
    return Finding("python", "yes", f"{seen}, ipykernel {importlib.metadata.version('ipykernel')}")


def install_line() -> str:
    """Installs ipykernel into the running environment, by the distribution's package where it wants that
    (PEP 668)."""
    managed = os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED")
    if sys.prefix == sys.base_prefix and os.path.exists(managed):
        return mending.install("ipykernel")
    return f"{sys.executable} -m pip install ipykernel"
