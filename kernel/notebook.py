"""Read what a notebook's metadata asks of its container. The file is hostile input."""

from __future__ import annotations

import inspect
import json
import os
import stat
import sys
from typing import Any

from nbhull.runtime.errors import InvalidInput

MAX_SIZE = 256 << 20
"""bytes; a notebook larger than this is not read"""


def find(session_name: str, cwd: str) -> str | None:
    """Path of the notebook that a kernel is started for, from what jupyter_server puts in
    JPY_SESSION_NAME; None if the session is not a notebook's, or its file is not there (yet)."""
    if not session_name.endswith(".ipynb") or "\0" in session_name:
        return None
    for path in (os.path.join(cwd, session_name), os.path.join(cwd, os.path.basename(session_name))):
        if os.path.isfile(path):
            return path
    return None


def container_settings(path: str) -> dict[str, Any]:
    """`metadata.container` of a notebook; empty if it has none.

    Raises InvalidInput if the file is no notebook, or is too large to read.
    """
    text = read_bounded(path)
    if not text.strip():
        return {}
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, "it is not valid JSON") from error
    return settings_of(notebook, path)


def settings_of(notebook: Any, path: str) -> dict[str, Any]:
    """`metadata.container` of a notebook that was read; `path`: for the message. Raises InvalidInput."""
    if not isinstance(notebook, dict):
        raise unreadable(path, "it is not a notebook")
    metadata = notebook.get("metadata", {})
    if not isinstance(metadata, dict):
        raise unreadable(path, "its metadata is not a table")
    settings = metadata.get("container", {})
    if not isinstance(settings, dict):
        raise unreadable(path, "its metadata.container is not a table")
    return settings


def executed_by(manager: object) -> Any:
    """The notebook that nbclient, or what is made of it (nbconvert, papermill), starts this kernel for; None if it is
    none of them that starts it.

    They tell nobody which notebook it is. But they wait for the start, in this thread, so they are found among the
    callers: else a notebook would run in another image than the one that it names."""
    nbclient = sys.modules.get("nbclient.client")
    if nbclient is None:
        return None
    frame = inspect.currentframe()
    while frame is not None:
        client = frame.f_locals.get("self")
        if isinstance(client, nbclient.NotebookClient) and client.km is manager:
            return client.nb
        frame = frame.f_back
    return None


def read_bounded(path: str) -> bytes:
    """The bytes of a regular file; raises InvalidInput where there is none, or it is too large."""
    try:
        # a FIFO in the notebook's place would block an ordinary open for ever
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise unreadable(path, "it is not a regular file")
            text = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise unreadable(path, str(error.strerror).lower()) from error
    if len(text) > MAX_SIZE:
        raise unreadable(path, f"it is larger than {MAX_SIZE >> 20} MiB")
    return text


def unreadable(path: str, reason: str) -> InvalidInput:
    """The error for a notebook whose settings cannot be known."""
    return InvalidInput(
        f"the container settings of notebook {path!r} cannot be read: {reason}",
        "mend the file, or start the kernel without it",
    )
