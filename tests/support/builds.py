"""Builds without the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nbhull.runtime.builder.build import Build, Options, Result
from nbhull.runtime.engine import Engine


def built(engine: Engine, folder: Path, **options: Any) -> Result:
    """What a build of a folder gives; raises what it raises, and leaves nothing open."""
    one = Build(engine, Options(str(folder), progress="plain", **options))
    try:
        return one.run()
    finally:
        one.close()
