"""Whether a notebook's own folder is handed in to its container, and which files go with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jupyter_core.paths import jupyter_config_dir, jupyter_data_dir, jupyter_runtime_dir

from nbhull.runtime.engine import Engine, default_home
from nbhull.runtime.errors import InvalidInput, ProcessFailed
from nbhull.runtime.launcher.client import runtime_folder
from nbhull.runtime.model import Mount, ProcessSpec

SYSTEM_FOLDERS = ("/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/usr")
"""Neither these, nor a folder that holds them, can be handed in: they would hide the image's own."""

CERTIFICATE_VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
)


@dataclass(frozen=True)
class WorkingFolder:
    """Where a kernel works."""

    path: str
    """absolute, the same outside and inside"""
    mount: Mount | None
    """hands it in, read-write; None if it is withheld, and an empty folder takes its place"""
    notice: str = ""
    """for the notebook's reader, if it is withheld"""


def working_folder(cwd: str) -> WorkingFolder:
    """The working folder for a kernel that is asked to start in `cwd`.

    A folder in which keys and tokens lie (the home folder, those above it, Jupyter's own folders,
    nbhull's store) is withheld. Raises InvalidInput if there is no such folder.
    """
    path = os.path.abspath(cwd)
    if not os.path.isdir(path):
        raise InvalidInput(f"the notebook's folder {path!r} does not exist", "create it, or start the kernel elsewhere")
    real = os.path.realpath(path)
    reason = why_withheld(real)
    if not reason:
        return WorkingFolder(path, Mount(real, path))
    notice = (
        f"The folder {path} was not handed in to this kernel's container, because it {reason}: "
        "the kernel works in an empty folder, and what it writes there stays in the container. "
        "Move the notebook to a folder of its own."
    )
    return WorkingFolder(path, None, notice)


def make_in(engine: Engine, container: str, path: str, user: str | None) -> None:
    """Make an empty folder in a container. Raises ProcessFailed."""
    process = engine.spawn(container, ProcessSpec(("mkdir", "-p", path), user=user))
    status = process.wait()
    process.close()
    if status != 0:
        raise ProcessFailed(
            f"the folder {path!r} could not be made in the container", "start the kernel in another folder"
        )


def why_withheld(real: str) -> str:
    """Why a folder (a path without links) cannot be handed in, as the end of a sentence; empty if it can."""
    home = os.path.realpath(os.path.expanduser("~"))
    if contains(real, home):
        return "is the home folder" if real == home else "holds the home folder"
    for secret in private_folders():
        if contains(real, secret) or contains(secret, real):
            return f"shares files with {secret}, where tokens and sockets lie"
    for system in SYSTEM_FOLDERS:
        if contains(real, system) or contains(system, real):
            return "belongs to the system"
    return ""


def private_folders() -> Iterable[str]:
    """Folders of this user in which tokens, keys and control sockets lie."""
    folders = [default_home(), jupyter_runtime_dir(), jupyter_config_dir(), jupyter_data_dir()]
    folders.append(runtime_folder())
    folders += [os.path.expanduser(f"~/{name}") for name in (".ssh", ".gnupg", ".config", ".aws", ".kube", ".docker")]
    return [os.path.realpath(folder) for folder in folders]


def contains(folder: str, other: str) -> bool:
    """Whether `other` is `folder` or lies in it; both are paths without links."""
    return folder == "/" or other == folder or other.startswith(folder + "/")


def certificate_mounts(env: Mapping[str, str]) -> list[Mount]:
    """Hands in, read-only, the files of certificate authorities that variables of `env` name.

    Those below /etc and /usr show through anyway.
    """
    files = {env.get(name, "") for name in CERTIFICATE_VARIABLES}
    return [
        Mount(os.path.realpath(path), path, read_only=True)
        for path in sorted(files)
        if path.startswith("/") and not path.startswith(("/etc/", "/usr/")) and os.path.isfile(path)
    ]
