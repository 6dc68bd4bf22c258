"""In the kernel: cells that install something told before they run, and ended cells after their reply."""

from __future__ import annotations

import os
import re
import socket
import sys
from typing import Any

from nbhull.kernel.names import CONTROL_VARIABLE, EVERY_CELL_FILE, REPLAY
from nbhull.kernel.rpc import call, line_of
from nbhull.runtime.errors import HullError

PROGRAMS = r"(?:pip[\d.]*|uv|conda|mamba|micromamba|apt|apt-get|aptitude|dpkg|npm|poetry)"
DEEDS = (
    r"(?:install|uninstall|remove|purge|upgrade|full-upgrade|dist-upgrade|autoremove|update|sync|add|create|-i|--install)"
)
INSTALLATION = re.compile(rf"(?:^|[\s;&|(/]){PROGRAMS}\b[^;&|\n]*?\s{DEEDS}(?=\s|$)")
"""in the text of a shell"""
MAGICS = re.compile(rf"\s*%?{PROGRAMS}\s+(?!=)")
"""the beginning of a line that is one of IPython's magics, with or without its sign"""
SHELL_LINE = re.compile(r"\s*(?:[\w.,\s\[\]]+=\s*)?(?:!{1,2}|%(?:system|sx)\s)(.*)")
SHELL_CELLS = ("bash", "sh", "script", "system", "sx", "!")
PYTHON_CELLS = ("time", "timeit", "capture", "prun")
"""magics whose cells are what they would be without"""


def installation(code: str) -> str:
    """The first line of a cell that installs or removes packages; empty if there is none."""
    lines = code.lstrip().splitlines()
    if lines and lines[0].startswith("%%"):
        words = lines[0][2:].split()
        if words and words[0] in SHELL_CELLS:
            return next((line.strip() for line in lines[1:] if INSTALLATION.search(line)), "")
        if not words or words[0] not in PYTHON_CELLS:
            return ""
    for line in lines:
        shell = SHELL_LINE.match(line)
        if MAGICS.match(line):
            text = line.lstrip(" \t%")
        elif shell is not None:
            text = shell[1]
        else:
            continue
        if INSTALLATION.search(text):
            return line.strip()
    return ""


class CellOccasions:
    """Tells the server when it might take a snapshot."""

    def __init__(self, socket_folder: str) -> None:
        self.marker = f"{socket_folder}/{EVERY_CELL_FILE}"

    def before(self, code: str) -> None:
        """A cell is about to run; one that installs something waits for its snapshot."""
        path = control()
        if path and (line := installation(code)):
            try:
                call(path, "keep", {"kind": "before", "what": line})
            except HullError as error:
                print(f"nbhull: no snapshot was taken before this: {error.message}", file=sys.stderr)

    def after(self, code: str) -> None:
        """A cell has been replied to. Nobody waits for what the server then does."""
        path = control()
        if not path or not os.path.exists(self.marker):
            return
        lines: list[str] = code.strip().splitlines() or [""]
        params: dict[str, Any] = {"kind": "after", "what": lines[0]}
        with socket.socket(socket.AF_UNIX) as channel:
            try:
                channel.connect(path)
                channel.sendall(line_of({"method": "keep", "params": params}))
            except OSError:
                pass  # the server is gone, and whoever asks it for something is told so


def control() -> str:
    """The path of the control socket; empty where there is none to ask."""
    path = os.environ.get(CONTROL_VARIABLE, "none")
    return "" if path in ("none", REPLAY) else path
