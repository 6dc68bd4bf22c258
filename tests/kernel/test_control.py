"""The control socket against clients that mean no good."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient

from nbhull.kernel import rpc
from nbhull.kernel.control import MAX_CLIENTS
from nbhull.runtime.errors import SyscallFailed
from support.jupyter import Place, Start, execute, install_spec, value


@pytest.fixture
def kernel(start: Start) -> BlockingKernelClient:
    return start()[1]


@pytest.fixture
def path(kernel: BlockingKernelClient) -> str:
    """The kernel's control socket."""
    return value(kernel, "__import__('os').environ['NBHULL_CONTROL']")


@pytest.fixture
def channel(path: str) -> Iterator[socket.socket]:
    with connected(path) as channel:
        yield channel


def connected(path: str) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(path)
    channel.settimeout(60)
    return channel


def ask(channel: socket.socket, line: bytes) -> dict[str, Any]:
    """Send one line, and give the one that comes back."""
    channel.sendall(line + b"\n")
    with channel.makefile("rb") as replies:
        reply: dict[str, Any] = json.loads(replies.readline())
    return reply


def request(method: Any, **fields: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, **fields}).encode()


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", rpc.PARSE_ERROR),
        (b"\xff\xfe\0", rpc.PARSE_ERROR),
        (b"[" * 100_000, rpc.PARSE_ERROR),
        (b"[]", rpc.INVALID_REQUEST),
        (b'{"id": 1, "method": "ps"}', rpc.INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "ps"}', rpc.INVALID_REQUEST),
        (request("remove"), rpc.METHOD_NOT_FOUND),
        (request("__class__"), rpc.METHOD_NOT_FOUND),
        (request(["ps"]), rpc.METHOD_NOT_FOUND),
        (request("ps", params=[1]), rpc.INVALID_PARAMS),
        (request("snapshot", params={"name": "../../etc"}), rpc.HULL_ERROR),
        (request("snapshot", params={"name": 5}), rpc.HULL_ERROR),
        (request("reset", params={"pending": 5}), rpc.HULL_ERROR),
        (request("reset", params={"name": "no-such-snapshot"}), rpc.HULL_ERROR),
        (request("tag", params={"image": "host", "name": "mine"}), rpc.HULL_ERROR),
    ],
)
def test_refused(channel: socket.socket, line: bytes, code: int) -> None:
    assert ask(channel, line)["error"]["code"] == code
    assert "result" in ask(channel, request("info")), "the connection does not go on"


def test_an_error_arrives_as_it_was_raised(channel: socket.socket) -> None:
    data = ask(channel, request("reset", params={"name": "no-such-snapshot"}))["error"]["data"]
    assert data["kind"] == "NotFound"
    assert data["message"]
    assert data["hint"]


def test_it_answers_about_itself_alone(kernel: BlockingKernelClient, path: str, start: Start) -> None:
    other, _ = start()
    with connected(path) as channel:
        containers = ask(channel, request("ps"))["result"]["items"]
        assert len(containers) == 1
        assert containers[0]["id"] != other.provisioner.contained.container.id
        assert containers[0]["id"] in path


def test_a_request_too_long_ends_the_connection(channel: socket.socket, path: str) -> None:
    chunk = b" " * (1 << 20)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        channel.sendall(chunk * (rpc.MAX_REQUEST // len(chunk) + 64))
    with connected(path) as again:
        assert "result" in ask(again, request("info"))


def test_silent_clients_keep_nobody_waiting(kernel: BlockingKernelClient, path: str) -> None:
    silent = [connected(path) for _ in range(3 * MAX_CLIENTS)]
    for client in silent[-3:]:
        client.sendall(b'{"jsonrpc"')
    with connected(path) as channel:
        assert "result" in ask(channel, request("info"))
    assert execute(kernel, "%container").status == "ok"
    for client in silent:
        client.close()


def test_clients_that_do_not_read_keep_nobody_waiting(path: str) -> None:
    with connected(path) as greedy, connected(path) as channel:
        for _ in range(100):
            greedy.sendall(request("images") + b"\n")
        assert "result" in ask(channel, request("info"))


def test_requests_in_one_go_are_answered_in_order(channel: socket.socket) -> None:
    lines = [json.dumps({"jsonrpc": "2.0", "id": n, "method": "ps"}).encode() for n in range(5)]
    channel.sendall(b"\n".join(lines) + b"\n")
    with channel.makefile("rb") as replies:
        assert [json.loads(replies.readline())["id"] for _ in lines] == list(range(5))


def test_a_notification_is_not_answered(channel: socket.socket) -> None:
    channel.sendall(b'{"jsonrpc": "2.0", "method": "ps"}\n')
    assert ask(channel, request("ps"))["id"] == 7


def test_no_control(place: Place, start: Start) -> None:
    manager, client = start(install_spec("no-control", place.prefix, control="none"))
    outcome = execute(client, "%container snapshot")
    assert outcome.status == "error"
    assert "no control" in outcome.errors
    assert "control.sock" not in os.listdir(manager.provisioner.contained.socket_folder)


def test_a_link_in_the_socket_s_place_leads_nowhere(start: Start, folder: object) -> None:
    """A container may put what it likes into the shared folder; the server must not follow it out."""
    manager, client = start()
    sockets = manager.provisioner.contained.socket_folder
    execute(client, f"import os; os.chdir({sockets!r}); os.unlink('control.sock'); os.unlink('connection.json')")
    execute(client, "os.symlink('/etc/passwd', 'connection.json'); os.symlink('/etc/passwd', 'control.sock')")
    before = os.stat("/etc/passwd")
    manager.restart_kernel(now=True)
    client.wait_for_ready(timeout=60)
    assert os.stat("/etc/passwd") == before
    assert execute(client, "%container ps").status == "ok"


def test_no_path_of_the_machine_goes_out(
    place: Place, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But those that the kernel was given itself."""
    (tmp_path / "secret-project").mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    spec = install_spec("hides", place.prefix, mounts=[f"{tmp_path}/secret-project:/data"])
    manager, client = start(spec)
    runtime = os.environ["XDG_RUNTIME_DIR"] + "/nbhull"
    hidden = (place.engine.store.home, runtime, str(tmp_path / "nbhull"), "secret-project")

    def fail(*_: Any) -> Any:
        paths = " ".join([f"{place.engine.store.home}/layers/x", f"{runtime}/x", f"{hidden[2]}/config.toml"])
        error = SyscallFailed("mount", 1, f"{place.engine.store.home}/layers/x", f"see {paths}")
        error.message += f" {paths}"
        raise error

    control = manager.provisioner.control
    with connected(value(client, "__import__('os').environ['NBHULL_CONTROL']")) as channel:
        channel.sendall(request("info") + b"\n" + request("ps") + b"\n")
        with channel.makefile("r") as replies:
            told = replies.readline() + replies.readline()
        assert '"target": "/data"' in told
        control.methods["info"] = fail
        told += json.dumps(ask(channel, request("info")))
        control.long_methods["prepare"] = fail
        told += json.dumps(ask(channel, request("prepare")))
    assert told.count("(nbhull's store)/layers/x") >= 4
    assert [path for path in hidden if path in told.replace(control.path, "")] == []
