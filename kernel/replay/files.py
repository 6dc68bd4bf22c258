"""Files and packages that a replay made otherwise than the live container has them."""

from __future__ import annotations

import re
from typing import Any

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import HullError

NOISE = re.compile(
    r"/__pycache__(/|$)|^/tmp(/|$)|^/root/\.(cache|config|ipython|local)(/|$)|^/etc/(ld\.so\.cache|mtab)$"
)
"""files that come and go by themselves"""
MOST = 100
"""differences that are listed"""


def compare(engine: Engine, base: str, live: str, fresh: str) -> list[tuple[str, list[str]]]:
    """What the containers `live` and `fresh`, both begun from `base`, have made differently: what it is, and how.

    Files are compared by kind, mode, size and target: times always differ."""
    try:
        one, other = engine.diff(base, live), engine.diff(base, fresh)
    except HullError as error:
        return [("files", [f"cannot be compared: {error.message}"])]
    found = differing("package", packages(one), packages(other))
    return (found + differing("file", files(one), files(other)))[:MOST]


def packages(comparison: Any) -> dict[str, str]:
    """The versions that packages have come to have."""
    return {package.name: package.new or "removed" for package in comparison.packages}


def files(comparison: Any) -> dict[str, str]:
    """What has become of files, but for folders that only hold others."""
    found = {}
    for change in comparison.changes:
        new = change.new
        if new is None and not NOISE.search(change.path):
            found[change.path] = "deleted"
        elif new is not None and new.kind != "d" and not NOISE.search(change.path):
            found[change.path] = f"{new.kind} {new.mode:o} {new.size} {new.target}".strip()
    return found


def differing(what: str, live: dict[str, str], fresh: dict[str, str]) -> list[tuple[str, list[str]]]:
    """The entries of two tables that are not the same."""
    return [
        (f"{what} {name}", [f"-{live.get(name, 'as before')}", f"+{fresh.get(name, 'as before')}"])
        for name in sorted(live.keys() | fresh.keys())
        if live.get(name) != fresh.get(name)
    ]
