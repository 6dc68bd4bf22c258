"""Kernels of a real jupyter_server, as JupyterLab drives them: REST and websocket."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from support.jupyter import Place, container_entries, install_spec
from support.leaks import traces
from support.server import Server
from support.stores import delete_tree
from support.waiting import eventually

NAMESPACE = "import os; print(os.readlink('/proc/self/ns/mnt'))"


@pytest.fixture
def server(folder: Path, place: Place) -> Iterator[Server]:
    server = Server(folder)
    yield server
    if server.process.poll() is None:
        server.stop()


def notebook(folder: Path, name: str = "work.ipynb", **container: object) -> str:
    """Write a notebook, with settings for its container; gives its path for the server."""
    document = nbformat.v4.new_notebook(metadata={"container": container} if container else {})
    (folder / name).parent.mkdir(exist_ok=True)
    nbformat.write(document, folder / name)
    return name


@pytest.mark.nosubuid
async def test_a_session(server: Server, folder: Path) -> None:
    session = await server.start_session(notebook(folder, "deep/work.ipynb"))
    page = await server.open_page(session["kernel"]["id"])
    assert (await page.execute("import os; print(os.getcwd())")).strip() == str(folder / "deep")
    assert (await page.execute(NAMESPACE)).strip() != os.readlink("/proc/self/ns/mnt")
    await page.close()
    assert (await server.ask("DELETE", f"sessions/{session['id']}")).code == 204
    assert container_entries() == set()


async def test_metadata_of_the_notebook(server: Server, folder: Path) -> None:
    session = await server.start_session(notebook(folder, network="none"))
    page = await server.open_page(session["kernel"]["id"])
    assert (await page.execute("print(open('/proc/net/dev').read().count(':'))")).strip() == "1"
    await page.close()


async def test_interrupt_and_restart(server: Server, folder: Path) -> None:
    session = await server.start_session(notebook(folder))
    kernel = session["kernel"]["id"]
    page = await server.open_page(kernel)
    before = await page.execute(NAMESPACE)
    await page.send("print('ready', flush=True)\nimport time; time.sleep(1000)")
    await page.until(lambda m: m["msg_type"] == "stream")
    assert (await server.ask("POST", f"kernels/{kernel}/interrupt", {})).code == 204
    await page.until(lambda m: m["msg_type"] == "error" and m["content"]["ename"] == "KeyboardInterrupt")
    await page.until(lambda m: m["content"].get("execution_state") == "idle")
    await page.execute("open('/root/kept', 'w').write('kept'); import sys; sys.stdout.flush()")
    assert (await server.ask("POST", f"kernels/{kernel}/restart", {})).code == 200
    await page.close()  # as JupyterLab does
    page = await server.open_page(kernel)
    assert await page.execute(NAMESPACE) == before
    assert await page.execute("print(open('/root/kept').read())") == "kept\n"
    await page.close()


async def test_a_killed_kernel_is_restarted_in_its_container(server: Server, folder: Path) -> None:
    session = await server.start_session(notebook(folder))
    page = await server.open_page(session["kernel"]["id"])
    before = await page.execute(NAMESPACE)
    await page.execute("open('/root/kept', 'w').write('kept')")
    await page.send("os.kill(os.getpid(), 9)")
    await page.until(lambda m: m["content"].get("execution_state") == "restarting")
    await page.close()  # as JupyterLab does: the connections may be others now
    page = await server.open_page(session["kernel"]["id"])
    assert await page.execute(NAMESPACE) == before
    assert await page.execute("print(open('/root/kept').read())") == "kept\n"
    await page.close()


async def test_reset(server: Server, folder: Path) -> None:
    session = await server.start_session(notebook(folder))
    page = await server.open_page(session["kernel"]["id"])
    await page.execute("%container snapshot websocket")
    await page.execute("open('/root/gone', 'w').write('1')")
    assert "reset to websocket" in await page.execute("%container reset")
    assert await page.execute("import os; print(os.path.exists('/root/gone'))") == "False\n"
    state = json.loads((await server.ask("GET", f"kernels/{session['kernel']['id']}")).body)
    assert state["execution_state"] == "idle"
    await page.close()


async def test_run_all_over_a_reset(server: Server, folder: Path) -> None:
    session = await server.start_session(notebook(folder))
    page = await server.open_page(session["kernel"]["id"])
    codes = ["a = 1", "%container reset", "a = 2", "print('a is', a)"]
    last = [await page.send(code) for code in codes][-1]
    messages = await page.until(
        lambda m: m["parent_header"].get("msg_id") == last and m["content"].get("execution_state") == "idle"
    )
    printed = [m["content"]["text"] for m in messages if m["msg_type"] == "stream" and m["parent_header"]]
    assert printed[-1] == "a is 2\n"
    await page.close()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"image": "no-such-image"}, "no image 'no-such-image'"),
        ({"memory": "12 elephants"}, "'12 elephants' is not a size"),
    ],
    ids=["image", "memory"],
)
async def test_a_failed_start_is_shown_whole(
    server: Server, folder: Path, place: Place, config: dict[str, str], reason: str
) -> None:
    kernel = install_spec("bad-" + "-".join(config), place.prefix, **config)
    body = {"path": notebook(folder), "name": "work.ipynb", "type": "notebook", "kernel": {"name": kernel}}
    for response in (
        await server.ask("POST", "sessions", body),  # a notebook, and JupyterLab's launcher
        await server.ask("POST", "kernels", {"name": kernel}),
    ):
        assert response.code == 500
        message = json.loads(response.body)["message"]
        assert reason in message
        assert ". " in message, "there is no hint"
        assert reason in server.log
    assert json.loads((await server.ask("GET", "kernels")).body) == []


async def test_a_socket_path_too_long(folder: Path, place: Place, tmp_path: Path) -> None:
    runtime = tmp_path / ("long" * 25)
    runtime.mkdir(mode=0o700)
    server = Server(folder, XDG_RUNTIME_DIR=str(runtime))
    response = await server.ask("POST", "kernels", {"name": "nbhull"})
    server.stop()
    assert response.code == 500
    assert "is too long for Unix sockets. set XDG_RUNTIME_DIR" in json.loads(response.body)["message"]
    assert list((runtime / "nbhull").iterdir()) == []


async def test_a_server_that_is_killed_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    """Nothing but files in the store, from which the work can be rescued."""
    before = traces()
    server = Server(folder, NBHULL_HOME=str(tmp_path / "store"))
    sessions = [await server.start_session(notebook(folder, f"{number}.ipynb")) for number in range(3)]
    pages = await asyncio.gather(*(server.open_page(session["kernel"]["id"]) for session in sessions))
    await asyncio.gather(*(page.execute("!sleep 1000 &") for page in pages))
    assert traces() - before, "the test sees nothing"
    server.stop(signal.SIGKILL)
    eventually(lambda: not traces() - before, f"all is gone: {sorted(traces() - before)}", timeout=10)
    for page in pages:
        await page.close()
    delete_tree(tmp_path / "store")
