"""What a stage has come to: the image's configuration, its layers, its history.

Fields are those of the OCI image configuration (config.md of the image specification), with Docker's Healthcheck,
OnBuild and Shell (https://github.com/moby/docker-image-spec/blob/main/spec.md).
"""

from __future__ import annotations

import json
import posixpath

from nbhull.runtime.builder.instructions import Command, duration
from nbhull.runtime.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.builder.scope import StageScope

SHELL = ["/bin/sh", "-c"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SIGNALS = {
    name: number
    for number, name in enumerate(
        "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU "
        "URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS".split(),
        1,
    )
}


class State:
    """One stage, as far as it has got."""

    def __init__(
        self,
        config: dict[str, Any],
        layers: list[str],
        key: str,
        history: list[dict[str, Any]] | None = None,
        author: str = "",
    ) -> None:
        self.config = dict(config)
        self.layers = list(layers)
        """ids of layers of the store, the newest first"""
        self.key = key
        """digest of all that made the files what they are"""
        self.history = list(history or [])
        self.author = author
        self.command_is_own = False
        """CMD was given in this stage, so that ENTRYPOINT does not take it away"""

    @property
    def env(self) -> dict[str, str]:
        """The environment."""
        return dict(variable.partition("=")[::2] for variable in self.config.get("Env") or [])

    def set_env(self, env: dict[str, str]) -> None:
        """Change the environment."""
        self.config["Env"] = [f"{name}={value}" for name, value in env.items()]

    @property
    def folder(self) -> str:
        """The working folder."""
        return str(self.config.get("WorkingDir") or "/")

    @property
    def user(self) -> str:
        """Who runs what comes next."""
        return str(self.config.get("User") or "")

    @property
    def shell(self) -> list[str]:
        """What the shell form of commands is handed to."""
        return list(self.config.get("Shell") or SHELL)

    def argv(self, command: Command) -> list[str]:
        """The arguments of a command in either form."""
        return list(command.args) if command.json else [*self.shell, *command.args]

    def remember(self, text: str, created: str, *, empty: bool = True) -> None:
        """One more line of history; `empty`: the step made no layer."""
        entry: dict[str, Any] = {"created": created, "created_by": text, "comment": "nbhull"}
        if empty:
            entry["empty_layer"] = True
        self.history.append(entry)

    def apply(self, command: Command, scope: StageScope) -> str:
        """Do what an instruction does to the configuration alone; what history says of it. Raises InvalidInput."""
        text: str = getattr(self, f"do_{command.name}")(command, scope)
        return text

    def do_env(self, command: Command, scope: StageScope) -> str:
        before = dict(scope.env)
        scope.set(command)
        self.set_env(scope.env)
        changed = {name: scope.env[name] for name in scope.env if scope.env[name] != before.get(name)}
        names = [scope.expand(name) for name in command.args[::2]]
        shown = {name: scope.env[name] for name in names if name in scope.env} | changed
        return "ENV " + " ".join(f"{name}={value}" for name, value in shown.items())

    def do_label(self, command: Command, scope: StageScope) -> str:
        labels = {
            scope.expand(name): scope.expand(value)
            for name, value in zip(command.args[::2], command.args[1::2], strict=True)
        }
        if "" in labels:
            raise InvalidInput("a name of LABEL is empty", "write it like LABEL NAME=value")
        self.config["Labels"] = {**(self.config.get("Labels") or {}), **labels}
        return "LABEL " + " ".join(f"{name}={value}" for name, value in labels.items())

    def do_arg(self, command: Command, scope: StageScope) -> str:
        scope.declare(command)
        names = [arg.partition("=")[0] for arg in command.args]
        return "ARG " + " ".join(f"{name}={scope.args[name]}" if name in scope.args else name for name in names)

    def do_user(self, command: Command, scope: StageScope) -> str:
        user = scope.expand(command.args[0])
        if not user:
            raise InvalidInput("USER names nobody", "write it like USER 1000")
        self.config["User"] = user
        return f"USER {user}"

    def do_workdir(self, command: Command, scope: StageScope) -> str:
        folder = scope.expand(command.args[0])
        if not folder or "\0" in folder:
            raise InvalidInput("WORKDIR names no folder", "write it like WORKDIR /app")
        self.config["WorkingDir"] = "/" + posixpath.normpath(posixpath.join(self.folder, folder)).lstrip("/")
        return f"WORKDIR {self.folder}"

    def do_expose(self, command: Command, scope: StageScope) -> str:
        from nbhull.runtime.builder.expansion import expand_words

        words = [word for arg in command.args for word in expand_words(arg, scope.variables(), scope.outer.rules)]
        ports = {port for word in words for port in ports_of(word)}
        self.config["ExposedPorts"] = {
            port: {} for port in sorted(ports | set(self.config.get("ExposedPorts") or {}))
        }
        return f"EXPOSE {' '.join(sorted(ports))}"

    def do_volume(self, command: Command, scope: StageScope) -> str:
        paths = [scope.expand(path) for path in command.args]
        if not all(path.strip() for path in paths):
            raise InvalidInput("a path of VOLUME is empty", "write it like VOLUME /data")
        self.config["Volumes"] = {**(self.config.get("Volumes") or {}), **{path: {} for path in paths}}
        return f"VOLUME {json.dumps(paths, ensure_ascii=False)}"

    def do_stopsignal(self, command: Command, scope: StageScope) -> str:
        text = scope.expand(command.args[0])
        name = text.upper().removeprefix("SIG").partition("+")[0]
        if not (text.isdigit() and 0 < int(text) < 65) and name not in {*SIGNALS, "RTMIN", "RTMAX"}:
            raise InvalidInput(f"there is no signal {text!r}", "write it like STOPSIGNAL SIGTERM")
        self.config["StopSignal"] = text
        return f"STOPSIGNAL {text}"

    def do_maintainer(self, command: Command, scope: StageScope) -> str:
        self.author = command.args[0]
        return f"MAINTAINER {self.author}"

    def do_shell(self, command: Command, scope: StageScope) -> str:
        self.config["Shell"] = list(command.args)
        return f"SHELL {json.dumps(list(command.args), ensure_ascii=False)}"

    def do_cmd(self, command: Command, scope: StageScope) -> str:
        self.config["Cmd"] = self.argv(command) if command.args else []
        self.command_is_own = True
        return f"CMD {json.dumps(self.config['Cmd'], ensure_ascii=False)}"

    def do_entrypoint(self, command: Command, scope: StageScope) -> str:
        argv = self.argv(command) if command.args else None
        self.config["Entrypoint"] = argv
        if not self.command_is_own:
            self.config["Cmd"] = None  # a base's CMD was meant for the base's ENTRYPOINT
        return f"ENTRYPOINT {json.dumps(argv or [], ensure_ascii=False)}"

    def do_healthcheck(self, command: Command, scope: StageScope) -> str:
        if command.args[0].upper() == "NONE":
            self.config["Healthcheck"] = {"Test": ["NONE"]}
            return "HEALTHCHECK NONE"
        words = list(command.args[1:])
        check: dict[str, Any] = {"Test": ["CMD", *words] if command.json else ["CMD-SHELL", *words]}
        flags = command.flags
        for flag, field in (
            ("interval", "Interval"),
            ("timeout", "Timeout"),
            ("start-period", "StartPeriod"),
            ("start-interval", "StartInterval"),
        ):
            if flags[flag] and (value := duration(flags[flag], f"--{flag}")):
                check[field] = value
        if flags["retries"] and int(flags["retries"]):
            check["Retries"] = int(flags["retries"])
        self.config["Healthcheck"] = check
        return command.text

    def do_onbuild(self, command: Command, scope: StageScope) -> str:
        self.config["OnBuild"] = [*(self.config.get("OnBuild") or []), command.args[0]]
        return f"ONBUILD {command.args[0]}"


def ports_of(word: str) -> list[str]:
    """The ports of `80`, `80/udp`, `8000-8010`. Raises InvalidInput."""
    wrong = InvalidInput(f"{word!r} is no port", "write it like EXPOSE 80, EXPOSE 53/udp or EXPOSE 8000-8010")
    numbers, _, protocol = word.partition("/")
    protocol = protocol.lower() or "tcp"
    first, dash, last = numbers.partition("-")
    if ":" in first:
        raise InvalidInput(f"{word!r} names a port of the host", "EXPOSE takes the container's port alone")
    if protocol not in ("tcp", "udp", "sctp") or not (first + last).isascii() or not first.isdigit():
        raise wrong
    if dash and not last.isdigit():
        raise wrong
    low, high = int(first), int(last or first)
    if not 0 < low <= high < 65536:
        raise wrong
    return [f"{port}/{protocol}" for port in range(low, high + 1)]
