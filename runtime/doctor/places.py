"""Probes of the folder for sockets, and of the Python environment that the image `host` shows."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import socket
import sys
import sysconfig
import tempfile

from nbhull.runtime import policy
from nbhull.runtime.doctor import mending
from nbhull.runtime.doctor.findings import Finding
from nbhull.runtime.errors import HostUnable, InvalidInput
from nbhull.runtime.launcher.client import LONGEST_SOCKET_PATH, runtime_folder

LONGEST_FOLDER = LONGEST_SOCKET_PATH - 49
"""what is left for the folder itself, once a launcher's folder and its longest socket name stand behind it"""


def probe_policy() -> Finding:
    """The files of rules: read, and held against being changed by those that they bind."""
    try:
        files = policy.files()
        rules = policy.load()
    except InvalidInput as error:
        return Finding("policy", "no", error.message, error.hint)
    if rules is None:
        return Finding("policy", "yes", f"no rules, neither in {policy.SYSTEM} nor in {policy.user_file()}")
    seen = "; ".join(f"{path}: {sum(rule.path == path for rule in rules.rules)} rules" for path in files)
    status = os.stat(policy.SYSTEM) if policy.SYSTEM in files else None
    if status is not None and (status.st_uid != 0 or status.st_mode & 0o022):
        mend = f"{mending.sudo()}chown root:root {policy.SYSTEM} && {mending.sudo()}chmod 0644 {policy.SYSTEM}"
        return Finding("policy", "partly", f"{seen}, but others than root can change {policy.SYSTEM}", mend)
    return Finding("policy", "yes", seen)


def probe_runtime_folder() -> Finding:
    """The private folder for sockets, whose path a socket's address must have room for."""
    name = "runtime folder"
    try:
        folder = runtime_folder()
    except HostUnable as error:
        return Finding(name, "no", error.message, error.hint)
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        seen = f"{folder}: the path is longer than {LONGEST_FOLDER} bytes, too long for sockets in it"
        return Finding(name, "no", seen, "export XDG_RUNTIME_DIR=/run/user/$(id -u)")
    try:
        with tempfile.TemporaryDirectory(dir=folder) as inside:
            address = f"{inside}/socket"
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
                listener.bind(address)
    except OSError as error:
        return Finding(name, "no", f"{folder}: {error.strerror}", "export XDG_RUNTIME_DIR=/run/user/$(id -u)")
    return Finding(name, "yes", f"{folder}, bound a socket in it")


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
