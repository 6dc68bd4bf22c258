"""Snapshot and reset from inside a notebook, with the same client connected throughout."""

from __future__ import annotations

import queue
import uuid
from pathlib import Path

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from support.jupyter import PATIENCE, Place, Start, execute, value


@pytest.fixture
def snapshot() -> str:
    """A name that no other test takes."""
    return f"snapshot-{uuid.uuid4().hex[:8]}"


@pytest.mark.nosubuid
async def test_a_notebook_goes_on_after_a_reset(folder: Path, place: Place, snapshot: str) -> None:
    cells = [
        "open('/root/result', 'w').write('kept'); variable = 1",
        f"%container snapshot {snapshot}",
        "import os, shutil, encodings; os.unlink('/root/result')",
        "%container reset",
        "print(open('/root/result').read(), 'variable' in globals())",
        "1 + 1",
    ]
    notebook = new_notebook(cells=[new_code_cell(code) for code in cells])
    await NotebookClient(notebook, kernel_name="nbhull", timeout=int(PATIENCE)).async_execute()
    reset, after, last = notebook.cells[3:]
    assert [output.text for output in reset.outputs] == [
        f"reset to {snapshot}: the files are as they were, the kernel is new\n"
    ]
    assert [output.text for output in after.outputs] == ["kept False\n"]
    assert last.outputs[0].data["text/plain"] == "2"


def test_what_broke_the_environment_is_undone(start: Start, snapshot: str) -> None:
    _, client = start()
    execute(client, f"%container snapshot {snapshot}")
    # the very package that the kernel is made of
    execute(client, "import IPython, shutil, os; shutil.rmtree(os.path.dirname(IPython.__file__))")
    assert value(client, "__import__('os').path.exists(os.path.dirname(IPython.__file__))") == "False"
    execute(client, f"%container reset {snapshot}")
    assert value(client, "__import__('os').path.exists(__import__('IPython').__file__)") == "True"


def test_a_notebook_sees_its_tree_and_its_changes_and_takes_a_reset_back(start: Start, snapshot: str) -> None:
    _, client = start()
    execute(client, "open('/root/result', 'w').write('kept')")
    assert "/root/result" in execute(client, "%container diff").data[0]["text/plain"]
    taken = execute(client, f"%container snapshot --note 'a <b>note</b>' {snapshot}")
    assert taken.data[0]["text/plain"] == snapshot  # and no word of files that had to be copied
    table = execute(client, "%container snapshots").data[0]
    assert f"└ {snapshot}" in table["text/plain"]
    assert "a &lt;b&gt;note&lt;/b&gt;" in table["text/html"]
    execute(client, "open('/root/result', 'w').write('changed')")
    assert "-kept" in execute(client, "%container diff --text").data[0]["text/plain"]
    execute(client, "%container reset")
    assert value(client, "open('/root/result').read()") == "kept"
    outcome = execute(client, "%container undo")
    assert "the files are as they were" in outcome.text
    assert value(client, "open('/root/result').read()") == "changed"
    assert "no snapshot 'host-of-another'" in execute(client, "%container diff host-of-another").errors


def test_reset_to_the_image(start: Start) -> None:
    _, client = start()
    execute(client, "open('/root/result', 'w').write('1')")
    outcome = execute(client, "%container reset")
    assert (outcome.status, outcome.text.startswith("reset to host")) == ("ok", True)
    assert value(client, "__import__('os').path.exists('/root/result')") == "False"


def test_what_is_queued_behind_a_reset_is_executed_by_the_new_kernel(start: Start) -> None:
    _, client = start()
    codes = [
        "open('/root/result', 'w').write('1')",
        "variable = 'old'",
        "%container reset",
        "import os; print('variable' in globals(), os.path.exists('/root/result'))",
        "variable = 'new'",
        "print(variable)",
    ]
    requests = {client.execute(code): code for code in codes}
    printed: dict[str, str] = {}
    busy = set(requests)
    while busy:
        message = client.get_iopub_msg(timeout=PATIENCE)
        request = message["parent_header"].get("msg_id")
        if request not in requests:
            continue  # what a kernel says as it starts
        if message["msg_type"] == "stream":
            printed[requests[request]] = printed.get(requests[request], "") + message["content"]["text"]
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            busy.discard(request)
    replies = [client.get_shell_msg(timeout=PATIENCE) for _ in codes]
    assert [reply["content"]["status"] for reply in replies] == ["ok"] * len(codes)
    assert [reply["parent_header"]["msg_id"] for reply in replies] == list(requests)
    assert printed[codes[3]] == "False False\n"
    assert printed[codes[5]] == "new\n"
    with pytest.raises(queue.Empty):
        client.get_shell_msg(timeout=0)


def test_a_reset_that_cannot_be_leaves_the_kernel_alone(start: Start) -> None:
    _, client = start()
    execute(client, "variable = 1")
    outcome = execute(client, "%container reset no-such-snapshot")
    assert outcome.status == "error"
    assert "no-such-snapshot" in outcome.errors
    assert "hint:" in outcome.errors
    assert "Traceback" not in outcome.errors
    assert value(client, "variable") == "1"


def test_reset_again_and_again(start: Start, snapshot: str) -> None:
    manager, client = start()
    execute(client, f"%container snapshot {snapshot}")
    for number in range(3):
        assert execute(client, f"open('/root/{number}', 'w'); 1").status == "ok"
        assert execute(client, "%container reset").status == "ok"
        assert value(client, "[name for name in __import__('os').listdir('/root') if name.isdigit()]") == "[]"
    assert manager.is_alive()


def test_a_restart_after_a_reset(start: Start) -> None:
    manager, client = start()
    assert execute(client, "%container reset").status == "ok"
    manager.restart_kernel()
    client.wait_for_ready(timeout=PATIENCE)
    assert value(client, "6 * 7") == "42"


def test_a_taken_name_fails_the_cell(folder: Path, place: Place, snapshot: str, start: Start) -> None:
    _, client = start()
    assert execute(client, f"%container snapshot {snapshot}").status == "ok"
    outcome = execute(client, f"%container snapshot {snapshot}")
    assert (outcome.status, outcome.ename) == ("error", "ContainerError")
    assert snapshot in outcome.evalue
