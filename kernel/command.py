"""Which command runs a kernel inside an image: its kernelspec is looked up there, in any language."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import InvalidInput, NotFound

BOOT = "/run/nbhull/lib/nbhull/kernel/app/boot.py"
"""where the engine binds the program that starts a Python kernel with %container in it"""

SYSTEM_PREFIXES = ("/opt/conda", "/opt/venv", "/usr/local", "/usr")
BIN_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
IPYKERNEL_MODULES = ("ipykernel_launcher", "ipykernel")


@dataclass(frozen=True)
class KernelCommand:
    """How to start a kernel inside a container."""

    argv: tuple[str, ...]
    """with `{connection_file}` where its path belongs"""
    env: dict[str, str] = field(default_factory=dict)
    interrupt_mode: str = "signal"
    is_ipykernel: bool = False
    """whether nbhull's own kernel application runs, which can take over a reset"""

    def with_connection_file(self, path: str, extra: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The argument vector for one start."""
        return tuple(word.replace("{connection_file}", path) for word in self.argv) + extra


class CommandFinder:
    """Looks for kernelspecs and programs in one running container."""

    def __init__(self, engine: Engine, container: str, image: str, prefix: str | None) -> None:
        """`prefix`: of the Python environment that shows through, looked at first."""
        self.engine = engine
        self.container = container
        self.image = image
        own = own_prefixes(json.loads(engine.row(container)["record"]))
        self.prefixes = tuple(dict.fromkeys((*([prefix] if prefix else []), *own, *SYSTEM_PREFIXES)))
        self.listings: dict[str, frozenset[str]] = {}

    def find(self, name: str) -> KernelCommand:
        """The command of the kernelspec `name`.

        Raises NotFound if the image has no such kernelspec, or not the program that it names, and
        InvalidInput if its kernelspec is malformed.
        """
        for prefix in self.prefixes:
            found = self.from_kernelspec(prefix, f"{prefix}/share/jupyter/kernels/{name}")
            if found is not None:
                return found
        if name.lower() in ("python3", "python"):
            python = self.find_python(None)
            return KernelCommand((python, BOOT, "-f", "{connection_file}"), is_ipykernel=True)
        known = ", ".join(sorted(self.kernelspecs())) or "none"
        raise NotFound(f"the image {self.image!r} has no kernelspec {name!r}", f"kernelspecs in it: {known}")

    def kernelspecs(self) -> set[str]:
        """Names of the kernelspecs in the image."""
        return {entry for prefix in self.prefixes for entry in self.names(f"{prefix}/share/jupyter/kernels")}

    def from_kernelspec(self, prefix: str, folder: str) -> KernelCommand | None:
        """The command of the kernelspec in `folder`, which lies below the installation `prefix`;
        None if there is none."""
        try:
            text = self.engine.read(self.container, f"{folder}/kernel.json")
        except NotFound:
            return None
        spec = parse_kernelspec(text, folder)
        argv = [word.replace("{resource_dir}", folder).replace("{prefix}", prefix) for word in spec["argv"]]
        argv[0] = self.find_program(argv[0], prefix)
        is_ipykernel = runs_ipykernel(argv)
        if is_ipykernel:
            at = argv.index("-m")
            argv[at : at + 2] = [BOOT]
        return KernelCommand(tuple(argv), spec["env"], spec["interrupt_mode"], is_ipykernel)

    def find_program(self, program: str, prefix: str) -> str:
        """Absolute path of a kernelspec's program inside the container; raises NotFound.

        A Python that is not there is looked for beside the kernelspec and then anywhere: wheels
        say just `python`, and environments were moved into images from elsewhere.
        """
        if program.startswith("/") and self.exists(program):
            return program
        if PYTHON.fullmatch(os.path.basename(program)):
            return self.find_python(prefix)
        if "/" not in program:
            for folder in dict.fromkeys((f"{prefix}/bin", *self.bin_folders())):
                if self.exists(f"{folder}/{program}"):
                    return f"{folder}/{program}"
        raise NotFound(
            f"the image {self.image!r} has no program {program!r}, which its kernelspec needs",
            "install it in the image, or mend the kernelspec's argv",
        )

    def find_python(self, prefix: str | None) -> str:
        """Absolute path of a Python, best that of `prefix`; raises NotFound."""
        for folder in dict.fromkeys(([f"{prefix}/bin"] if prefix else []) + list(self.bin_folders())):
            for name in ("python3", "python"):
                if self.exists(f"{folder}/{name}"):
                    return f"{folder}/{name}"
        raise NotFound(
            f"the image {self.image!r} has no python",
            "choose an image with python and ipykernel, such as host",
        )

    def bin_folders(self) -> tuple[str, ...]:
        """Where programs are looked for, the environments' first."""
        return (*(f"{prefix}/bin" for prefix in self.prefixes), *BIN_FOLDERS)

    def exists(self, path: str) -> bool:
        """Whether there is such a file in the container."""
        folder, _, name = path.rpartition("/")
        return name in self.names(folder)

    def names(self, folder: str) -> frozenset[str]:
        """Names in a folder of the container, asked for once."""
        if folder not in self.listings:
            self.listings[folder] = frozenset(self.engine.listdir(self.container, folder))
        return self.listings[folder]


def own_prefixes(record: Mapping[str, Any]) -> list[str]:
    """Where the image's variables say that its programs are installed, but for the system's own folders, in which the
    search ends anyway."""
    config = record.get("config") or {}
    variables = dict(variable.split("=", 1) for variable in config.get("env", ()))
    folders = [variables.get("VIRTUAL_ENV", ""), variables.get("CONDA_PREFIX", "")]
    programs = variables.get("PATH", "").split(":")
    folders += [folder.removesuffix("/bin") for folder in programs if folder.endswith("/bin")]
    return [folder for folder in folders if folder.startswith("/") and folder not in SYSTEM_PREFIXES]


def runs_ipykernel(argv: list[str]) -> bool:
    """Whether a command is a Python that runs ipykernel's launcher and nothing else."""
    if PYTHON.fullmatch(os.path.basename(argv[0])) is None or "-m" not in argv:
        return False
    at = argv.index("-m")
    return argv[at + 1 : at + 2] != [] and argv[at + 1] in IPYKERNEL_MODULES


def parse_kernelspec(text: bytes, folder: str) -> dict[str, Any]:
    """A kernelspec from inside an image, which is hostile input: `argv`, `env`, `interrupt_mode`,
    `language`, `display_name` and `metadata`. Raises InvalidInput."""
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise malformed(folder, "it is not valid JSON") from error
    if not isinstance(spec, dict):
        raise malformed(folder, "it is not a table")
    values: dict[str, Any] = {}
    for key, default, is_right in FORM:
        values[key] = spec.get(key, default)
        if not is_right(values[key]):
            raise malformed(folder, f"{key} is not of the right form")
    return values


def is_text(value: Any) -> bool:
    """Whether a value can be an argument or a variable of a process."""
    return isinstance(value, str) and "\0" not in value


def is_name(value: Any) -> bool:
    """Whether a value can name a variable of a process."""
    return is_text(value) and value != "" and "=" not in value


FORM: tuple[tuple[str, Any, Callable[[Any], bool]], ...] = (
    ("argv", None, lambda v: isinstance(v, list) and v != [] and all(map(is_text, v)) and v[0] != ""),
    ("env", {}, lambda v: isinstance(v, dict) and all(map(is_name, v)) and all(map(is_text, v.values()))),
    ("interrupt_mode", "signal", lambda v: v in ("signal", "message")),
    ("language", "", is_text),
    ("display_name", "", is_text),
    ("metadata", {}, lambda v: isinstance(v, dict)),
)


def malformed(folder: str, reason: str) -> InvalidInput:
    """The error for a kernelspec that cannot be used."""
    return InvalidInput(f"the kernelspec {folder}/kernel.json cannot be used: {reason}", "mend it, or choose another")
