"""Cells to be run again: those of a notebook, or those that a kernel has run since a snapshot."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from nbhull.kernel.notebook import read_bounded
from nbhull.kernel.replay.outputs import joined, normal_form
from nbhull.runtime.errors import InvalidInput, NotFound

ASKING = re.compile(r"\s*([\w\s,.\[\]]+=)?\s*%container\b")
"""a line that asks something of nbhull"""
SKIP_TAGS = frozenset({"skip-replay", "nbval-skip"})
IGNORE_TAGS = frozenset({"ignore-output", "nbval-ignore-output"})


@dataclass(frozen=True)
class Cell:
    """A cell with what it gave the last time."""

    code: str
    form: Sequence[tuple[str, str]] = ()
    """`outputs.normal_form`, perhaps condensed"""
    is_skipped: bool = False
    """not to be run"""
    is_ignored: bool = False
    """run, and not compared"""


@dataclass(frozen=True)
class Notebook:
    """What of a notebook matters here."""

    cells: list[Cell]
    settings: dict[str, Any] = field(default_factory=dict)
    """`metadata.container`"""
    kernel: str = ""
    """name of its kernelspec"""


def is_about_container(code: str, *, wholly: bool = False) -> bool:
    """Whether a cell speaks to nbhull, which is not done again; `wholly`: and does nothing else."""
    lines = [ASKING.match(line) is not None for line in code.splitlines() if line.strip()]
    return all(lines) if wholly else any(lines)


def read_notebook(path: str) -> Notebook:
    """A notebook's cells of code. Raises InvalidInput for a file that is none (of format 4)."""
    if not os.path.exists(path):
        raise NotFound(f"there is no notebook {path!r}", "give the path of an .ipynb file")
    try:
        data = json.loads(read_bounded(path))
        metadata = data.get("metadata", {})
        if data["nbformat"] != 4:
            raise InvalidInput(f"{path!r} is a notebook of format {data['nbformat']}", "open and save it in JupyterLab")
        cells = [cell_of(cell) for cell in data["cells"] if cell["cell_type"] == "code"]
        kernel = metadata.get("kernelspec", {}).get("name", "")
        return Notebook([cell for cell in cells if cell.code.strip()], dict(metadata.get("container", {})), str(kernel))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path!r} is not a notebook: {error}", "give the path of an .ipynb file") from error


def cell_of(cell: dict[str, Any]) -> Cell:
    """One cell of a notebook."""
    tags = set(cell.get("metadata", {}).get("tags", []))
    code = joined(cell["source"])
    is_ignored = bool(tags & IGNORE_TAGS) or is_about_container(code)
    return Cell(code, normal_form(cell["outputs"]), bool(tags & SKIP_TAGS), is_ignored)


@dataclass
class Line:
    """Where a kernel stands: what has led there."""

    cells: list[Cell] = field(default_factory=list)
    before: int = 0
    """how many of them ran in kernels that had ended before the last began"""


def cells_since(record: bytes, snapshot: str) -> tuple[list[Cell], int]:
    """The cells that a kernel ran since a snapshot (its name), from what it has written down; and how many of the
    kernel's own it ran before, on whose variables they may rely.

    The record is a container's, so it is believed in nothing: what cannot be read of it is left out.
    Raises NotFound for a snapshot that the kernel does not stand on."""
    line, marks = Line(), {"": Line()}
    for text in record.splitlines():
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError):
            continue
        match entry:
            case {"cell": str(code), "form": list(form)}:
                if not is_about_container(code, wholly=True):
                    pairs = [(str(pair[0]), str(pair[1])) for pair in form if isinstance(pair, list) and len(pair) == 2]
                    line.cells.append(Cell(code, pairs, is_ignored=is_about_container(code)))
            case {"snapshot": str(name)}:
                marks[name] = Line(list(line.cells), line.before)
            case {"reset": str(name)}:
                then = marks.get(name, Line())
                line = Line(list(then.cells), then.before if entry.get("memory") else len(then.cells))
                marks[name] = Line(list(line.cells), line.before)
            case {"start": _}:
                line.before = len(line.cells)
    if snapshot not in marks:
        raise NotFound(f"no cell is known to have run since {snapshot!r}", "give a snapshot of this kernel's")
    begin = marks[snapshot]
    if begin.cells != line.cells[: len(begin.cells)]:
        raise NotFound(f"the kernel does not stand on {snapshot!r}, but on another branch", "reset to it first")
    return line.cells[len(begin.cells) :], max(0, len(begin.cells) - line.before)
