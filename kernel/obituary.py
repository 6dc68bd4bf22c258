"""The answer to a cell whose kernel was killed, sent in the dead kernel's place.

Clients stay connected to the same paths and reconnect by themselves. For a moment this process listens there, tells
what happened as an error of the cell that was running, and makes room for the next kernel.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import zmq
from jupyter_client.session import Session

from nbhull.kernel.names import EXECUTING_FILE
from nbhull.kernel.socket_folder import read_plain

LARGEST = 1 << 16
"""bytes of a description of a request; a kernel may have written anything"""
PATIENCE = 2.0
"""seconds for clients to come back; libzmq's do within 0.2"""
SUBSCRIBERS = 0.8
"""of these, for those who listen to what is published; they come back only while they listen"""
MORE = 0.15
"""seconds for other subscribers, once the first is back"""
RETRY_INTERVAL = 0.005
ENAME = "KernelDied"


class Request:
    """A request that was under way."""

    def __init__(self, parent: dict[str, Any], idents: list[bytes], execution_count: int) -> None:
        self.parent = parent
        self.idents = idents
        self.execution_count = execution_count


def take_request(folder: str) -> Request | None:
    """The request that the kernel of a socket folder was executing; None if there is none, or what is
    there makes no sense, for the folder is the container's to write to."""
    path = f"{folder}/{EXECUTING_FILE}"
    data = read_plain(path, LARGEST)
    with suppress(OSError):
        os.unlink(path)
    if not data:
        return None
    try:
        described = json.loads(data)
        header = described["parent"]["header"]
        idents = [bytes.fromhex(ident) for ident in described["idents"]]
        if not isinstance(header, dict) or not idents:
            return None
        return Request({"header": header}, idents, int(described["execution_count"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def deliver(connection: Mapping[str, Any], base: str, request: Request, message: str, hint: str) -> bool:
    """Answer a request with an error; false if its sender did not come back in time.

    `connection`: the connection file's content; `base`: its `ip`, where sockets are. Blocks for PATIENCE at most.
    """
    session = Session(key=str(connection["key"]).encode(), signature_scheme=connection["signature_scheme"])
    deadline = time.monotonic() + PATIENCE
    error = {
        "ename": ENAME,
        "evalue": message,
        "traceback": [f"nbhull: {message}", *([f"  hint: {hint}"] if hint else [])],
    }
    with zmq.Context() as context, context.socket(zmq.ROUTER) as shell, context.socket(zmq.XPUB) as iopub:
        for one, port in ((shell, "shell_port"), (iopub, "iopub_port")):
            path = f"{base}-{connection[port]}"
            with suppress(FileNotFoundError):
                os.unlink(path)
            one.linger = 500
            one.bind(f"ipc://{path}")
        await_subscribers(iopub, time.monotonic() + SUBSCRIBERS)
        session.send(iopub, "error", error, parent=request.parent, ident=b"error")
        reply = {"status": "error", "execution_count": request.execution_count, "user_expressions": {}, **error}
        frames = session.serialize(session.msg("execute_reply", reply, parent=request.parent), request.idents)
        shell.router_mandatory = 1  # else libzmq drops what is for an unknown peer without a word
        answered = False
        while not answered and time.monotonic() < deadline:
            try:
                shell.send_multipart(frames)
                answered = True
            except zmq.ZMQError as failure:
                if failure.errno != zmq.EHOSTUNREACH:
                    raise
                time.sleep(RETRY_INTERVAL)
        idle = {"execution_state": "idle"}
        session.send(iopub, "status", idle, parent=request.parent, ident=b"status")
        return answered


def await_subscribers(publisher: Any, deadline: float) -> None:
    """Wait until subscribers are back on an XPUB socket, or are given up."""
    while (left := deadline - time.monotonic()) > 0 and publisher.poll(int(left * 1000) + 1):
        publisher.recv()
        deadline = min(deadline, time.monotonic() + MORE)
