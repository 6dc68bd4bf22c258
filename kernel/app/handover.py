"""From the kernel that is reset to the one that takes over: the open request, and those behind it.

Clients stay connected to the same paths and reconnect by themselves, with the same routing ids. The
new kernel waits for them, answers the request that asked for the reset, and then executes what was
queued behind it ("run all"). What reached the old kernel in the last moments between its surrender
and its end is lost, as with any restart.
"""

from __future__ import annotations

import base64
import os
import socket
import stat
import time
from typing import Any

import zmq

RECONNECT_TIMEOUT = 5.0
"""seconds; libzmq's clients come back within 0.2. Those that have gone meanwhile are given up"""
ANSWERERS_TIMEOUT = 1.0
"""seconds for those who can be asked for input: they come back by themselves like the others"""
SUBSCRIBING_TIMEOUT = 0.5
"""seconds from the moment at which all are connected: who waits for a reply alone, and does not look at what is
published, does not subscribe before it does"""
RETRY_INTERVAL = 0.005
LOOK_INTERVAL = 0.05
CELL = "execute_request"
ENAME = "ContainerReset"
BROKEN = "the container was reset while this cell ran"


class Handover:
    """What the old kernel left to be done."""

    def __init__(self, pending: dict[str, Any]) -> None:
        self.asked = Request(pending) if pending.get("parent") else None
        """the request that asked for the reset, unless its sender waits for nothing"""
        self.broken = Request(pending["broken"]) if pending.get("broken") else None
        """the cell that was under way when something else asked for it"""
        self.message = str(pending.get("message", "reset"))
        self.snapshot = str(pending.get("snapshot") or "")
        """the snapshot's name; empty for the image"""
        self.execution_count = int(pending["execution_count"])
        self.subscribers = int(pending["subscribers"])
        self.answerers = int(pending.get("answerers", 0))
        """clients that can be asked for input"""
        self.queue = [text_to_frames(texts) for texts in pending["queue"]]

    def finish_requests(self, session: Any, shell: zmq.Socket[Any], iopub: Any) -> None:
        """Answer the request that asked for the reset, once its sender is back; a cell that it broke off fails, and
        those behind that are not begun."""
        if self.asked is not None and self.asked.is_cell:
            said = {"name": "stdout", "text": self.message + "\n"}
            session.send(iopub, "stream", said, parent=self.asked.parent, ident=b"stream")
            done = {"status": "ok", "user_expressions": {}, "payload": []}
            self.reply(session, shell, self.asked, done)
        if self.broken is None:
            return
        failure = {"ename": ENAME, "evalue": BROKEN, "traceback": [f"nbhull: {BROKEN}: {self.message}"]}
        session.send(iopub, "error", failure, parent=self.broken.parent, ident=b"error")
        self.reply(session, shell, self.broken, {"status": "error", "user_expressions": {}, **failure})
        publish_idle(session, iopub, self.broken.parent)
        waiting, self.queue = self.queue, []
        for frames in waiting:
            idents, message = session.feed_identities(frames, copy=False)
            header = session.deserialize(message, content=False, copy=False)["header"]
            if header["msg_type"] == CELL:
                behind = Request({"parent": {"header": header}, "idents": [ident.hex() for ident in idents]})
                self.reply(session, shell, behind, {"status": "aborted"})
                publish_idle(session, iopub, behind.parent)

    def reply(self, session: Any, shell: zmq.Socket[Any], request: Request, content: dict[str, Any]) -> None:
        """Send the reply to a cell, once its sender is back."""
        if content["status"] != "aborted":  # a cell that was not begun has no number
            content = {"execution_count": self.execution_count, **content}
        frames = session.serialize(session.msg("execute_reply", content, parent=request.parent), request.idents)
        shell.router_mandatory = 1  # else libzmq drops what is for an unknown peer without a word
        deadline = time.monotonic() + RECONNECT_TIMEOUT
        while time.monotonic() < deadline:
            try:
                shell.send_multipart(frames)
                break
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH:
                    raise
                time.sleep(RETRY_INTERVAL)
        shell.router_mandatory = 0

    def publish_idle(self, session: Any, iopub: Any) -> None:
        """Tell that the request has ended."""
        if self.asked is not None:
            publish_idle(session, iopub, self.asked.parent)


class Request:
    """A request whose answer the old kernel owed."""

    def __init__(self, described: dict[str, Any]) -> None:
        """`described`: what `describe_request` gave."""
        self.parent: dict[str, Any] = described["parent"]
        self.idents = [bytes.fromhex(ident) for ident in described["idents"]]
        self.is_cell = self.parent["header"].get("msg_type") == CELL
        """whether somebody waits for a reply"""


def publish_idle(session: Any, iopub: Any, parent: dict[str, Any]) -> None:
    """Tell that a request has ended."""
    session.send(iopub, "status", {"execution_state": "idle"}, parent=parent, ident=b"status")


def await_peers(path: str, count: int) -> None:
    """Wait until so many peers are connected to the socket that this process listens on at `path`, or are given up.

    libzmq drops what is for a peer that is not back yet, and a question would never be answered."""
    deadline = time.monotonic() + ANSWERERS_TIMEOUT
    while connected_peers(path) < count and time.monotonic() < deadline:
        time.sleep(RETRY_INTERVAL)


def await_subscribers(publisher: zmq.Socket[Any], path: str, count: int) -> None:
    """Wait until `count` peers have subscribed to an XPUB socket that listens at `path`, or are given up."""
    deadline = time.monotonic() + RECONNECT_TIMEOUT
    wanted, are_connected = count, False
    while count > 0 and (left := deadline - time.monotonic()) > 0:
        if publisher.poll(int(min(left, LOOK_INTERVAL) * 1000) + 1):
            count -= publisher.recv()[:1] == b"\x01"
        elif not are_connected and connected_peers(path) >= wanted:
            are_connected = True
            deadline = min(deadline, time.monotonic() + SUBSCRIBING_TIMEOUT)


def describe_request(parent: dict[str, Any], idents: list[bytes]) -> dict[str, Any]:
    """A request, as far as its answers need it, as plain data."""
    header = {key: value.isoformat() if key == "date" else value for key, value in parent["header"].items()}
    return {"parent": {"header": header}, "idents": [bytes(ident).hex() for ident in idents]}


def frames_to_text(frames: list[Any]) -> list[str]:
    """The frames of a request as text."""
    return [base64.b64encode(frame.bytes).decode("ascii") for frame in frames]


def text_to_frames(texts: list[str]) -> list[zmq.Frame]:
    """The inverse of `frames_to_text`."""
    return [zmq.Frame(base64.b64decode(text)) for text in texts]


def connected_peers(path: str) -> int:
    """How many peers are connected to the socket that this process listens on at `path`."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as peer:
                if peer.family == socket.AF_UNIX and peer.getsockname() == path:
                    peer.getpeername()
                    count += 1
        except OSError:
            continue  # closed meanwhile, or the listening socket itself, which has no peer
    return count
