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
        self.has_failed = False
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
                self.finish()  # the kernel has published what was written to its streams by now
        return self.publish(stream, message, content, *args, **kwargs)

    def begin(self) -> None:
        """A cell begins."""
        self.finish()
        self.collector = Collector()

    def end(self, code: str) -> None:
        """It has ended. It is written down when it is replied to, since waiting here for its output to be published
        would take the time of two changes of threads, or by `finish`."""
        self.ended = code

    def finish(self) -> None:
        """Write down a cell that has ended, and all of whose output is published."""
        collector, self.collector = self.collector, None
        code, self.ended = self.ended, None
        if collector is not None and code is not None:
            self.note(cell=code, form=condensed(normal_form(collector.outputs)))

    def note(self, **entry: Any) -> None:
        """Write down that something happened. Where that cannot be, say so and do it no more."""
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
            print(f"nbhull: cells are not written down for a replay any more: {error.strerror}", file=sys.stderr)
