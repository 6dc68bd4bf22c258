"""What a Containerfile's instructions mean: stages, and in them commands whose flags and arguments are checked.

Nothing is expanded here, since values are known only as the build goes.
"""

from __future__ import annotations

import re

from nbhull.runtime.builder.syntax import KNOWN, Containerfile, Heredoc, Instruction, heredoc
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
TEXT, BOOL, MAYBE, MANY = "text", "bool", "maybe", "many"
FLAGS: dict[str, dict[str, str]] = {
    "from": {"platform": TEXT},
    "run": {"mount": MANY, "network": TEXT, "security": TEXT, "device": MANY},
    "copy": {"from": TEXT, "chown": TEXT, "chmod": TEXT, "link": BOOL, "parents": BOOL, "exclude": MANY},
    "add": {
        "chown": TEXT,
        "chmod": TEXT,
        "link": BOOL,
        "keep-git-dir": BOOL,
        "checksum": TEXT,
        "unpack": MAYBE,
        "exclude": MANY,
    },
    "healthcheck": {"interval": TEXT, "timeout": TEXT, "start-period": TEXT, "start-interval": TEXT, "retries": TEXT},
}
ONE_ARGUMENT = ("maintainer", "workdir", "user", "stopsignal")
SOME_ARGUMENTS = ("env", "label", "expose", "volume", "arg", "onbuild", "healthcheck", "run", "shell")
NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
SHORTEST = 10**6
"""nanoseconds; a health check's durations are 0 or at least this (Docker's)"""


class Command(Record):
    """One instruction of a stage, its flags and the number of its arguments checked."""

    name: str
    """in lower case"""
    args: tuple[str, ...]
    flags: dict[str, Any]
    """by name, all that the instruction knows: a text or None, a bool (or None if not given), a tuple of texts"""
    json: bool
    heredocs: tuple[Heredoc, ...]
    line: int
    text: str
    """as it is written, its name in capitals, for history and progress"""


class Stage(Record):
    """From one FROM to the next."""

    index: int
    name: str
    """its own, or its index as text"""
    base: str
    """what stands behind FROM: an earlier stage, an image, `scratch`"""
    platform: str
    line: int
    commands: tuple[Command, ...]
    text: str


class Program(Record):
    """All stages of a file."""

    name: str
    """the file's, for errors"""
    escape: str
    arguments: tuple[Command, ...]
    """the ARG instructions before the first FROM"""
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = ()


def located(error: InvalidInput, file: str, line: int) -> InvalidInput:
    """The error with its place before it."""
    return InvalidInput(f"{file}:{line}: {error.message}", error.hint)


def program(parsed: Containerfile, name: str = "Containerfile") -> Program:
    """The stages of a parsed file. Raises InvalidInput, with the line's number."""
    arguments: list[Command] = []
    stages: list[Stage] = []
    commands: list[Command] = []
    names: set[str] = set()
    for instruction in parsed.instructions:
        try:
            made = command(instruction)
            if made.name == "from":
                stages.append(stage(made, len(stages), names))
                commands = []
            elif stages:
                commands.append(made)
                stages[-1] = stages[-1].but(commands=tuple(commands))
            elif made.name == "arg":
                arguments.append(made)
            else:
                raise InvalidInput(f"{made.name.upper()} stands before the first FROM", "begin with FROM")
        except InvalidInput as error:
            raise located(error, name, instruction.line) from None
    if not stages:
        raise InvalidInput(f"{name} has no FROM", "name the image to build on: FROM image, or FROM scratch")
    return Program(name, parsed.escape, tuple(arguments), tuple(stages), parsed.warnings)


def stage(made: Command, index: int, names: set[str]) -> Stage:
    """The stage that a FROM begins."""
    own = ""
    if len(made.args) == 3 and made.args[1].lower() == "as":
        own = made.args[2].lower()
        if STAGE_NAME.fullmatch(own) is None:
            raise InvalidInput(f"{made.args[2]!r} cannot be a stage's name", "begin it with a letter")
        if own in names:
            raise InvalidInput(f"there is another stage {own!r}", "give each stage a name of its own")
        names.add(own)
    elif len(made.args) != 1:
        raise InvalidInput("FROM takes one argument, or three", "write FROM image, or FROM image AS name")
    return Stage(index, own or str(index), made.args[0], made.flags["platform"] or "", made.line, (), made.text)


def command(instruction: Instruction) -> Command:
    """An instruction whose form is right. Raises InvalidInput, without the place."""
    name = instruction.name
    if name not in KNOWN:
        raise unknown(name)
    known = FLAGS.get(name, {})
    if name == "healthcheck" and instruction.args and instruction.args[0].upper() == "NONE":
        known = {}
    flags = read_flags(instruction.flags, known, name.upper())
    args = instruction.args
    if name == "onbuild":
        args = (trigger(instruction),)
    if name in ONE_ARGUMENT and len(args) != 1:
        raise InvalidInput(f"{name.upper()} takes exactly one argument", f"write {name.upper()} followed by it")
    if name in SOME_ARGUMENTS and not args and not instruction.json:
        raise InvalidInput(f"{name.upper()} has no argument", "give at least one")
    if name in ("copy", "add"):
        check_copy(name, args, instruction.heredocs)
    elif name == "shell" and not (instruction.json and args):
        raise InvalidInput("SHELL is no JSON list of strings", 'write it like SHELL ["/bin/bash", "-c"]')
    elif name == "run" and instruction.json and not args:
        raise InvalidInput("RUN has no command", 'write it like RUN ["ls", "-l"]')
    elif name in ("env", "label") and "" in args[::2]:
        raise InvalidInput(f"a name of {name.upper()} is empty", f"write it like {name.upper()} NAME=value")
    elif name == "arg":
        for arg in args:
            if not arg.partition("=")[0]:
                raise InvalidInput("a name of ARG is empty", "write it like ARG NAME=default")
    elif name == "healthcheck":
        check_health(args, flags)
    text = instruction.original.strip()
    return Command(
        name,
        args,
        flags,
        instruction.json,
        instruction.heredocs,
        instruction.line,
        name.upper() + text[len(name) :],
    )


def unknown(name: str) -> InvalidInput:
    """The error for an instruction that there is not, with the nearest one."""
    from difflib import get_close_matches

    near = get_close_matches(name, KNOWN, n=1, cutoff=0.6)
    hint = f"did you mean {near[0].upper()}?" if near else "a long line is continued by a backslash at its end"
    return InvalidInput(f"there is no instruction {name.upper()!r}", hint)


def read_flags(words: tuple[str, ...], known: dict[str, str], instruction: str) -> dict[str, Any]:
    """The values of flags by their names. Raises InvalidInput for one unknown, twice, or without a value."""
    nothing = {TEXT: None, BOOL: False, MAYBE: None, MANY: ()}
    values: dict[str, Any] = {name: nothing[kind] for name, kind in known.items()}
    seen: set[str] = set()
    for word in words:
        name, equals, value = word[2:].partition("=")
        kind = known.get(name)
        if kind is None:
            has = ", ".join(f"--{flag}" for flag in known)
            raise InvalidInput(f"{instruction} knows no flag --{name}", f"it knows {has}" if has else "it has none")
        if name in seen and kind != MANY:
            raise InvalidInput(f"{instruction} has --{name} twice", "keep one of them")
        seen.add(name)
        if kind in (BOOL, MAYBE):
            if value.lower() not in ("", "true", "false"):
                raise InvalidInput(f"--{name}={value} is neither true nor false", f"write --{name}")
            values[name] = value.lower() != "false"
        elif not equals:
            raise InvalidInput(f"--{name} has no value", f"write --{name}=VALUE")
        else:
            values[name] = (*values[name], value) if kind == MANY else value
    return values


def trigger(instruction: Instruction) -> str:
    """The instruction within ONBUILD, as text with its heredocs, once it is known to be right."""
    if not instruction.trigger:
        raise InvalidInput("ONBUILD has no instruction in it", "write it like ONBUILD RUN make")
    (inner,) = instruction.trigger
    if inner.name in ("onbuild", "from", "maintainer"):
        raise InvalidInput(f"{inner.name.upper()} cannot stand within ONBUILD", "put another instruction there")
    command(inner)
    documents = "".join(f"\n{document.content}{document.name}" for document in inner.heredocs)
    return inner.original + documents


def check_copy(name: str, args: tuple[str, ...], heredocs: tuple[Heredoc, ...]) -> None:
    """COPY and ADD have sources and a destination, which is no heredoc."""
    if len(args) < 2:
        raise InvalidInput(f"{name.upper()} has no destination", f"write it like {name.upper()} source /destination")
    if heredocs and heredoc(args[-1]) is not None:
        raise InvalidInput(f"the destination of {name.upper()} is a heredoc", "put the destination last")


def check_health(args: tuple[str, ...], flags: dict[str, Any]) -> None:
    """HEALTHCHECK is NONE, or CMD with a command."""
    kind = args[0].upper()
    if kind == "NONE":
        if len(args) > 1:
            raise InvalidInput("HEALTHCHECK NONE takes no arguments", "leave them out")
        return
    if kind != "CMD":
        raise InvalidInput(f"HEALTHCHECK knows no {args[0]!r}", "write HEALTHCHECK CMD …, or HEALTHCHECK NONE")
    if len(args) < 2:
        raise InvalidInput("HEALTHCHECK CMD has no command", "write it like HEALTHCHECK CMD curl -f http://localhost/")
    for name in ("interval", "timeout", "start-period", "start-interval"):
        if flags[name] is not None:
            duration(flags[name], f"--{name}")
    retries = flags["retries"]
    if retries is not None and not (retries.isascii() and retries.isdigit() and len(retries) < 10):
        raise InvalidInput(f"--retries={retries} is not a whole number", "write it like --retries=3")


def duration(text: str, what: str) -> int:
    """Nanoseconds of a duration as Go writes it: `1m30s`, `500ms`. Raises InvalidInput for one below 1 ms."""
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", text)
    if text == "0":
        return 0
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidInput(f"{what}={text} is not a duration", f"write it like {what}=30s or {what}=1m30s")
    total = int(sum(float(number) * NANOSECONDS[unit] for number, unit in parts))
    if 0 < total < SHORTEST:
        raise InvalidInput(f"{what}={text} is less than a millisecond", f"write it like {what}=30s")
    return total
