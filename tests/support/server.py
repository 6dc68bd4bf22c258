"""A real jupyter_server, in a process of its own, and a page of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.websocket import WebSocketClientConnection, websocket_connect

from support.waiting import eventually

PATIENCE = 60.0
AGAIN = 5.0
"""seconds after which a server that was asked to end is asked again"""
TOKEN = "a-token-for-tests"

Message = dict[str, Any]


class Server:
    """jupyter_server on a free port; its root folder is the notebooks' folder."""

    def __init__(self, folder: Path, program: str = "jupyter_server", **variables: str) -> None:
        """`program`: the module to run, jupyter_server itself or an application on it (jupyterlab)."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = ""
        options = {
            "ServerApp.port": self.port, "ServerApp.port_retries": 0, "ServerApp.root_dir": folder,
            "ServerApp.open_browser": False, "IdentityProvider.token": TOKEN, "ServerApp.allow_root": True,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", program, *(f"--{name}={value}" for name, value in options.items())],
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **variables}, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.is_up = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if not self.is_up.wait(PATIENCE):
            self.stop(signal.SIGKILL)
            raise TimeoutError(f"jupyter_server did not start: {self.log}")
        eventually(self._accepts, "jupyter_server accepts connections")  # it says so a little too early

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line
            if re.search(r"Jupyter Server .* is running at", line):
                self.is_up.set()

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> None:
        """End it, and wait for its end; one that hangs is killed, and tells where it hung."""
        hung = False
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            # Again and again: jupyter_server's handler fails if the signal comes while it writes to its log.
            hung = time.monotonic() > deadline
            self.process.send_signal(signal.SIGABRT if hung else signum)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(AGAIN)
        self.reader.join(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()
        if hung:
            raise TimeoutError(f"jupyter_server did not stop: {self.log}")

    async def ask(self, method: str, path: str, body: Any = None) -> HTTPResponse:
        """One request of its REST interface; no exception for an error status."""
        request = HTTPRequest(
            f"http://127.0.0.1:{self.port}/api/{path}",
            method=method,
            headers={"Authorization": f"token {TOKEN}"},
            body=None if body is None else json.dumps(body),
            allow_nonstandard_methods=True,
            request_timeout=PATIENCE,
        )
        return await AsyncHTTPClient().fetch(request, raise_error=False)

    async def start_session(self, notebook: str, kernel: str = "nbhull") -> Message:
        """Open a notebook as JupyterLab does; gives the session's model."""
        name = Path(notebook).name
        body = {"path": notebook, "name": name, "type": "notebook", "kernel": {"name": kernel}}
        response = await self.ask("POST", "sessions", body)
        assert response.code == 201, response.body
        model: Message = json.loads(response.body)
        return model

    async def open_page(self, kernel: str) -> Page:
        """The websocket of a kernel."""
        url = f"ws://127.0.0.1:{self.port}/api/kernels/{kernel}/channels?token={TOKEN}"
        return Page(await websocket_connect(url))


class Page:
    """What a notebook's page in the browser sees."""

    def __init__(self, channel: WebSocketClientConnection) -> None:
        self.channel = channel
        self.session = uuid.uuid4().hex

    async def send(self, code: str) -> str:
        """Ask for the execution of a cell; gives the request's id."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}}
        return await self.send_message("execute_request", content)

    async def send_message(self, kind: str, content: Any, channel: str = "shell", **header: Any) -> str:
        """Send any message; gives its id."""
        identity = uuid.uuid4().hex
        header |= {
            "msg_id": identity, "msg_type": kind, "session": self.session, "username": "",
            "version": "5.3", "date": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        message = {
            "header": header, "parent_header": {}, "metadata": {}, "content": content,
            "channel": channel, "buffers": [],
        }  # fmt: skip
        await self.channel.write_message(json.dumps(message))
        return identity

    async def until(self, condition: Callable[[Message], bool]) -> list[Message]:
        """Messages up to the first that meets a condition."""
        messages = []
        while True:
            text = await asyncio.wait_for(self.channel.read_message(), PATIENCE)
            assert text is not None, "the server closed the websocket"
            messages.append(json.loads(text))
            if condition(messages[-1]):
                return messages

    async def execute(self, code: str) -> str:
        """Execute a cell; gives what it printed, once it is idle and its reply is here."""
        identity = await self.send(code)
        open_ends = {"idle", "reply"}

        def ends(message: Message) -> bool:
            if message["parent_header"].get("msg_id") == identity:
                if message["msg_type"] == "execute_reply":
                    open_ends.discard("reply")
                elif message["content"].get("execution_state") == "idle":
                    open_ends.discard("idle")
            return not open_ends

        messages = [m for m in await self.until(ends) if m["parent_header"].get("msg_id") == identity]
        return "".join(message["content"]["text"] for message in messages if message["msg_type"] == "stream")

    async def close(self) -> None:
        """Close the page, and wait until the connection is closed."""
        self.channel.close()
        while await asyncio.wait_for(self.channel.read_message(), PATIENCE) is not None:
            pass
