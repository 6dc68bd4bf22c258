"""What a cell gives, in a form in which two runs can be compared.

Outputs are plain data as the notebook format has them (nbformat 4: `output_type`, `name`, `text`, `data` …).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Output = dict[str, Any]

LONGEST_KEPT = 4096
"""letters of an output"""
KINDS = frozenset({"stream", "display_data", "execute_result", "error"})
NEVER_ALIKE = frozenset({"application/vnd.jupyter.widget-view+json"})
"""kinds of data that only name something, by an id of its own"""

NOTICE = re.compile(r"^nbhull: .*\n?", re.MULTILINE)
"""what nbhull itself tells a cell on standard error, such as that an image got ipykernel just now"""

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
NOISE = (
    (re.compile(r"\b0x[0-9a-fA-F]{6,16}\b"), "0x…"),  # addresses
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\bT_[0-9a-f]{5}"), "T_…"),  # of styled tables (pandas)
    (re.compile(r"/tmp/(tmp\w{8}|ipykernel_\d+/\d+\.py)"), "/tmp/…"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?"), "<time>"),
    (re.compile(r"\b\d{1,2}:\d\d:\d\d(\.\d+)?\b"), "<time>"),
    # durations, and numbers of loops as %timeit writes them
    (re.compile(r"\b\d+(\.\d+)?(e[+-]?\d+)? ?(ns|[µμ]s|us|ms|s|sec|secs|seconds|min|it/s|s/it)\b"), "<duration>"),
    (re.compile(r"\b[\d,]+ loops? each\b"), "<loops>"),
)


class Collector:
    """The outputs of one cell, as a page would have them after these messages."""

    def __init__(self) -> None:
        self.outputs: list[Output] = []
        self.displays: dict[str, Output] = {}
        self.clear_next = False

    def take(self, kind: str, content: Mapping[str, Any]) -> None:
        """One message that a kernel has published."""
        identity = (content.get("transient") or {}).get("display_id")
        if kind == "clear_output":
            self.clear_next = True
            if not content.get("wait"):
                self.clear()
        elif kind == "update_display_data":
            if identity in self.displays:
                self.displays[identity]["data"] = dict(content["data"])
        elif kind in KINDS:
            if self.clear_next:
                self.clear()
            output = {"output_type": kind, **{key: content[key] for key in FIELDS[kind] if key in content}}
            self.outputs.append(output)
            if identity:
                self.displays[identity] = output

    def clear(self) -> None:
        """Forget all so far."""
        self.outputs.clear()
        self.clear_next = False


FIELDS = {
    "stream": ("name", "text"),
    "display_data": ("data",),
    "execute_result": ("data",),
    "error": ("ename", "evalue"),
}


def normal_form(outputs: Sequence[Any]) -> list[tuple[str, str]]:
    """Outputs as pairs of a kind and a text, without what differs from run to run by itself.

    Consecutive pieces of a stream are one. What cannot be read is left out: a notebook is written by anyone."""
    found: list[tuple[str, str]] = []
    streams: dict[str, int] = {}
    for output in outputs:
        if not isinstance(output, Mapping):
            continue
        kind = output.get("output_type")
        if kind == "stream":
            name, text = str(output.get("name")), joined(output.get("text"))
            # standard output and error come by two roads: which piece was first is left to chance
            if name in streams:
                found[streams[name]] = name, found[streams[name]][1] + text
            else:
                streams[name] = len(found)
                found.append((name, text))
            continue
        streams = {}
        if kind == "error":
            found.append(("error", f"{output.get('ename')}: {joined(output.get('evalue'))}"))
        elif isinstance(data := output.get("data"), Mapping):
            for mime in sorted(data.keys() - NEVER_ALIKE, key=str):
                if "application/vnd.jupyter.widget-view+json" not in data:
                    found.append((str(mime), joined(data[mime])))
    own = [(kind, NOTICE.sub("", text) if kind == "stderr" else text) for kind, text in found]
    return [(kind, text) for kind, raw in own if (text := without_noise(raw))]


def condensed(form: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """A normal form of which only digests of long texts are kept."""
    return [
        (kind, text if len(text) <= LONGEST_KEPT else f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")
        for kind, text in form
    ]


def joined(value: Any) -> str:
    """Text that may be kept in lines, or other data, as one text."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "".join(value)
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def without_noise(text: str) -> str:
    """A text without escape sequences, addresses, times and ids."""
    text = ANSI.sub("", text)
    lines = [line.rpartition("\r")[2] if "\r" in line else line for line in text.replace("\r\n", "\n").split("\n")]
    text = "\n".join(line.rstrip() for line in lines).strip("\n")
    for pattern, instead in NOISE:
        text = pattern.sub(instead, text)
    return text
