"""Kernelspecs whose kernels run in containers: install, list, remove."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager

import nbhull
from nbhull.kernel.command import parse_kernelspec
from nbhull.kernel.config import from_kernelspec
from nbhull.runtime import bundle
from nbhull.runtime.errors import Conflict, InvalidInput, NotFound
from nbhull.runtime.limits import Limits
from nbhull.runtime.model import HOST_IMAGE, Mount, parse_name

NO_LIMITS = Limits()
NOTHING_ELSE: Mapping[str, Any] = {}
PROVISIONER = "container-provisioner"
LOGOS = ("logo-32x32.png", "logo-64x64.png", "logo-svg.svg")
UNKNOWN_PYTHON: dict[str, Any] = {
    "language": "python",
    "interrupt_mode": "signal",
    "metadata": {"debugger": True},
}
"""what is said of a Python kernelspec that lies in an image which is not looked into at installation"""
PASSED_ON = ("debugger",)
"""metadata of the inner kernelspec that the front ends act on, and that stays true in a container"""


@dataclass(frozen=True)
class InstalledSpec:
    """A kernelspec of ours that Jupyter finds."""

    name: str
    display_name: str
    folder: str
    config: dict[str, Any]


def install(
    name: str = "nbhull",
    display_name: str | None = None,
    image: str = HOST_IMAGE,
    kernel: str = "python3",
    *,
    limits: Limits = NO_LIMITS,
    network: str | None = None,
    mounts: Sequence[Mount] = (),
    confinement: Mapping[str, Any] = NOTHING_ELSE,
    prefix: str | None = None,
    user: bool = False,
    sys_prefix: bool = False,
) -> str:
    """Install a kernelspec, and give its folder back. One of the same name is replaced.

    `confinement`: what its processes may do, in the keys and texts of a kernelspec (`kernel.config`).
    `prefix` (a folder), `user` and `sys_prefix` say where; without any of them it is the Python
    environment of nbhull if that may be written, else the user's own folder. Raises InvalidInput,
    NotFound where the image `host` has no such kernelspec, and Conflict if it cannot be written.
    """
    name = parse_name(name, "kernelspec name").lower()
    if sum((user, sys_prefix, prefix is not None)) > 1:
        raise InvalidInput("more than one place to install to is given", "choose one of user, sys-prefix and prefix")
    inner, logos = inner_kernelspec(image, kernel)
    config = {
        "image": image,
        "kernel": kernel,
        **limits.given(),
        "network": network,
        "mounts": [mount.to_dict() for mount in mounts] or None,
        **whole_paths(confinement),
        "prefix": sys.prefix,
    }
    config = {key: value for key, value in config.items() if value is not None}
    from_kernelspec(config)  # what could not be started is not installed
    compile_package()
    spec = {
        # only the provisioner knows the command; a Jupyter without it must not start a bare kernel
        "argv": [PROVISIONER, "{connection_file}"],
        "display_name": display_name or default_display_name(inner, kernel),
        "language": inner["language"] or "python",
        "interrupt_mode": inner["interrupt_mode"],
        "metadata": {
            **{key: inner["metadata"][key] for key in PASSED_ON if key in inner["metadata"]},
            "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": config},
        },
    }
    with tempfile.TemporaryDirectory(prefix="nbhull-kernelspec-") as source:
        Path(source, "kernel.json").write_text(json.dumps(spec, indent=1) + "\n")
        copy_logos(logos, inner["language"], source)
        for parent, _, names in os.walk(source):
            os.chmod(parent, 0o755)
            for entry in names:
                os.chmod(Path(parent, entry), 0o644)
        place = prefix or (sys.prefix if sys_prefix or (not user and is_own_environment()) else None)
        try:
            installed: str = KernelSpecManager().install_kernel_spec(source, name, user=place is None, prefix=place)
        except OSError as error:
            raise Conflict(
                f"the kernelspec cannot be written to {error.filename!r}: {str(error.strerror).lower()}",
                "add --user, or --prefix with a folder of yours",
            ) from error
    return installed


def whole_paths(confinement: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the files that they name as seen from anywhere; lists in place of tuples."""
    settings = {key: list(value) if isinstance(value, tuple) else value for key, value in confinement.items()}
    if "security_opt" in settings:
        settings["security_opt"] = [
            f"seccomp={os.path.abspath(text.removeprefix('seccomp='))}"
            if text.startswith("seccomp=") and text != "seccomp=unconfined"
            else text
            for text in settings["security_opt"]
        ]
    return settings


def compile_package() -> None:
    """Keep nbhull's modules compiled, where the folder is ours to write.

    Kernels import them from a read-only mount: what an installer left uncompiled (a checkout's modules, which nothing
    but a kernel imports) would be compiled at each start.
    """
    for package in sorted(Path(nbhull.__file__).parent.iterdir()):
        if package.is_dir():
            compileall.compile_dir(package, quiet=2)
    if bundle.find() is None:
        bundle.write()


def installed() -> list[InstalledSpec]:
    """The kernelspecs of ours that Jupyter finds, by name."""
    found = []
    for name, entry in sorted(KernelSpecManager().get_all_specs().items()):
        provisioner = entry["spec"].get("metadata", {}).get("kernel_provisioner", {})
        if provisioner.get("provisioner_name") == PROVISIONER:
            config = dict(provisioner.get("config", {}))
            found.append(InstalledSpec(name, entry["spec"].get("display_name", name), entry["resource_dir"], config))
    return found


def remove(name: str) -> str:
    """Remove a kernelspec of ours, and give its folder back. Raises NotFound, also for those that are
    not ours, and Conflict if it cannot be deleted."""
    ours = {spec.name: spec for spec in installed()}
    if name.lower() not in ours:
        known = ", ".join(ours) or "none"
        raise NotFound(f"no kernelspec {name!r} was installed by nbhull", f"installed are: {known}")
    folder = ours[name.lower()].folder
    try:
        if os.path.islink(folder):
            os.unlink(folder)
        else:
            shutil.rmtree(folder)
    except OSError as error:
        raise Conflict(
            f"the kernelspec {folder!r} cannot be deleted: {str(error.strerror).lower()}",
            "run this as the user that installed it",
        ) from error
    return folder


def inner_kernelspec(image: str, kernel: str) -> tuple[dict[str, Any], Path | None]:
    """The kernelspec that will run inside, and the folder with its logos.

    Those of the image `host` lie on this machine. Those of other images are looked up when a kernel
    starts, so only Python's is assumed here.
    """
    if image == HOST_IMAGE:
        for prefix in dict.fromkeys((sys.prefix, "/usr/local", "/usr")):
            folder = Path(prefix, "share/jupyter/kernels", kernel.lower())
            if (folder / "kernel.json").is_file():
                return parse_kernelspec((folder / "kernel.json").read_bytes(), str(folder)), folder
        if kernel != "python3":
            raise NotFound(
                f"the image {image!r} would have no kernelspec {kernel!r}",
                f"install it into {sys.prefix} first; `jupyter kernelspec list` shows what is there",
            )
    return {**UNKNOWN_PYTHON, "display_name": ""}, None


def default_display_name(inner: dict[str, Any], kernel: str) -> str:
    """How Jupyter shows a kernelspec that was given no name to show."""
    if inner["language"] == "python" and kernel == "python3":
        return "Python 3 (container)"
    return f"{inner['display_name'] or kernel} (container)"


def copy_logos(folder: Path | None, language: str, target: str) -> None:
    """Copy the inner kernelspec's logos, or ipykernel's for a Python one without."""
    if folder is not None:
        for entry in folder.iterdir():
            if entry.name != "kernel.json" and entry.is_file():
                shutil.copyfile(entry, Path(target, entry.name))
    elif language == "python":
        with as_file(files("ipykernel") / "resources") as resources:
            for name in LOGOS:
                if (resources / name).is_file():
                    shutil.copyfile(resources / name, Path(target, name))


def is_own_environment() -> bool:
    """Whether nbhull lives in a Python environment that this user may change."""
    return sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK)
