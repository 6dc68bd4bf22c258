"""`nbhull replay`: a whole notebook, run again in a fresh container of its image."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from typing import Any

from nbhull.kernel import specs
from nbhull.kernel.config import KernelConfig, from_kernelspec, narrow
from nbhull.kernel.replay.cells import Notebook, read_notebook
from nbhull.kernel.replay.report import Report
from nbhull.kernel.replay.report import replay as replay_cells
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import NotFound


def replay(engine: Engine, values: dict[str, Any]) -> Report:
    """The verb `replay`. Raises HullError if the notebook cannot be run at all."""
    path = os.path.abspath(values["notebook"])
    notebook = read_notebook(path)
    if not notebook.cells:
        raise NotFound(f"the notebook {path!r} has no code", "give one that has")
    config, notices = narrow(config_of(notebook), notebook.settings)
    if values["image"]:
        config = replace(config, image=values["image"])

    def tell(text: str) -> None:
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    shows = sys.stderr.isatty()
    try:
        items = replay_cells(
            engine,
            config,
            os.path.dirname(path),
            notebook.cells,
            timeout=values["timeout"],
            in_place=values["in_place"],
            log=logging.getLogger("nbhull"),
            progress=tell if shows else None,
        )
    finally:
        if shows:
            tell("")
    return Report(items, notices)


def config_of(notebook: Notebook) -> KernelConfig:
    """The settings of the notebook's kernelspec, if nbhull installed it; else those of any, with its kernel."""
    for spec in specs.installed():
        if spec.name == notebook.kernel:
            return from_kernelspec(spec.config)
    if notebook.kernel in ("", "nbhull"):
        return KernelConfig()
    return KernelConfig(kernel=notebook.kernel)
