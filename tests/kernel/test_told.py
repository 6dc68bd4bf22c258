"""What a notebook is told when its kernel is killed, or meets a limit."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from nbhull.kernel.logged import LoggedProgress
from support.jupyter import PATIENCE, Place, Start, execute, install_spec
from support.server import Server
from support.waiting import eventually

BOMB = "data = bytearray(1 << 30)"


@pytest.fixture(scope="module")
def small(place: Place) -> str:
    """A kernelspec with a little memory."""
    return install_spec("small", place.prefix, memory="192m")


def watch_until_dead(manager: KernelManager) -> None:
    """What a Jupyter server does: ask again and again whether the kernel lives."""
    eventually(lambda: asyncio.run(manager.provisioner.poll()) is not None, "the kernel is dead")


def wait_for_reply(client: BlockingKernelClient, code: str, manager: KernelManager) -> tuple[dict[str, Any], str]:
    """The reply to a cell whose kernel dies, and the text of the error that it shows."""
    shown: list[str] = []

    def take(message: dict[str, Any]) -> None:
        if message["msg_type"] == "error":
            shown.extend(message["content"]["traceback"])

    watcher = threading.Thread(target=watch_until_dead, args=(manager,))
    watcher.start()
    reply = client.execute_interactive(code, output_hook=take, allow_stdin=False, timeout=PATIENCE)
    watcher.join()
    return reply["content"], "\n".join(shown)


@pytest.mark.requires("cgroup-memory")
def test_a_cell_that_takes_too_much_memory_says_so(start: Start, small: str) -> None:
    manager, client = start(small)
    content, shown = wait_for_reply(client, BOMB, manager)
    assert content["status"] == "error"
    assert content["evalue"] == "the kernel went over its memory limit of 192 MiB and was killed"
    assert shown.startswith("nbhull: the kernel went over its memory limit of 192 MiB")
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=PATIENCE)
    outcome = execute(client, "print('data' in globals())")
    assert (outcome.text, outcome.errors) == ("False\n", "")


@pytest.mark.requires("cgroup-memory")
def test_nbclient_raises_the_reason(folder: Path, small: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1"), nbformat.v4.new_code_cell(BOMB)])
    with pytest.raises(CellExecutionError, match="the kernel went over its memory limit of 192 MiB"):
        NotebookClient(notebook, kernel_name=small, timeout=PATIENCE).execute()


@pytest.mark.requires("cgroup-memory")
async def test_a_server_restarts_it_and_the_page_has_been_told(folder: Path, small: str) -> None:
    server = Server(folder)
    try:
        (folder / "a.ipynb").write_text("{}")
        session = await server.start_session("a.ipynb", small)
        page = await server.open_page(session["kernel"]["id"])
        await page.execute("1")
        request = await page.send(BOMB)
        messages = await page.until(lambda message: message["content"].get("execution_state") == "autorestarting"
                                    or message["content"].get("execution_state") == "restarting")  # fmt: skip
        told = [m["content"] for m in messages if m["parent_header"].get("msg_id") == request]
        errors = [content for content in told if content.get("ename") == "KernelDied"]
        assert [c["evalue"] for c in errors][:1] == ["the kernel went over its memory limit of 192 MiB and was killed"]
        await page.close()  # as JupyterLab does: the connections may be others now
        page = await server.open_page(session["kernel"]["id"])
        assert await page.execute("print(6 * 7)") == "42\n"
        await page.close()
    finally:
        server.stop()


@pytest.mark.requires("cgroup-memory")
def test_a_killed_child_is_told_in_the_cell_that_comes_next(start: Start, small: str) -> None:
    _, client = start(small)
    code = "import subprocess, sys; print(subprocess.run([sys.executable, '-c', 'bytearray(1 << 30)']).returncode)"
    said = execute(client, code)
    assert said.text == "-9\n"
    errors = said.errors or eventually(lambda: execute(client, "None").errors, "it is told")
    assert "nbhull: the container went over its memory limit of 192 MiB: a process of it was killed" in errors


@pytest.mark.requires("cgroup-pids")
def test_too_many_processes_are_told(start: Start, place: Place) -> None:
    manager, client = start(install_spec("few", place.prefix, pids=80))
    code = "import subprocess\nheld = []\nwhile True: held.append(subprocess.Popen(['sleep', '1000']))"
    said = execute(client, code)
    assert said.ename == "BlockingIOError"
    assert "nbhull: the container is at its limit of 80 processes and threads (pids)" in said.errors
    assert execute(client, "for one in held: one.kill()").status == "ok"
    assert manager.is_alive()


@pytest.mark.nosubuid
@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 11)", "the kernel crashed: a program in it was ended by the signal SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "the kernel was ended by the signal SIGKILL"),
        ("import os; os._exit(3)", "the kernel ended by itself with status 3"),
    ],
)
def test_other_ends_are_told(start: Start, code: str, reason: str) -> None:
    manager, client = start()
    content, shown = wait_for_reply(client, code, manager)
    assert (content["ename"], content["evalue"]) == ("KernelDied", reason)
    assert reason in shown


def test_an_idle_kernels_end_is_told_by_the_next(start: Start) -> None:
    manager, client = start()
    execute(client, "import os, threading; threading.Timer(0.2, os.kill, (os.getpid(), 11)).start()")
    watch_until_dead(manager)
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=PATIENCE)
    assert "nbhull: the kernel crashed" in execute(client, "1").errors
    assert execute(client, "1").errors == ""


def test_who_kills_a_kernel_knows_it(start: Start) -> None:
    manager, client = start()
    began = time.monotonic()
    client.execute("import time; time.sleep(1000)")
    eventually(lambda: executing(manager), "the cell runs")
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=PATIENCE)
    assert execute(client, "1").errors == ""
    assert time.monotonic() - began < PATIENCE


def executing(manager: KernelManager) -> bytes:
    """What the kernel has written down of the request under way."""
    return Path(manager.provisioner.contained.socket_folder, "executing.json").read_bytes()


def test_what_a_container_writes_in_place_of_a_request_is_not_believed(start: Start) -> None:
    manager, client = start()
    for content in ("'x' * 100000", "'{}'", "'[]'", "'{\"idents\": [\"zz\"]}'"):
        path = f"{manager.provisioner.contained.socket_folder}/executing.json"
        code = f"import os; os.unlink({path!r}); open({path!r}, 'w').write({content}); os.kill(os.getpid(), 11)"
        client.execute(code)
        watch_until_dead(manager)
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=PATIENCE)
        assert "nbhull: the kernel crashed" in execute(client, "1").errors
    assert os.path.exists(path)


def test_a_pull_is_told_in_the_log_and_to_the_reader(caplog: pytest.LogCaptureFixture) -> None:
    progress = LoggedProgress(logging.getLogger("pulls"), "quay.example/lab/x")
    assert progress.notices() == []
    with caplog.at_level(logging.INFO, "pulls"):
        progress.begin("layer", 10 << 20)
        for _ in range(10 << 4):
            progress.advance("layer", 1 << 16)
        progress.end("layer", "pulled")
        progress.step("add", "ipykernel to x").end()
    assert "is not here, pulling it" in caplog.messages[0]
    assert len(caplog.messages) < 1 + 10 + 3, "a line for every tenth part"
    assert caplog.messages[-1] == "nbhull: add ipykernel to x: done"
    assert progress.notices() == ["The image quay.example/lab/x was not here: 10 MiB were pulled for it."]
