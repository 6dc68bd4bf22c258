"""All that a start of a kernel process needs beside its container, kept for the starts after it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

LAST_WORDS = 4000
"""bytes at the end of a kernel's log that may tell why it ended"""


@dataclass(frozen=True)
class Launch:
    """One start of a kernel process."""

    connection: Mapping[str, Any]
    """what the connection file says, for the kernel's clients"""
    env: Mapping[str, str]
    log_path: str
    """a file beside the connection file that takes what the kernel writes to its terminal"""
    arguments: tuple[str, ...] = ()
    """behind the kernelspec's own"""
    outputs: tuple[Any, Any] = field(default=(None, None))
    """standard output and error as `subprocess.Popen` takes them; None, PIPE and STDOUT mean the log"""

    @contextmanager
    def open_output(self) -> Iterator[tuple[int, int, int]]:
        """Descriptors for standard input, output and error; they are closed behind the caller."""
        with ExitStack() as stack:

            def opened(path: str, flags: int) -> int:
                descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, descriptor)
                return descriptor

            null = opened(os.devnull, os.O_RDWR)
            log = opened(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW)
            os.ftruncate(log, 0)
            chosen = [log if (fd := descriptor_of(output)) is None else fd for output in self.outputs]
            yield (null, *(null if fd == subprocess.DEVNULL else fd for fd in chosen))  # type: ignore[misc]

    def last_words(self) -> str:
        """The end of the log."""
        with open(self.log_path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LAST_WORDS))
            return log.read(LAST_WORDS).decode("utf-8", "replace").strip()

    def delete_log(self) -> None:
        """Delete the log, if it is there."""
        with suppress(FileNotFoundError):
            os.unlink(self.log_path)


def descriptor_of(output: Any) -> int | None:
    """The descriptor that a value of Popen's `stdout` or `stderr` means; None where it means a pipe
    that only Popen could give, or nothing."""
    if output is None or output in (subprocess.PIPE, subprocess.STDOUT):
        return None
    if isinstance(output, int):
        return output
    descriptor: int = output.fileno()
    return descriptor
