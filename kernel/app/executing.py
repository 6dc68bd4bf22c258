"""The request that a kernel executes, written down, so that it can be answered should the kernel be killed."""

from __future__ import annotations

import json
import os
from typing import Any

from nbhull.kernel.app.handover import describe_request


class Executing:
    """A file that holds the request under way, and is empty in between."""

    def __init__(self, path: str) -> None:
        self.request: dict[str, Any] | None = None
        """the same as it is written there"""
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def begin(self, parent: dict[str, Any], idents: list[bytes], execution_count: int) -> None:
        """A request's turn has come."""
        self.request = {**describe_request(parent, idents), "execution_count": execution_count}
        try:
            os.pwrite(self.fd, json.dumps(self.request).encode(), 0)
        except OSError:
            # no file may grow while the container is over its disk quota: then this request is not noted
            os.ftruncate(self.fd, 0)

    def end(self) -> None:
        """It has been answered."""
        self.request = None
        os.ftruncate(self.fd, 0)
