"""Which variables a Containerfile's instructions see: build arguments by scope, and the image's environment.

ARG before the first FROM is seen by FROM lines, and in a stage only after an ARG of that name there; ENV is inherited
from the base and wins over ARG (https://docs.docker.com/reference/dockerfile/#arg).
"""

from __future__ import annotations

import os

from nbhull.runtime.builder.expansion import Rules, expand
from nbhull.runtime.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from nbhull.runtime.builder.instructions import Command

PROXIES = tuple(
    name
    for base in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for name in (base, base.upper())
)
"""build arguments that need no ARG, and leave no trace in history or cache"""
ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
}
"""what uname(2) calls a machine, and OCI's architecture and variant"""


def platform() -> tuple[str, str, str]:
    """The machine's own platform: operating system, architecture, variant, as OCI names them."""
    machine = os.uname().machine
    architecture, variant = ARCHITECTURES.get(machine, (machine, ""))
    return "linux", architecture, variant


def platform_arguments() -> dict[str, str]:
    """The arguments that every build has in its global scope."""
    system, architecture, variant = platform()
    whole = "/".join(part for part in (system, architecture, variant) if part)
    return {
        f"{side}{name}": value
        for side in ("BUILD", "TARGET")
        for name, value in (("PLATFORM", whole), ("OS", system), ("ARCH", architecture), ("VARIANT", variant))
    } | {"TARGETSTAGE": ""}


class GlobalScope:
    """What FROM lines see, and stages can take over."""

    def __init__(self, given: Mapping[str, str], commands: tuple[Command, ...], escape: str, target: str) -> None:
        """`given`: --build-arg. Raises InvalidInput, without the place, for an ARG whose default cannot be expanded."""
        self.given = given
        self.rules = Rules(escape)
        self.used: set[str] = set()
        """names of given arguments that some ARG declared"""
        self.values: dict[str, str] = {**platform_arguments(), "TARGETSTAGE": target}
        for name in self.values.keys() & given.keys():
            self.values[name] = given[name]
            self.used.add(name)
        for command in commands:
            before = dict(self.values)
            for arg in command.args:
                name, value = declared(arg, before, self.rules)
                if name in given:
                    value = given[name]
                    self.used.add(name)
                if value is not None:
                    self.values[name] = value

    def expand(self, text: str) -> str:
        """Text of a FROM line."""
        return expand(text, self.values, self.rules)

    def proxies(self) -> dict[str, str]:
        """The proxy arguments that were given: RUN sees them without an ARG."""
        found = {name: self.given[name] for name in PROXIES if name in self.given}
        self.used.update(found)
        return found


class StageScope:
    """What the instructions of one stage see, as far as the stage has got."""

    def __init__(self, outer: GlobalScope, env: Mapping[str, str]) -> None:
        """`env`: the base image's environment."""
        self.outer = outer
        self.env = dict(env)
        self.args: dict[str, str] = {}

    def variables(self) -> dict[str, str]:
        """All of them; what ENV sets wins."""
        return {**self.args, **self.env}

    def expand(self, text: str) -> str:
        """A text with these variables in place. Raises InvalidInput."""
        return expand(text, self.variables(), self.outer.rules)

    def declare(self, command: Command) -> None:
        """ARG: each name gets the given value, else its default, else the global scope's."""
        before = self.variables()
        for arg in command.args:
            name, value = declared(arg, before, self.outer.rules)
            if name in self.outer.given:
                value = self.outer.given[name]
                self.outer.used.add(name)
            elif value is None:
                value = self.outer.values.get(name)
            if value is not None:
                self.args[name] = value

    def set(self, command: Command) -> None:
        """ENV: all values see the variables as they were before."""
        before = self.variables()
        names, values = command.args[::2], command.args[1::2]
        new = {
            expand(name, before, self.outer.rules): expand(value, before, self.outer.rules)
            for name, value in zip(names, values, strict=True)
        }
        for name in new:
            if not name or "=" in name or "\0" in name:
                raise InvalidInput(f"{name!r} cannot be a variable's name", "write it like ENV NAME=value")
        self.env.update(new)


def declared(arg: str, variables: Mapping[str, str], rules: Rules) -> tuple[str, str | None]:
    """The name and the default of one argument of ARG."""
    name, equals, default = arg.partition("=")
    name = expand(name, variables, rules)
    if not name:
        raise InvalidInput("a name of ARG is empty", "write it like ARG NAME=default")
    return name, expand(default, variables, rules) if equals else None
