"""The verbs about this machine and nbhull itself."""

from __future__ import annotations

import os
import sys

import nbhull
from nbhull.runtime.verbs.results import Fields, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.engine import Engine


def doctor(engine: Engine | None, values: dict[str, Any]) -> Result:
    """`doctor`: try everything that nbhull needs of this machine."""
    from nbhull.runtime.doctor.report import examine

    return examine()


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
