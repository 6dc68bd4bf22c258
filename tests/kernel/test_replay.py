"""Cells run again: those of notebooks by `nbhull replay`, those of kernels by `%container replay`."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from nbhull.kernel.replay.cells import cells_since
from nbhull.kernel.replay.outputs import Collector, normal_form
from nbhull.runtime.errors import NotFound
from support.jupyter import Place, Start, container_entries, execute

STREAM = "stream"


def printed(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"output_type": STREAM, "name": name, "text": text}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("<object object at 0x7f5f1b1a70b0>", "<object object at 0x55d0c0ffee00>"),
        ("CPU times: user 1 µs, sys: 0 ns\nWall time: 2.15 µs", "CPU times: user 3 ms, sys: 1 ms\nWall time: 5 s"),
        ("1.2 µs ± 3 ns (7 runs, 1,000,000 loops each)", "2 μs ± 30.5 ns (7 runs, 100,000 loops each)"),
        ("at 2026-01-01 10:00:00", "at 2025-12-31T09:59:59.123Z"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("10%\r50%\r100%", "100%"),
        ("in /tmp/tmpabcd1234/x", "in /tmp/tmp_bcd123z/x"),
        ("id 0123456789abcdef0123456789abcdef", "id fedcba9876543210fedcba9876543210"),
    ],
)  # fmt: skip
def test_what_differs_by_itself_is_no_difference(one: str, other: str) -> None:
    assert normal_form([printed(one)]) == normal_form([printed(other)]) != []


@pytest.mark.parametrize(("one", "other"), [("1", "2"), ("0x1", "0x2"), ("3 apples", "4 apples"), ("1 m", "2 m")])
def test_what_differs_differs(one: str, other: str) -> None:
    assert normal_form([printed(one)]) != normal_form([printed(other)])


def test_forms_of_the_same() -> None:
    whole = [printed("a\nb\n"), printed("c\n", "stderr")]
    pieces = [printed("a\n"), printed("c\n", "stderr"), {"output_type": STREAM, "name": "stdout", "text": ["b", "\n"]}]
    assert normal_form(whole) == normal_form(pieces)
    widget = {"text/plain": "IntSlider()", "application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    assert normal_form([{"output_type": "display_data", "data": widget}]) == []
    notice = printed("nbhull: the image has no ipykernel\nmine\n", "stderr")
    assert normal_form([notice]) == normal_form([printed("mine", "stderr")])
    assert normal_form([printed("nbhull: mine")]) == [("stdout", "nbhull: mine")]
    assert normal_form([None, 5, {}, {"output_type": "display_data", "data": 5}]) == []
    collector = Collector()
    shown: Mapping[str, Any] = {"data": {"text/plain": "1"}, "transient": {"display_id": "x"}}
    collector.take("stream", {"name": "stdout", "text": "gone"})
    collector.take("clear_output", {"wait": True})
    collector.take("display_data", shown)
    collector.take("update_display_data", {**shown, "data": {"text/plain": "2"}})
    assert collector.outputs == [{"output_type": "display_data", "data": {"text/plain": "2"}}]


def test_the_cells_since_a_snapshot() -> None:
    def record(*entries: object) -> bytes:
        return "".join(json.dumps(entry) + "\n" for entry in entries).encode()

    def cell(code: str) -> dict[str, Any]:
        return {"cell": code, "form": []}

    def codes(name: str, *entries: object) -> tuple[list[str], int]:
        cells, before = cells_since(record(*entries), name)
        return [cell.code for cell in cells], before

    start, snapshot = {"start": True}, {"snapshot": "s"}
    assert codes("s", start, cell("a"), snapshot, cell("%container snapshot s"), cell("b")) == (["b"], 1)
    assert codes("", start, cell("a"), snapshot, cell("b")) == (["a", "b"], 0)
    assert codes("s", start, cell("a"), snapshot, cell("b"), start, {"reset": "s"}, cell("c")) == (["c"], 0)
    assert codes("s", start, cell("a"), snapshot, cell("b"), {"reset": "s", "memory": True}, cell("c")) == (["c"], 1)
    assert codes("", start, cell("a"), snapshot, cell("b"), start, {"reset": "s"}, cell("c")) == (["a", "c"], 0)
    assert codes("s", start, snapshot, "nonsense", {"cell": 5}, {}, [], cell("b")) == (["b"], 0)
    with pytest.raises(NotFound):
        codes("other", start, cell("a"))
    with pytest.raises(NotFound, match="another branch"):
        codes("t", start, snapshot, cell("a"), {"snapshot": "t"}, start, {"reset": "s"}, cell("b"))


def write(path: Path, cells: dict[str, str], **metadata: Any) -> None:
    """A notebook of cells and what they are said to print."""
    outputs = {code: [new_output(STREAM, text=text)] if text else [] for code, text in cells.items()}
    notebook = new_notebook(cells=[new_code_cell(code, outputs=outputs[code]) for code in cells], metadata=metadata)
    nbformat.write(notebook, path)


def nbhull(*words: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("nbhull")
    return subprocess.run([program, "replay", *words], capture_output=True, text=True, check=False)


@pytest.mark.nosubuid
def test_a_notebook(folder: Path, place: Place) -> None:
    (folder / "data").write_text("data\n")
    (folder / "result").write_text("1")
    cells = {
        "x = 6 * 7; print(open('data').read(), end='')": "data\n",
        "print(x); open('result', 'w').write('1'); open('/root/x', 'w'); None": "42\n",
        "print(open('/proc/net/dev').read().count(':'))": "1\n",  # its metadata says so
        "%container snapshot mine": "mine\n",
    }
    write(folder / "good.ipynb", cells, container={"network": "none"})
    done = nbhull("good.ipynb")
    assert (done.returncode, done.stdout.count("same")) == (0, 3), done
    write(folder / "bad.ipynb", {"open('result', 'w').write('2'); print(1)": "1\n", "print(2)": "3\n", "1 / 0": ""})
    done = nbhull("--json", "bad.ipynb")
    items = json.loads(done.stdout)
    assert done.returncode == 1
    assert [item["result"] for item in items] == ["same", "different", "different", "different"]
    assert "+stdout: 2" in items[1]["difference"]
    assert "+error: ZeroDivisionError: division by zero" in items[2]["difference"]
    assert items[3]["code"] == "file result"
    assert (folder / "result").read_text() == "1", "the replay has written into the notebook's folder"
    write(folder / "slow.ipynb", {"import time; time.sleep(1000)": "", "print(1)": "1\n"})
    done = nbhull("--json", "--timeout", "0.5", "slow.ipynb")
    assert [item["result"] for item in json.loads(done.stdout)] == ["different", "same"]
    assert container_entries() == set()
    assert place.engine.containers() == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not a notebook"),
        ("[]", "is not a notebook"),
        ('{"nbformat": 3, "worksheets": []}', "of format 3"),
        ('{"nbformat": 4, "cells": [], "metadata": {}}', "has no code"),
        ('{"nbformat": 4, "cells": [{"cell_type": "code"}]}', "is not a notebook"),
        (
            '{"nbformat": 4, "metadata": {"container": {"mounts": ["/"]}},'
            ' "cells": [{"cell_type": "code", "source": "1", "outputs": []}]}',
            "only a kernelspec may set",
        ),
    ],
)
def test_no_notebook(folder: Path, place: Place, text: str, reason: str) -> None:
    (folder / "work.ipynb").write_text(text)
    done = nbhull("work.ipynb")
    assert done.returncode != 0
    assert reason in done.stderr
    assert "hint:" in done.stderr


def test_the_cells_of_a_kernel(start: Start, folder: Path) -> None:
    name = f"replay-{uuid.uuid4().hex[:8]}"
    _, client = start()
    ran = (
        "print('same', object(), 'long' * 9999); open('/root/same', 'w').write('1'); None",
        "import os; print(os.urandom(4)); open('/root/chance', 'w').write('1' * x); None",
        "print(x)",
    )
    for code in ("x = 1", f"%container snapshot {name}", *ran):
        assert execute(client, code).status == "ok"
    outcome = execute(client, f"%container replay {name}")
    assert outcome.status == "ok"
    shown = outcome.data[-1]["text/plain"]  # behind the display of how far it is, where it takes long
    assert [line.split()[1] for line in shown.splitlines()[1:4]] == ["same", "different", "different"]
    assert "NameError" in shown
    assert "file /root/chance" in shown
    assert "/root/same" not in shown
    assert "1 cells ran in this kernel before that" in shown
    assert execute(client, f"%container reset {name}").status == "ok"
    assert "no cell has run since" in execute(client, "%container replay").errors
    execute(client, "print(5)")
    assert execute(client, "r = %container replay\nprint([i['result'] for i in r.data])").text == "['same']\n"
    execute(client, "import os; p = os.path.dirname(os.environ['NBHULL_CONTROL']) + '/cells.jsonl'")
    execute(client, "os.unlink(p); os.symlink('/etc/passwd', p)")
    assert "not written down" in execute(client, "None").errors
    assert execute(client, "None").errors == ""
    assert "no record of the kernel's cells" in execute(client, "%container replay").errors
