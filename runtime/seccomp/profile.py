"""Reading a profile in Docker's JSON format, and what it says for one machine and one set of capabilities.

The meaning is Docker's and runc's: rules with conditions allow (or refuse) beside each other, one without conditions
settles its system call, and names of other architectures are passed over.
"""

from __future__ import annotations

import errno
import json
import os
import re

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.linux.process import CAPABILITIES
from nbhull.runtime.record import Record
from nbhull.runtime.seccomp.syscalls import DOCKER_NAMES, ELSEWHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KILL_PROCESS, KILL_THREAD, TRAP, ERRNO = 0x80000000, 0x00000000, 0x00030000, 0x00050000
TRACE, LOG, ALLOW = 0x7FF00000, 0x7FFC0000, 0x7FFF0000
ACTIONS = {
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_ALLOW": ALLOW,
}
PERMISSIVE = (ALLOW, LOG)
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
KEYS = {"defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "syscalls", "flags", "comment"}
RULE_KEYS = {"name", "names", "action", "errnoRet", "errno", "args", "includes", "excludes", "comment"}
LARGEST_ERRNO = 4095


class Condition(Record):
    """What an argument of a system call must be: 64-bit words, compared without a sign."""

    index: int
    operator: str
    value: int
    second: int = 0
    """of MASKED_EQ: what must be left of the argument under the mask `value`"""


class Rule(Record):
    """What becomes of some system calls."""

    names: tuple[str, ...]
    action: int
    """of seccomp(2), with its errno"""
    conditions: tuple[Condition, ...] = ()
    """that must all hold"""


class Profile(Record):
    """The rules that hold for one machine and one set of capabilities."""

    default: int
    rules: tuple[Rule, ...]


def read(text: str) -> dict[str, Any]:
    """The JSON of a profile. Raises InvalidInput."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"it is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise invalid("it is no JSON object")
    return document


def resolve(document: dict[str, Any], architecture: str, capabilities: frozenset[str]) -> Profile:
    """What a profile's JSON says for an architecture and the container's bounding set.

    Raises InvalidInput that names what is wrong and where."""
    for key in document.keys() - KEYS:
        hint = "nbhull has no agent to ask about system calls" if key.startswith("listener") else ""
        raise invalid(f"{key!r} is not known", hint)
    if document.get("architectures") and document.get("archMap"):
        raise invalid("it has both 'architectures' and 'archMap'", "keep one of them")
    default = action_of(document.get("defaultAction"), errno_in(document, "defaultErrno"), "defaultAction")
    rules: list[Rule] = []
    for number, entry in enumerate(list_of(document, "syscalls", "it")):
        where = f"syscalls[{number}]"
        if not isinstance(entry, dict):
            raise invalid(f"{where} is no object")
        if unknown := entry.keys() - RULE_KEYS:
            raise invalid(f"{where} has {min(unknown)!r}, which is not known")
        names = names_of(entry, where)
        action = action_of(entry.get("action"), errno_in(entry, "errno"), f"{where}.action")
        if action & 0xFFFF0000 not in PERMISSIVE:
            refuse_unknown(names, where)
        conditions = [condition(item, where) for item in list_of(entry, "args", where)]
        if applies(entry, where, architecture, capabilities):
            rules += separated(names, action, conditions)
    return Profile(default, tuple(rules))


def invalid(what: str, hint: str = "") -> InvalidInput:
    """The error for a profile that cannot be used."""
    return InvalidInput(
        f"the seccomp profile cannot be used: {what}", hint or "write it as Docker's documentation tells"
    )


def list_of(entry: dict[str, Any], key: str, where: str) -> list[Any]:
    """A list in an object; none is an empty one."""
    value = entry.get(key)
    if value is not None and not isinstance(value, list):
        raise invalid(f"{key} of {where} is no list")
    return value or []


def names_of(entry: dict[str, Any], where: str) -> tuple[str, ...]:
    """The system calls that a rule is about."""
    if "name" in entry and entry.get("names"):
        raise invalid(f"{where} has both 'name' and 'names'", "keep one of them")
    names = [entry["name"]] if entry.get("name") else list_of(entry, "names", where)
    if not names or not all(isinstance(name, str) for name in names):
        raise invalid(f"{where} names no system calls")
    return tuple(names)


def refuse_unknown(names: tuple[str, ...], where: str) -> None:
    """A rule that refuses what does not exist was meant to refuse something else, which would stay allowed."""
    from nbhull.runtime.seccomp.syscalls import AARCH64, X86_64

    known = {*X86_64.split(), *AARCH64.split(), *ELSEWHERE}
    for name in names:
        if name not in known:
            raise invalid(f"{where} refuses {name[:80]!r}, which is no system call", "correct its name")


def errno_in(entry: dict[str, Any], key: str) -> Any:
    """The errno that an entry gives: Docker's number, or the name that Podman's profiles have as well."""
    number = entry.get(f"{key}Ret")
    name = entry.get(key)
    return getattr(errno, str(name), name) if number is None and name else number


def action_of(name: Any, number: Any, where: str) -> int:
    """The value that a filter returns; `number`: the errno, EPERM if none is given."""
    if name == "SCMP_ACT_NOTIFY":
        raise invalid(f"{where} is SCMP_ACT_NOTIFY", "nbhull has no agent to ask about system calls")
    if not isinstance(name, str) or name not in ACTIONS:
        raise invalid(f"{where} is {str(name)[:80]!r}", "one of: " + ", ".join(ACTIONS))
    action = ACTIONS[name]
    if action not in (ERRNO, TRACE):
        return action
    if number is None:
        return action | errno.EPERM
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= LARGEST_ERRNO:
        raise invalid(f"the errno {str(number)[:80]!r} of {where} is no number from 0 to {LARGEST_ERRNO}")
    return action | number


def condition(item: Any, where: str) -> Condition:
    """One entry of `args`."""
    if not isinstance(item, dict) or not item.keys() <= {"index", "value", "valueTwo", "op"}:
        raise invalid(f"args of {where} are not of the form {{index, value, valueTwo, op}}")
    numbers = [item.get("index"), item.get("value", 0), item.get("valueTwo") or 0]
    for number, bound in zip(numbers, (6, 1 << 64, 1 << 64), strict=True):
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < bound:
            raise invalid(f"args of {where} have {str(number)[:80]!r}, which is no number below {bound}")
    operator = str(item.get("op")).removeprefix("SCMP_CMP_")
    if operator not in OPERATORS:
        raise invalid(f"args of {where} have the operator {operator[:80]!r}", "one of: " + ", ".join(OPERATORS))
    index, value, second = numbers
    return Condition(index, operator, value, second)


def separated(names: tuple[str, ...], action: int, conditions: list[Condition]) -> list[Rule]:
    """One rule, or where it has several conditions on one argument, a rule for each condition, as runc reads it."""
    indices = [c.index for c in conditions]
    if len(set(indices)) == len(indices):
        return [Rule(names, action, tuple(conditions))]
    return [Rule(names, action, (c,)) for c in conditions]


def applies(entry: dict[str, Any], where: str, architecture: str, capabilities: frozenset[str]) -> bool:
    """Whether a rule's `includes` and `excludes` let it hold here."""
    here = DOCKER_NAMES[architecture]
    for key in ("includes", "excludes"):
        facts = filter_facts(entry.get(key), f"{where}.{key}", here, capabilities)
        if key == "includes" and not all(all(found) for found in facts):
            return False
        if key == "excludes" and any(any(found) for found in facts):
            return False
    return True


def filter_facts(value: Any, where: str, here: str, capabilities: frozenset[str]) -> list[list[bool]]:
    """For each kind of condition in `includes` or `excludes`, what is true of it."""
    if value is None:
        return []
    if not isinstance(value, dict) or not value.keys() <= {"arches", "caps", "minKernel"}:
        raise invalid(f"{where} is not of the form {{arches, caps, minKernel}}")
    facts: list[list[bool]] = []
    if arches := list_of(value, "arches", where):
        facts.append([here in arches])
    if caps := list_of(value, "caps", where):
        for name in caps:
            if str(name).removeprefix("CAP_") not in CAPABILITIES:
                raise invalid(f"{where} names {str(name)[:80]!r}, which is no capability")
        facts.append([name.removeprefix("CAP_") in capabilities for name in caps])
    if (version := value.get("minKernel")) is not None:
        match = re.fullmatch(r"(\d+)\.(\d+)", str(version))
        if match is None:
            raise invalid(f"minKernel of {where} is {str(version)[:80]!r}", "write it like 4.8")
        facts.append([kernel_version() >= (int(match[1]), int(match[2]))])
    return facts


def kernel_version() -> tuple[int, int]:
    """The first two numbers of the running kernel's release."""
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return int(major), int(minor)
