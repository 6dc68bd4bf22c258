"""Read and validate the files of rules. Every error names the file, the line where it can be told, and the key."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.linux.process import CAPABILITIES
from nbhull.runtime.model import parse_bytes
from nbhull.runtime.network import MODES
from nbhull.runtime.policy.rules import Policy, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LARGEST = 1 << 20
"""bytes of a file"""


def size(value: Any) -> int:
    """Bytes, as `512m`."""
    if not isinstance(value, int | str):
        raise InvalidInput(f"{value!r} is not a size", 'write it like "512m" or "2g"')
    return parse_bytes(value, "size")


def cores(value: Any) -> float:
    """A positive number of cores."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 1e6:
        raise InvalidInput(f"{value!r} is not a positive number", "write it like 1.5")
    return float(value)


def count(value: Any) -> int:
    """A positive whole number."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise InvalidInput(f"{value!r} is not a positive whole number", "write it like 500")
    return value


def mode(value: Any) -> str:
    """One of the networks."""
    if value not in MODES:
        raise InvalidInput(f"{value!r} is not a network", f"one of: {', '.join(MODES)}")
    return str(value)


def fallback(value: Any) -> str:
    """A network that every machine has."""
    if value not in ("host", "none"):
        raise InvalidInput(f"{value!r} cannot take the place of nat", "one of: host, none")
    return str(value)


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{value!r} is neither true nor false", "write true or false, without quotes")
    return value


def word(value: Any) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{value!r} is not a name", 'write it in quotes: "host"')
    return value


def words(value: Any) -> list[str]:
    """A list of texts; it may be empty, which allows nothing."""
    if not isinstance(value, list):
        raise InvalidInput(f"{value!r} is not a list", 'write it like ["host"]')
    return [word(item) for item in value]


def folders(value: Any) -> list[str]:
    """A list of `PATH` or `PATH:ro`, absolute or below `~`."""
    for item in words(value):
        path = item.removesuffix(":ro")
        if not path.startswith("/") and path != "~" and not path.startswith("~/"):
            raise InvalidInput(f"{item!r} is not an absolute path", 'write it like "/data", "/data:ro" or "~/work"')
    return words(value)


def capabilities(value: Any) -> list[str]:
    """A list of capabilities, or ALL."""
    names = [item.upper().removeprefix("CAP_") for item in words(value)]
    for name in names:
        if name != "ALL" and name not in CAPABILITIES:
            raise InvalidInput(f"{name!r} is no capability", "see capabilities(7)")
    return names


SCHEMA: dict[str, tuple[Callable[[Any], Any], str]] = {
    "images.default": (word, "image of kernels whose kernelspec names none"),
    "images.allowed": (words, "patterns of images that may be run; snapshots count as what they were made from"),
    "registries.allowed": (words, "patterns of REGISTRY/REPOSITORY that may be pulled and pushed"),
    "limits.memory.default": (size, "memory where none is asked for"),
    "limits.memory.max": (size, "the most memory, swap included; it holds also where none is asked for"),
    "limits.cpus.default": (cores, "cores where none are asked for"),
    "limits.cpus.max": (cores, "the most cores"),
    "limits.pids.default": (count, "processes where none are asked for"),
    "limits.pids.max": (count, "the most processes"),
    "limits.disk.default": (size, "bytes of a container's own files where none are asked for"),
    "limits.disk.max": (size, "the most bytes of a container's own files"),
    "limits.inodes.default": (count, "files of a container's own where none are asked for"),
    "limits.inodes.max": (count, "the most files of a container's own"),
    "snapshots.count": (count, "how many automatic snapshots of a container are kept for each kind of occasion"),
    "snapshots.bytes": (size, "bytes of all automatic snapshots that are kept"),
    "network.default": (mode, "network where none is asked for"),
    "network.max": (mode, "the widest network, in the order host, nat, none"),
    "network.fallback": (fallback, "network where none is asked for and nat cannot be had"),
    "network.publish": (flag, "whether ports may be published"),
    "mounts.allowed": (folders, "folders that may be handed in, with what is below; :ro only read-only"),
    "volumes.allowed": (words, "patterns of the names of volumes that may be handed in"),
    "devices.allowed": (words, "patterns of devices that may be handed in"),
    "gpus.allowed": (flag, "whether GPUs may be handed in"),
    "capabilities.allowed": (capabilities, "capabilities that may be added to the usual ones"),
    "kernels.siblings": (flag, "whether kernels may have other containers run for them: cells and builds"),
    "security.privileged": (flag, "whether privileged containers may be made"),
    "security.unconfined": (flag, "whether seccomp, no_new_privs or masked paths may be changed"),
}
"""by key: how its value is read, and what it means"""


def read(paths: list[str]) -> Policy:
    """The rules of these files, of which the first binds the others."""
    return Policy([rule for path in paths for rule in read_file(path)])


def read_file(path: str) -> list[Rule]:
    """The rules of one file. Raises InvalidInput."""
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", "see its permissions") from error
    if len(data) > LARGEST:
        raise InvalidInput(f"{path} is larger than {LARGEST >> 20} MiB", "shorten it")
    try:
        text = data.decode()
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) or "it is nested too deep"
        raise InvalidInput(f"{path} is not valid TOML: {reason}", "see https://toml.io") from None
    rules = []
    for key, value in flatten(table):
        line = locate(text, key)
        where = f"{path}, line {line}" if line else path
        if key not in SCHEMA:
            known = [name for name in SCHEMA if name.split(".")[0] == key.split(".")[0]] or list(SCHEMA)
            raise InvalidInput(f"{where}: there is no rule {key[:80]!r}", f"known are {', '.join(known)}")
        try:
            rules.append(Rule(key, SCHEMA[key][0](value), shown(value), path, line))
        except InvalidInput as error:
            raise InvalidInput(f"{where}: {key}: {error.message}", error.hint) from None
    return rules


def flatten(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested tables with their dotted keys; an empty table counts as a value, so that it is refused."""
    for name, value in table.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and value and key not in SCHEMA:
            yield from flatten(value, f"{key}.")
        else:
            yield key, value


def locate(text: str, key: str) -> int:
    """The line of a dotted key, or of the table that it stands in; 0 where it cannot be told."""
    section, best, found = "", 0, 0
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            section = dotted(header[1])
            full = section
        elif assignment := re.match(r"\s*([A-Za-z0-9_.\"' -]+?)\s*=", line):
            full = ".".join(part for part in (section, dotted(assignment[1])) if part)
        else:
            continue
        if (key == full or key.startswith(f"{full}.")) and len(full) >= best:
            best, found = len(full), number
    return found


def dotted(key: str) -> str:
    """A key as it is written, without quotes and spaces."""
    return re.sub(r"[\"'\s]", "", key)


def shown(value: Any) -> str:
    """A value as it would be written."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(shown(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
