"""The embedded image `host`: this machine's system and the user's Python environment, and nothing else.

Each part of it is a mount of its own, so what shows through is an allow-list: whatever else
the host has, or gets later, is not there. The system stays unmapped, so files that only the
host's root may read cannot be read by the container's; the environment is the user's own, and writable
through an overlay.
"""

from __future__ import annotations

import os
import sys
from binascii import crc32

from nbhull.runtime.errors import InvalidInput, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""top-level names that show through: folders as read-only binds, links as links"""
FOLDERS = {
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "proc": 0o555,
    "root": 0o700,
    "run": 0o755,
    "srv": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/log": 0o755,
    "var/tmp": 0o1777,
}
PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
CERTIFICATES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def current_environment() -> str:
    """The prefix of the Python environment that this process runs in."""
    if sys.prefix != sys.base_prefix:
        return sys.prefix
    # Without site (the quick start of the command line) a virtual environment is not looked for.
    beside = os.path.dirname(os.path.dirname(sys.executable))
    return beside if os.path.exists(f"{beside}/pyvenv.cfg") else sys.prefix


def build_skeleton(folder: str) -> None:
    """Make the lowest layer: the folders that every Linux system has, and the host's links to /usr."""
    for name, mode in FOLDERS.items():
        os.mkdir(f"{folder}/{name}")
        os.chmod(f"{folder}/{name}", mode)
    os.symlink("/run", f"{folder}/var/run")
    for name in SYSTEM:
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), f"{folder}/{name}")
        elif os.path.isdir(f"/{name}"):
            os.mkdir(f"{folder}/{name}")


def skeleton_name() -> str:
    """A name that changes with the host's top-level links."""
    links = [f"{name}={os.readlink(f'/{name}')}" for name in SYSTEM if os.path.islink(f"/{name}")]
    folders = [name for name in SYSTEM if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")]
    return f"host-{checksum(' '.join(['1', *links, *folders]))}"


def system_mounts() -> list[dict[str, Any]]:
    """The read-only binds of the system."""
    return [
        {"kind": "bind", "at": f"/{name}", "source": f"/{name}", "owned": False, "read_only": True, "recursive": True}
        for name in SYSTEM
        if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")
    ]


def environment_parts(prefix: str) -> list[dict[str, Any]]:
    """How a Python environment shows through: overlays (`key` names their folder in the store) and
    read-only binds of the interpreter beneath it.

    Raises NotFound when there is no environment at `prefix`, InvalidInput for one that would hand in a
    home folder or the whole system."""
    prefix = os.path.normpath(prefix)
    if not os.path.isabs(prefix) or not os.path.isdir(prefix):
        raise NotFound(
            f"there is no Python environment at {prefix!r}",
            "give the prefix of an existing one, as sys.prefix tells it",
        )
    refuse_too_much(prefix)
    parts: list[dict[str, Any]] = []
    if not is_system(prefix) or prefix.startswith("/usr/local"):
        parts.append(overlay(prefix, prefix))
    virtual = os.path.exists(f"{prefix}/pyvenv.cfg")
    for base in base_folders(prefix) if virtual else []:
        if not is_system(base) and not within(base, prefix):
            refuse_too_much(base)
            parts.append(
                {"kind": "bind", "at": base, "source": base, "owned": True, "read_only": True, "recursive": False}
            )
    if not virtual:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        user_library = os.path.expanduser(f"~/.local/lib/{version}")
        if os.path.isdir(user_library):
            parts.append(overlay(user_library, f"/root/.local/lib/{version}"))
    return parts


def overlay(source: str, at: str) -> dict[str, Any]:
    """A part that is writable in the container: its changes lie in a folder named by `key`."""
    key = f"env-{checksum(at)}"
    return {"kind": "overlay", "at": at, "source": source, "owned": True, "key": key}


def checksum(text: str) -> str:
    """A short name for a text, among few others."""
    return f"{crc32(text.encode()):08x}"


def base_folders(prefix: str) -> list[str]:
    """Where the interpreter of a virtual environment lives: as its pyvenv.cfg says, and as its links lead."""
    found = []
    with open(f"{prefix}/pyvenv.cfg", encoding="utf-8") as file:
        for line in file:
            key, _, value = line.partition("=")
            if key.strip() == "home":
                found.append(os.path.dirname(value.strip()))
    interpreter = os.path.realpath(f"{prefix}/bin/python")
    if os.path.exists(interpreter):
        found.append(os.path.dirname(os.path.dirname(interpreter)))
    return list(dict.fromkeys(os.path.normpath(folder) for folder in found))


def is_system(path: str) -> bool:
    """Whether a path lies in what shows through anyway."""
    return any(within(path, f"/{name}") for name in SYSTEM)


def within(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies in it, by their names."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def refuse_too_much(path: str) -> None:
    """An environment's folder must not be a home folder, or hold it."""
    home = os.path.expanduser("~")
    if within(home, path) or within(os.path.realpath(home), os.path.realpath(path)):
        raise InvalidInput(
            f"the Python environment {path!r} holds the home folder, which would be handed in with it",
            "make a virtual environment in a folder of its own",
        )


def network_environment() -> dict[str, str]:
    """The variables by which the host's programs reach the network; of files, those that show through."""
    found = {name: text for name, text in os.environ.items() if name.lower() in PROXIES and text}
    for name in CERTIFICATES:
        path = os.environ.get(name, "")
        if path.startswith(("/etc/", "/usr/")):
            found[name] = path
    return found


def process_environment(prefix: str) -> dict[str, str]:
    """The environment variables of a process in the image."""
    variables = {"PATH": PATH, "HOME": "/root", "LANG": os.environ.get("LANG", "C.UTF-8")}
    if not is_system(prefix) or prefix.startswith("/usr/local"):
        variables["PATH"] = f"{prefix}/bin:{PATH}"
    if os.path.exists(f"{prefix}/pyvenv.cfg"):
        variables["VIRTUAL_ENV"] = prefix
    if os.path.isdir(f"{prefix}/conda-meta"):
        variables["CONDA_PREFIX"] = prefix
    return variables
