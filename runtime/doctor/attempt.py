"""Trying something in a forked child, whose namespaces and mounts end with it."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import NamedTuple

from nbhull.runtime.errors import HullError, SyscallFailed


class Outcome(NamedTuple):
    """How an attempt ended."""

    succeeded: bool
    answer: str
    """what the attempted function returned"""
    call: str = ""
    """the system call that failed, as its SyscallFailed names it"""
    errno: int = 0
    subject: str = ""
    message: str = ""
    """the failure in words, without a full stop"""
    hint: str = ""


def attempt(function: Callable[[], str], meanwhile: Callable[[int], None] | None = None) -> Outcome:
    """Call `function` in a forked child, and tell how it ended.

    `meanwhile` is called here with the child's id, before the child calls `function`; with it, the
    child has entered a user namespace of its own by then, so that its maps can be written.
    Exceptions of `meanwhile` pass through, once the child has ended.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    entered, go = (os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)) if meanwhile else (None, None)
    child = os.fork()
    if child == 0:
        try:
            if entered and go:
                os.close(go[1])
            fields = _call(function, entered[1] if entered else -1, go[0] if go else -1)
            os.write(write, "\0".join(fields).encode(errors="replace")[:60_000])
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(0)  # whatever happened, a child never returns into its parent's stack
    os.close(write)
    try:
        if meanwhile and entered and go:
            os.close(entered[1])
            os.close(go[0])
            try:
                if os.read(entered[0], 1):
                    meanwhile(child)
                    os.write(go[1], b"x")
            finally:
                os.close(entered[0])
                os.close(go[1])
        data = _read_all(read)
    finally:
        os.close(read)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not data:
        why = f"killed by {signal.Signals(-status).name}" if status < 0 else "it ended without an answer"
        return Outcome(False, "", message=f"the attempt failed: {why}")
    succeeded, answer, call, errno, subject, message, hint = data.decode().split("\0")
    return Outcome(succeeded == "yes", answer, call, int(errno), subject, message, hint)


def _call(function: Callable[[], str], entered: int, go: int) -> tuple[str, ...]:
    """In the child: the function's outcome as texts, in the order of Outcome's fields."""
    try:
        if entered >= 0:
            from nbhull.runtime.linux.process import CLONE_NEWUSER, unshare

            unshare(CLONE_NEWUSER)
            os.write(entered, b"x")
            if not os.read(go, 1):
                return ("no", "", "", "0", "", "the user namespace got no map", "")
        return ("yes", function(), "", "0", "", "", "")
    except SyscallFailed as error:
        return ("no", "", error.call, str(error.errno), error.subject, error.message, error.hint)
    except HullError as error:
        return ("no", "", "", "0", "", error.message, error.hint)
    except OSError as error:
        path = str(error.filename or "")
        return ("no", "", "", str(error.errno or 0), path, f"{path or 'a file'}: {error.strerror}", "")


def _read_all(descriptor: int) -> bytes:
    data = b""
    while chunk := os.read(descriptor, 65536):
        data += chunk
    return data
