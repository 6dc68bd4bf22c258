"""What a probe finds, and the report that all findings make."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from nbhull.runtime.verbs.results import Result

Works = Literal["yes", "partly", "no"]
MARKS: dict[Works, str] = {"yes": "✓", "partly": "!", "no": "✗"}


class Finding(NamedTuple):
    """One thing that was tried."""

    name: str
    works: Works
    """`no`: containers cannot run; `partly`: they can, but lack something"""
    seen: str
    """what was found, without a full stop"""
    mend: str = ""
    """the shell line (or, where no line can do it, the words) that mends it; empty if all is well"""


class Report(Result):
    """All findings; the exit status is 1 if containers cannot run."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = list(findings)
        self.status = 1 if any(f.works == "no" for f in self.findings) else 0

    def text(self) -> str:
        width = max(len(finding.name) for finding in self.findings)
        lines = [f"{MARKS[f.works]} {f.name.ljust(width)}   {printable(f.seen)}" for f in self.findings]
        mending = [f for f in self.findings if f.mend]
        if mending:
            lines += ["", "to mend:"]
        for finding in mending:
            lines += [f"  # {finding.name}", f"  {printable(finding.mend)}"]
        lines += ["", "containers can run here" if self.status == 0 else "containers cannot run here"]
        return "\n".join(lines)

    def data(self) -> list[dict[str, Any]]:
        return [finding._asdict() for finding in self.findings]


def printable(text: str) -> str:
    """`text` without control characters, which file names may hold."""
    return "".join("?" if unicodedata.category(c) == "Cc" else c for c in text)
