"""environment.yml, as conda and repo2docker read it."""

from __future__ import annotations

import re

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "environment.yml"
IGNORED = ("name", "prefix")
"""of the place where conda would make the environment, which is nbhull's matter here"""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SECRET = re.compile(r"://[^/]*@|/t/[^/]+/")
"""a name and password, or a token, in a channel's address"""


class CondaFile(Record):
    """What an environment.yml asks for."""

    channels: tuple[str, ...]
    """names, addresses and folders, the most important first; empty where the file leaves it to the settings"""
    specs: tuple[str, ...]
    """packages of conda, as MatchSpec"""
    pip: tuple[str, ...]
    """lines of the section `pip:`, those of a requirements file"""
    variables: tuple[tuple[str, str], ...]
    """of the environment"""
    unknown: tuple[str, ...]
    """keys that mean nothing here, as conda takes them: with a warning"""


def parse(text: str) -> CondaFile:
    """Read an environment.yml. Raises InvalidInput with what is wrong, and the line where it can be told."""
    data = load(text, NAME)
    if not isinstance(data, dict):
        raise InvalidInput(f"{NAME} is no table", "write it like  dependencies: [python=3.11, numpy]")
    channels = texts(data.get("channels"), "channels")
    for channel in channels:
        if SECRET.search(channel):
            raise InvalidInput(
                f"{NAME} has a password or token in the address of a channel, which would end in the lock file",
                "take it out, and put it into ~/.netrc, or `rattler auth login`",
            )
    specs: list[str] = []
    pip: list[str] = []
    for item in sequence(data.get("dependencies"), "dependencies"):
        if isinstance(item, dict) and set(item) == {"pip"}:
            pip += texts(item["pip"], "pip")
        elif isinstance(item, str) and item.strip() and item.isprintable():
            specs.append(item.strip())
        else:
            raise InvalidInput(f"{NAME}: {str(item)[:60]!r} is no dependency", "write it like - numpy>=1.26")
    known = ("channels", "dependencies", "variables", *IGNORED)
    unknown = tuple(str(key)[:40] for key in data if key not in known)
    return CondaFile(tuple(channels), tuple(specs), tuple(pip), variables(data.get("variables")), unknown)


def load(text: str, name: str) -> Any:
    """The document of a YAML file. Raises InvalidInput; Missing libraries are named."""
    try:
        import yaml
    except ImportError:
        raise InvalidInput(f"reading {name} needs PyYAML", "pip install 'nbhull[conda]'") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{name}:{mark.line + 1}" if mark is not None else name
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise InvalidInput(f"{place} is no YAML: {problem}", "correct it") from None
    except (RecursionError, ValueError):
        raise InvalidInput(f"{name} cannot be read: it is nested too deeply, or has a value that is none", "") from None


def sequence(value: Any, key: str) -> list[Any]:
    """A list, or nothing."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInput(f"{NAME}: {key} is no list", f"write it like  {key}: [one, two]")
    return value


def texts(value: Any, key: str) -> list[str]:
    """A list of single lines."""
    found = []
    for item in sequence(value, key):
        if not isinstance(item, str) or not item.strip() or not item.isprintable():
            raise InvalidInput(f"{NAME}: {str(item)[:60]!r} in {key} is no line of text", "put it into quotes")
        found.append(item.strip())
    return found


def variables(value: Any) -> tuple[tuple[str, str], ...]:
    """The table of variables."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise InvalidInput(f"{NAME}: variables is no table", "write it like  variables: {NAME: value}")
    found = []
    for name, item in value.items():
        if not isinstance(name, str) or VARIABLE.fullmatch(name) is None:
            raise InvalidInput(f"{NAME}: {str(name)[:40]!r} is no name of a variable", "use letters, digits and _")
        if not isinstance(item, str | int | float) or "\0" in str(item) or "\n" in str(item):
            raise InvalidInput(f"{NAME}: the variable {name} is no line of text", "put it into quotes")
        found.append((name, str(item)))
    return tuple(found)
