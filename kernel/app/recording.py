"""Which cells a kernel has run, and what they gave, written down for a replay.

One JSON object a line, in a file beside the connection file, which stays when the kernel is started anew:
`{"cell": code, "form": [[kind, text], ...]}` (`kernel.replay.outputs`), `{"snapshot": name}`,
`{"reset": name, "memory": bool}`, `{"start": true}`.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from typing import Any

from nbhull.kernel.replay.outputs import KINDS, Collector, condensed, normal_form

LARGEST = 64 << 20
"""bytes of the file, which may lie in memory"""
KEPT = KINDS | {"clear_output", "update_display_data"}


class Recorder:
    """Listens to what a kernel's session publishes."""

    def __init__(self, session: Any, path: str) -> None:
        self.path = path
        self.collector: Collector | None = None
        self.ended: str | None = None
        """the code of a cell that has ended, and part of whose output may not have been published"""
        self.replier = 0
        """the thread that has replied to that cell, and is about to say that the kernel is idle; 0 if none"""
        self.has_failed = False
        self.complaint = ""
        """why nothing is written down any more, until the next cell says so"""
        self.publish = session.send
        session.send = self.send

    def send(self, stream: Any, message: Any, content: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Called in place of the session's own `send`, from any thread."""
        collector = self.collector
        if collector is not None:
            kind = message["header"]["msg_type"] if isinstance(message, dict) else message
            said = message["content"] if isinstance(message, dict) else content
            if kind in KEPT:
                collector.take(kind, said)
            elif kind == "execute_reply" and self.ended is not None:
                self.replier = threading.get_ident()
            elif kind == "status" and self.replier == threading.get_ident() and said["execution_state"] == "idle":
                sent = self.publish(stream, message, content, *args, **kwargs)
                self.finish()
                return sent
        return self.publish(stream, message, content, *args, **kwargs)

    def begin(self) -> None:
        """A cell begins."""
        self.finish()
        self.collector = Collector()
        if self.complaint:
            print(f"nbhull: cells are not written down for a replay any more: {self.complaint}", file=sys.stderr)
            self.complaint = ""

    def end(self, code: str) -> None:
        """It has ended. It is written down by `finish`: when the kernel has replied to it and said that it is idle,
        since then all of its output is published, and nobody waits."""
        self.ended = code

    def finish(self) -> None:
        """Write down a cell that has ended, and all of whose output is published."""
        collector, self.collector = self.collector, None
        code, self.ended = self.ended, None
        self.replier = 0
        if collector is not None and code is not None:
            self.note(cell=code, form=condensed(normal_form(collector.outputs)))

    def note(self, **entry: Any) -> None:
        """Write down that something happened. Where that cannot be, the next cell says so, and it is done no more."""
        if self.has_failed:
            return
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "a") as file:
                if os.fstat(fd).st_size > LARGEST:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            self.has_failed = True
            self.complaint = str(error.strerror)
