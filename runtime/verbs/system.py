"""The verbs about this machine and nbhull itself."""

from __future__ import annotations

import os
import sys

import nbhull
from nbhull.runtime.verbs.results import Fields, Result, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.engine import Engine


def doctor(engine: Engine | None, values: dict[str, Any]) -> Result:
    """`doctor`: try everything that nbhull needs of this machine."""
    from nbhull.runtime.doctor.report import examine

    return examine()


def config(engine: Engine | None, values: dict[str, Any]) -> Result:
    """`config`: every rule that can be made, and those that are."""
    from nbhull.runtime import policy
    from nbhull.runtime.policy.reading import SCHEMA

    loaded = policy.load()
    rows, items = [], []
    for key, (_, meaning) in SCHEMA.items():
        rules = loaded.all(key) if loaded else []
        for rule in rules:
            where = f"{rule.path}, line {rule.line}" if rule.line else rule.path
            rows.append((key, rule.text, where))
            items.append({"key": key, "value": rule.value, "file": rule.path, "line": rule.line, "meaning": meaning})
        if not rules:
            rows.append((key, "-", f"no rule: {meaning}"))
            items.append({"key": key, "value": None, "file": None, "line": None, "meaning": meaning})
    return Table(("rule", "value", "from"), rows, items)


def version(engine: Engine | None, values: dict[str, Any]) -> Result:
    """`version`: nbhull's, Python's and Linux's."""
    system = os.uname()
    python = ".".join(map(str, sys.version_info[:3]))
    fields = [
        ("nbhull", nbhull.__version__),
        ("python", f"{python} ({sys.executable})"),
        ("linux", f"{system.release} ({system.machine})"),
    ]
    item = {
        "nbhull": nbhull.__version__,
        "python": python,
        "executable": sys.executable,
        "linux": system.release,
        "machine": system.machine,
    }
    return Fields(fields, item)
