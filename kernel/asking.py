"""What requests from containers give, checked."""

from __future__ import annotations

from typing import Any

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.model import parse_name


def name_in(params: dict[str, Any]) -> str | None:
    """The name that a request gives, if any; raises InvalidInput for a malformed one."""
    name = params.get("name")
    return None if name is None else parse_name(name)


def pid_in(params: dict[str, Any]) -> int | None:
    """The process that a request gives as `memory`, if any; raises InvalidInput for a malformed one."""
    pid = params.get("memory")
    if pid is not None and (type(pid) is not int or not 1 < pid < 1 << 22):
        raise InvalidInput("memory is not the number of a process", "ask with %container snapshot --memory")
    return pid


def pending_in(params: dict[str, Any]) -> dict[str, Any] | None:
    """What the next kernel is to finish; raises InvalidInput for what is no object."""
    pending = params.get("pending")
    if pending is not None and not isinstance(pending, dict):
        raise InvalidInput("pending is not an object", "ask with %container reset")
    return pending
