"""The life of a kernel in a container, through the real jupyter_client."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import AsyncKernelManager, KernelManager

from support.jupyter import PATIENCE, Place, Start, container_entries, execute, value
from support.waiting import eventually


def namespace(kind: str) -> str:
    return f"__import__('os').readlink('/proc/self/ns/{kind}')"


@pytest.mark.nosubuid
def test_it_is_a_container(start: Start, folder: Path) -> None:
    _, client = start()
    for kind in ("user", "mnt", "pid", "ipc", "uts"):
        assert value(client, namespace(kind)) != os.readlink(f"/proc/self/ns/{kind}"), kind
    assert value(client, f"__import__('os').path.exists({os.path.expanduser('~/.config')!r})") == "False"
    assert str(os.getpid()) not in value(client, "__import__('os').listdir('/proc')").split()
    assert value(client, "__import__('os').getcwd()") == str(folder)
    assert value(client, "__import__('sys').prefix") == sys.prefix


def test_garbage_is_collected_though_not_while_it_starts(start: Start) -> None:
    _, client = start()
    assert value(client, "__import__('gc').isenabled()") == "True"
    assert int(value(client, "__import__('gc').get_freeze_count()")) > 10_000


@pytest.mark.nosubuid
def test_its_sockets_are_files(start: Start) -> None:
    manager, _ = start()
    assert manager.transport == "ipc"
    assert Path(f"{manager.ip}-{manager.shell_port}").is_socket()


@pytest.mark.nosubuid
def test_files_belong_to_whoever_started_it(start: Start, folder: Path) -> None:
    (folder / "given.txt").write_text("from outside")
    _, client = start()
    assert value(client, "open('given.txt').read()") == "from outside"
    execute(client, "import os; os.mkdir('made'); open('made/result.txt', 'w').write('from inside')")
    made = folder / "made/result.txt"
    assert made.read_text() == "from inside"
    assert (made.stat().st_uid, made.stat().st_gid) == (os.getuid(), os.getgid())
    made.unlink()


def test_a_token_of_the_server_does_not_come_in(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    monkeypatch.setenv("JPY_PARENT_PID", "12345")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    _, client = start()
    environment = value(client, "dict(__import__('os').environ)")
    assert "hush" not in environment
    assert "'https_proxy': 'http://proxy.example:3128'" in environment
    assert value(client, "__import__('os').environ['JPY_PARENT_PID']") == "1"


def test_variables_given_to_a_start_come_in(start: Start) -> None:
    _, client = start(env={**os.environ, "EXPERIMENT": "42"})
    assert value(client, "__import__('os').environ['EXPERIMENT']") == "42"


def interrupted(manager: KernelManager, client: BlockingKernelClient, code: str) -> str:
    """Start a cell, interrupt it once it says `ready`, and give the name of the error it ends with."""
    request = client.execute(code)
    ename = ""
    while True:
        message = client.get_iopub_msg(timeout=PATIENCE)
        if message["parent_header"].get("msg_id") != request:
            continue
        if message["msg_type"] == "stream" and "ready" in message["content"]["text"]:
            manager.interrupt_kernel()
        elif message["msg_type"] == "error":
            ename = message["content"]["ename"]
        elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            client.get_shell_msg(timeout=PATIENCE)
            return ename


def test_interrupt(start: Start) -> None:
    manager, client = start()
    assert (
        interrupted(manager, client, "import time\nprint('ready', flush=True)\ntime.sleep(100)") == "KeyboardInterrupt"
    )
    assert value(client, "6 * 7") == "42"


def test_interrupt_reaches_a_command(start: Start) -> None:
    manager, client = start()
    began = time.monotonic()
    interrupted(manager, client, "!echo ready; exec sleep 100")
    assert time.monotonic() - began < 90, "the command was not interrupted but ended by itself"
    assert "sleep" not in execute(client, "!cat /proc/[0-9]*/comm").text


def test_restart_keeps_the_container(start: Start, place: Place) -> None:
    manager, client = start()
    before = value(client, namespace("mnt"))
    # what pip would do, without the network
    target = "__import__('sysconfig').get_path('purelib')"
    assert execute(client, f"open({target} + '/fresh_module.py', 'w').write('answer = 42')").status == "ok"
    execute(client, "variable = 1")
    for now in (False, True):
        manager.restart_kernel(now=now)
        client.wait_for_ready(timeout=PATIENCE)
        assert value(client, namespace("mnt")) == before
        assert value(client, "__import__('fresh_module').answer") == "42"
        assert value(client, "'variable' in globals()") == "False"
    assert not Path(target, "fresh_module.py").exists()


def test_kill_ends_the_kernel_alone(start: Start, place: Place) -> None:
    manager, client = start()
    before = value(client, namespace("mnt"))
    manager.signal_kernel(signal.SIGKILL)
    eventually(lambda: not manager.is_alive(), "the kernel is dead")
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=PATIENCE)
    assert value(client, namespace("mnt")) == before


def test_shutdown_leaves_nothing(start: Start, place: Place) -> None:
    before = container_entries()
    manager, client = start()
    container = manager.provisioner.contained.container
    assert container is not None
    log = Path(manager.connection_file).with_suffix(".log")
    assert log.exists()
    assert (log.stat().st_mode & 0o777) == 0o600
    execute(client, "!sleep 1000 &")
    client.stop_channels()
    manager.shutdown_kernel()
    assert container.id not in [c.id for c in place.engine.containers()]
    assert not Path(container.socket_folder).exists()
    assert not log.exists()
    assert container_entries() == before


def test_cleanup_without_a_launch(place: Place) -> None:
    manager = KernelManager(kernel_name="nbhull")
    manager.cleanup_resources()
    manager.context.destroy(linger=0)


def test_a_container_that_was_stopped_starts_again(start: Start, place: Place) -> None:
    manager, client = start()
    execute(client, "open('/root/kept', 'w').write('1')")
    place.engine.stop(manager.provisioner.contained.container.id, timeout=0)
    eventually(lambda: not manager.is_alive(), "the kernel is dead")
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=PATIENCE)
    assert value(client, "open('/root/kept').read()") == "1"


def test_a_container_that_is_gone_is_replaced_and_said_so(start: Start, place: Place) -> None:
    manager, client = start()
    place.engine.remove(manager.provisioner.contained.container.id, force=True)
    eventually(lambda: not manager.is_alive(), "the kernel is dead")
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=PATIENCE)  # the client's own old connection
    assert "its changes are lost" in execute(client, "1").errors
    assert execute(client, "1").errors == ""


async def test_async_manager(folder: Path, place: Place) -> None:
    manager = AsyncKernelManager(kernel_name="nbhull")
    await manager.start_kernel()
    try:
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=PATIENCE)
        reply = await client.execute_interactive("1 + 1", output_hook=lambda message: None, timeout=PATIENCE)
        assert reply["content"]["status"] == "ok"
        client.stop_channels()
    finally:
        await manager.shutdown_kernel()
    manager.context.destroy(linger=0)


async def test_many_at_the_same_time(folder: Path, place: Place) -> None:
    managers = [AsyncKernelManager(kernel_name="nbhull") for _ in range(20)]

    async def one(manager: AsyncKernelManager) -> str:
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=2 * PATIENCE)
        said: list[str] = []

        def hook(message: dict[str, dict[str, str]]) -> None:
            said.append(message["content"].get("text", ""))

        code = "import os; print(os.readlink('/proc/self/ns/mnt'))"
        await client.execute_interactive(code, output_hook=hook, timeout=PATIENCE)
        client.stop_channels()
        return "".join(said)

    try:
        namespaces = await asyncio.gather(*(one(manager) for manager in managers))
    finally:
        await asyncio.gather(*(manager.shutdown_kernel(now=True) for manager in managers))
        for manager in managers:
            manager.context.destroy(linger=0)
    assert len(set(namespaces)) == 20


def test_a_home_folder_is_withheld(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "key.pem").write_text("secret")
    monkeypatch.setenv("HOME", str(home))
    _, client = start(cwd=str(home))
    outcome = execute(client, "import os; print(os.getcwd(), os.listdir())")
    assert outcome.text == f"{home} []\n"
    assert "was not handed in" in outcome.errors
    execute(client, "open('mine.txt', 'w').write('1')")
    assert sorted(path.name for path in home.iterdir()) == ["key.pem"]


def test_an_allowed_folder_shows_no_notice(start: Start) -> None:
    _, client = start()
    assert execute(client, "1").errors == ""
