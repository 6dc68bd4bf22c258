"""The one exception tree of nbhull.

Every exception carries a message (one sentence, lower case, no full stop) and a hint: what mends
it, as an exact command line where there is one. Text for people is made only at the edges: the
command line, the magic and the provisioner.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class HullError(Exception):
    """Something that nbhull was asked to do could not be done."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def to_dict(self) -> dict[str, Any]:
        """The exception as plain data, to cross a process boundary; `from_dict` is its inverse."""
        return {"kind": type(self).__name__, "message": self.message, "hint": self.hint}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> HullError:
        """Rebuild an exception sent by another of nbhull's processes."""
        kind = KINDS.get(str(data.get("kind")), HullError)
        error = kind.__new__(kind)
        HullError.__init__(error, str(data.get("message")), str(data.get("hint", "")))
        if isinstance(error, SyscallFailed):
            error.call, error.subject = str(data.get("call", "")), str(data.get("subject", ""))
            error.errno = int(data.get("errno", 0))
        return error


class InvalidInput(HullError):
    """An option, a name, a file or a message is not of the form it must have."""


class NotFound(HullError):
    """No image, container, snapshot, kernelspec or file of that name exists."""


class Conflict(HullError):
    """The request collides with what exists: a name in use, a container that still runs."""


class Denied(HullError):
    """A policy forbids the request."""


class HostUnable(HullError):
    """This machine refuses an ability that is needed; the hint is the line that mends it."""


class ProcessFailed(HullError):
    """A process in a container could not be started, or ended before it was of use."""


class CommandNotFound(ProcessFailed):
    """The program to start does not exist in the container (a shell's status 127)."""


class CommandNotExecutable(ProcessFailed):
    """The program to start exists in the container, but cannot be executed (a shell's status 126)."""


class LauncherLost(HullError):
    """The launcher ended, and with it the containers that it held."""


LOST_HINT = "start it again; its files are there"


class ContainerLost(LauncherLost):
    """A container had to be ended, since nobody knew any more where its processes stood; its files are whole."""


class SyscallFailed(HullError):
    """A system call failed where no better explanation is known."""

    def __init__(self, call: str, errno: int, subject: str = "", hint: str = "") -> None:
        what = f"{call} on {subject}" if subject else call
        super().__init__(f"{what} failed: {os.strerror(errno)}", hint)
        self.call = call
        self.errno = errno
        self.subject = subject

    def to_dict(self) -> dict[str, Any]:
        """The exception as plain data, with what is needed to find out what mends it."""
        return super().to_dict() | {"call": self.call, "errno": self.errno, "subject": self.subject}


KINDS: dict[str, type[HullError]] = {
    cls.__name__: cls
    for cls in (
        HullError,
        InvalidInput,
        NotFound,
        Conflict,
        Denied,
        HostUnable,
        ProcessFailed,
        CommandNotFound,
        CommandNotExecutable,
        LauncherLost,
        ContainerLost,
        SyscallFailed,
    )
}
