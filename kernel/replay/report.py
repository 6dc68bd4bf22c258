"""A replay's outcome, cell by cell."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from nbhull.kernel.config import KernelConfig
from nbhull.kernel.replay.cells import Cell
from nbhull.kernel.replay.files import compare
from nbhull.kernel.replay.fresh import FreshKernel
from nbhull.kernel.replay.outputs import Output, condensed, normal_form
from nbhull.runtime.engine import Engine
from nbhull.runtime.verbs.results import Table

SAME, DIFFERENT, IGNORED, SKIPPED = "same", "different", "not compared", "skipped"
COLUMNS = ("cell", "result", "code", "difference")
WIDTH = 48
"""letters of a cell's code, and of a difference, that the table shows"""
LONGEST_DIFF = 200
"""lines of a difference in the data"""


class Report(Table):
    """What came out the same and what did not; a command's status is 1 if anything did not."""

    def __init__(self, items: Sequence[dict[str, Any]], notices: Sequence[str]) -> None:
        rows = [
            (str(item["cell"] or ""), item["result"], first_line(item["code"]), telling(item["difference"]))
            for item in items
        ]
        super().__init__(COLUMNS, rows, items)
        self.notices = list(notices)
        self.status = 1 if any(item["result"] == DIFFERENT for item in items) else 0


def replay(
    engine: Engine,
    config: KernelConfig,
    cwd: str,
    cells: Sequence[Cell],
    *,
    timeout: float,
    in_place: bool = False,
    log: logging.Logger,
    progress: Callable[[str], None] | None = None,
    live: str | None = None,
) -> list[dict[str, Any]]:
    """Run cells in a fresh container: for each, what came out; and the files of the folder that came out different
    from what they are. Raises HullError if there can be none.

    `progress` is told of each cell; `live`: a container begun from the same image, whose files and packages are
    compared, too."""
    items = []
    with FreshKernel(engine, config, cwd, in_place=in_place, log=log) as kernel:
        for number, cell in enumerate(cells, 1):
            if cell.is_skipped:
                items.append(outcome(number, cell, SKIPPED, []))
                continue
            outputs = kernel.run(cell.code, timeout)
            items.append(judged(number, cell, outputs))
            if progress is not None:
                progress(f"cell {number} of {len(cells)}: {items[-1]['result']}")
        items += [
            {"cell": None, "result": DIFFERENT, "code": f"file {name}", "difference": []}
            for name in kernel.changed_files()
        ]
        if live is not None and kernel.contained.container is not None:
            items += [
                {"cell": None, "result": DIFFERENT, "code": what, "difference": how}
                for what, how in compare(engine, config.image, live, kernel.contained.container.id)
            ]
    return items


def judged(number: int, cell: Cell, outputs: Sequence[Output]) -> dict[str, Any]:
    """A cell that was run, and whether its outputs are as they were."""
    before, after = list(cell.form), normal_form(outputs)
    if before == condensed(after):
        after = before
    if cell.is_ignored:
        return outcome(number, cell, IGNORED, [])
    return outcome(number, cell, SAME if before == after else DIFFERENT, difference(before, after))


def outcome(number: int, cell: Cell, result: str, lines: list[str]) -> dict[str, Any]:
    """One cell's entry."""
    return {"cell": number, "result": result, "code": cell.code, "difference": lines}


def difference(before: list[tuple[str, str]], after: list[tuple[str, str]]) -> list[str]:
    """How two normal forms differ, as lines of a unified diff."""
    one, other = ([f"{kind}: {line}" for kind, text in form for line in text.split("\n")] for form in (before, after))
    lines = list(difflib.unified_diff(one, other, "before", "replay", n=1, lineterm=""))
    return [line[:1000] for line in lines[:LONGEST_DIFF]]


def first_line(code: str) -> str:
    """A cell for people."""
    return shortened(next((line for line in code.splitlines() if line.strip()), ""))


def telling(lines: list[str]) -> str:
    """The first difference, for people."""
    changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("---", "+++")]
    return shortened("  ".join(changed[:2]))


def shortened(text: str) -> str:
    """A text that fits into the table, on one line and without control characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
