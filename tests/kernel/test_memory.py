"""Snapshots with the memory, and resets to them, with the same client connected throughout."""

from __future__ import annotations

import os
import uuid
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from nbhull.kernel.names import MEMORY_BUDGET as BUDGET
from support.jupyter import PATIENCE, Place, Start, execute, value
from support.server import Message, Server

SLIDER = """
import ipywidgets
slider, seen = ipywidgets.IntSlider(value=3), []
slider.observe(lambda change: seen.append(change["new"]), "value")
"""
OPENED = "f = open('/root/log', 'w'); f.write('written '); f.flush(); _ = f.write('and not flushed')"


@pytest.fixture
def name() -> str:
    """A snapshot's name that no other test takes."""
    return f"memory-{uuid.uuid4().hex[:8]}"


def ok(client: BlockingKernelClient, code: str) -> str:
    """What a cell prints, which must succeed and complain of nothing."""
    outcome = execute(client, code)
    assert (outcome.status, outcome.errors) == ("ok", "")
    return outcome.text


def update(model: str, number: int) -> Message:
    """What a page sends when somebody moves a slider."""
    data = {"method": "update", "state": {"value": number}, "buffer_paths": []}
    return {"comm_id": model, "data": data}


@pytest.mark.nosubuid
def test_memory_and_files_come_back_as_one_moment(start: Start, name: str) -> None:
    manager, client = start()
    ok(client, "import math, random; random.seed(1); x = [1]; open('/root/file', 'w').write('one')")
    ok(client, SLIDER + OPENED)
    ok(client, f"%container snapshot --memory {name}")
    ok(client, "chance = random.random(); print(len(In))")
    number, chance = value(client, "len(In)"), value(client, "chance")
    model = value(client, "slider.model_id")
    for turn in range(5):
        ok(client, "x.append(2); open('/root/file', 'w').write('two')")
        ok(client, "slider.value = 50; _ = f.write('later'); f.flush()")
        assert ok(client, f"%container reset {name}") == f"reset to {name}: files and memory are as they were\n"
        ok(client, "chance = random.random(); print(len(In))")
        assert (value(client, "len(In)"), value(client, "chance")) == (number, chance)
        assert value(client, "x, math.pi > 3, open('/root/file').read(), slider.value") == "[1] True one 3"
        client.shell_channel.send(client.session.msg("comm_msg", update(model, turn + 10)))
        assert value(client, "slider.value, seen[-1:]") == f"{turn + 10} [{turn + 10}]"
        assert ok(client, "f.flush(); print(open('/root/log').read())") == "written and not flushed\n"
        assert ok(client, "%history -l 1") == "f.flush(); print(open('/root/log').read())\n"
    assert "from a shell" in ok(client, "!echo from a shell")
    assert manager.is_alive()


def test_what_works_in_a_kernel_works_after_a_reset(start: Start, name: str) -> None:
    manager, client = start()
    ok(client, f"x = 1\n%container snapshot --memory {name}\ny = 2")
    ok(client, "%container reset")
    assert value(client, "x, y") == "1 2", "the moment is the end of the cell"
    # questions
    client.execute("answer = input('well? ')", allow_stdin=True)
    assert client.get_stdin_msg(timeout=PATIENCE)["content"]["prompt"] == "well? "
    client.input("indeed")
    assert client.get_shell_msg(timeout=PATIENCE)["content"]["status"] == "ok"
    assert value(client, "answer") == "indeed"
    # interrupts
    # without stop_on_error, for ipykernel goes on for a moment to abort what comes behind a cell that failed
    code = "print('ready', flush=True)\nimport time; time.sleep(1000)"
    request = client.execute(code, stop_on_error=False)
    while client.get_iopub_msg(timeout=PATIENCE)["msg_type"] != "stream":
        pass
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=PATIENCE)
    assert (reply["parent_header"]["msg_id"], reply["content"]["ename"]) == (request, "KeyboardInterrupt")
    # await, and a snapshot of the copy itself
    assert ok(client, "import asyncio; await asyncio.sleep(0); print('awaited')") == "awaited\n"
    ok(client, f"x = 3\n%container snapshot -m {name}-2")
    ok(client, f"%container reset {name}")
    assert value(client, "x") == "1"
    ok(client, f"%container reset {name}-2")
    assert value(client, "x, answer") == "3 indeed"
    # a restart leaves the memory of snapshots alone
    manager.restart_kernel()
    client.wait_for_ready(timeout=PATIENCE)
    assert value(client, "'x' in globals()") == "False"
    assert "files and memory" in ok(client, f"%container reset {name}")
    assert value(client, "x") == "1"
    # the files alone
    assert "the kernel is new" in ok(client, f"%container reset --files {name}")
    assert value(client, "'x' in globals()") == "False"


REFUSED = [
    (
        "import threading; e = threading.Event(); threading.Thread(target=e.wait, name='mine').start()",
        "e.set()",
        "'mine'",
    ),
    ("import subprocess; p = subprocess.Popen(['sleep', '1000'])", "p.kill(); p.wait()", "(sleep)"),
    ("import socket; s = socket.socket()", "s.close()", "socket of the user's"),
    ("import os; p = os.pipe()", "os.close(p[0]); os.close(p[1])", "pipe of the user's"),
    (
        "import asyncio; t = asyncio.ensure_future(asyncio.Event().wait()); await asyncio.sleep(0)",
        "t.cancel()",
        "(Event.wait)",
    ),
    ("t = asyncio.get_running_loop().call_later(1000, print)", "t.cancel()", "'print'"),
    ("import tempfile; f = tempfile.TemporaryFile()", "f.close()", "deleted file"),
    ("import sqlite3; d = sqlite3.connect('/root/d'); _ = d.execute('create table t (a)')", "d.close()", "SQLite"),
    ("import mmap; m = mmap.mmap(-1, 4096)", "m.close()", "memory is shared"),
    ("import fcntl; f = open('/root/lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX)", "f.close()", "lock on /root/lock"),
]
LIBRARY = """
import ctypes; c = ctypes.CDLL(None)
_ = c.pthread_create(ctypes.byref(ctypes.c_ulong()), None, c.pause, None)
"""


def test_what_would_not_come_back_is_refused(start: Start, name: str) -> None:
    _, client = start()
    for setup, undo, reason in REFUSED:
        outcome = execute(client, f"{setup}\n%container snapshot --memory {name}")
        assert outcome.status == "error", setup
        assert reason in outcome.errors
        assert "hint:" in outcome.errors
        ok(client, undo)
    outcome = execute(client, f"%container snapshot --memory {name}\n1 / 0")
    assert "no snapshot was taken, because the cell failed" in outcome.errors
    ok(client, f"%container snapshot {name}")  # its name is not taken
    outcome = execute(client, f"%container snapshot --memory {name}")
    assert (outcome.status, outcome.ename) == ("error", "ContainerError")
    assert name in outcome.evalue
    # a library's own thread, which only the kernel of kernels knows
    outcome = execute(client, f"{LIBRARY}%container snapshot --memory {name}-2")
    assert "threads of a library" in outcome.errors
    ok(client, f"%container snapshot {name}-2")


def test_memory_that_is_lost_is_told(start: Start, name: str) -> None:
    manager, client = start()
    for number in range(BUDGET + 1):
        ok(client, f"x = {number}\n%container snapshot --memory {name}-{number}")
    shown = execute(client, f"%container snapshot --memory {name}-last").data[0]["text/plain"]
    assert f"the memory of {name}-1 was dropped: {BUDGET} are kept" in shown
    assert execute(client, f"open('/root/x', 'w'); x = 10\n%container reset {name}-1").status == "ok"
    assert value(client, "'x' in globals()") == "False"
    # what the kernel kills first when the container's memory runs out
    [scores] = {
        value(client, f"open('/proc/{checkpoint.process.pid}/oom_score_adj').read().strip()")
        for checkpoint in manager.provisioner.contained.checkpoints.by_image.values()
    }
    assert scores == "1000"
    ok(client, f"%container reset {name}-last")
    assert value(client, "open('/proc/self/oom_score_adj').read().strip()") != "1000"
    held = manager.provisioner.contained.checkpoints.by_image.values()
    pid = next(one.process.pid for one in held if one.image.name == f"{name}-3")
    code = f"import os; os.kill({pid}, 9)\nwhile os.path.exists('/proc/{pid}'): pass"
    outcome = execute(client, code)
    assert f"the memory of the snapshot {name}-3 is lost" in outcome.errors
    assert "the memory of this snapshot is lost" in ok(client, f"%container reset {name}-3")


async def test_a_page_notices_nothing(folder: Path, place: Place, name: str) -> None:
    server = Server(folder)
    try:
        nbformat.write(nbformat.v4.new_notebook(), folder / "work.ipynb")
        session = await server.start_session("work.ipynb")
        page = await server.open_page(session["kernel"]["id"])
        await page.execute(SLIDER)
        model = (await page.execute("print(slider.model_id)")).strip()
        header = {}
        if int(version("ipykernel").split(".")[0]) >= 7:  # where pages have their widgets served by a subshell
            await page.send_message("create_subshell_request", {}, "control")
            [*_, reply] = await page.until(lambda m: m["msg_type"] == "create_subshell_reply")
            header = {"subshell_id": reply["content"]["subshell_id"]}
        await page.execute(f"%container snapshot --memory {name}")
        await page.execute("slider.value = 50")
        before = await page.send(f"%container reset {name}")
        messages = await page.until(
            lambda m: m["parent_header"].get("msg_id") == before and m["content"].get("execution_state") == "idle"
        )
        states = [m["content"]["execution_state"] for m in messages if m["msg_type"] == "status"]
        assert states[-2:] == ["busy", "idle"]
        await page.send_message("comm_msg", update(model, 8), **header)
        await page.until(lambda m: m["msg_type"] == "comm_msg" and m["content"]["data"]["state"].get("value") == 8)
        assert await page.execute("print(slider.value, seen)") == "8 [8]\n"
        # the restored kernel is the kernel: who kills it has it started again
        await page.send("import os; os.kill(os.getpid(), 9)")
        await page.until(lambda m: m["content"].get("execution_state") == "restarting")
        await page.close()  # as JupyterLab does: the connections may be others now
        page = await server.open_page(session["kernel"]["id"])
        assert await page.execute("print('slider' in globals())") == "False\n"
        assert "files and memory" in await page.execute(f"%container reset {name}")
        assert await page.execute("print(slider.value)") == "3\n"
        await page.close()
    finally:
        server.stop()


def test_a_process_that_is_none_is_no_memory(start: Start, name: str) -> None:
    """What the kernel says about itself is not believed."""
    _, client = start()
    for pid in (1, 999_999, -1, "'x'", "True", os.getpid() if os.getpid() > 100_000 else 300_000):
        outcome = execute(
            client,
            "import os; from nbhull.kernel.rpc import call\n"
            f"call(os.environ['NBHULL_CONTROL'], 'snapshot', {{'name': '{name}', 'memory': {pid}}})",
        )
        assert outcome.status == "error"
    outcome = execute(client, "call(os.environ['NBHULL_CONTROL'], 'woken', {'memory': os.getpid()})")
    assert "no checkpoint was woken" in outcome.errors
    ok(client, f"%container snapshot {name}")
