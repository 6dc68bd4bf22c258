"""The debugger, which is loaded when it is first asked for."""

from __future__ import annotations

import itertools
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient

from support.jupyter import PATIENCE, Start, execute, value


class Debugging:
    """Sends a kernel's control channel what a front end's debugger sends."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self.client = client
        self.numbers = itertools.count(1)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """A request of the debug adapter protocol, and the reply's content."""
        content = {"type": "request", "seq": next(self.numbers), "command": command, "arguments": arguments}
        message = self.client.session.msg("debug_request", content)
        self.client.control_channel.send(message)
        while True:
            reply: dict[str, Any] = self.client.get_control_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
                return dict(reply["content"])

    def event(self, name: str) -> dict[str, Any]:
        """Wait for an event of the debugger's."""
        while True:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["msg_type"] == "debug_event" and message["content"]["event"] == name:
                return dict(message["content"])


LOADED = "[name for name in ('debugpy', 'pydevd') if name in __import__('sys').modules]"
CODE = "def double(n):\n    twice = 2 * n\n    return twice\n\nassert double(21) == 42"


def meet_breakpoint(client: BlockingKernelClient) -> None:
    """Debug a cell from its start to its end."""
    debugging = Debugging(client)
    assert debugging.ask("initialize", clientID="test", adapterID="", pathFormat="path")["success"]
    assert debugging.ask("attach")["success"]
    path = debugging.ask("dumpCell", code=CODE)["body"]["sourcePath"]
    points = debugging.ask("setBreakpoints", source={"path": path}, breakpoints=[{"line": 3}], sourceModified=False)
    assert points["body"]["breakpoints"][0]["verified"]
    debugging.ask("configurationDone")
    sent = client.execute(CODE)
    thread = debugging.event("stopped")["body"]["threadId"]
    frame = debugging.ask("stackTrace", threadId=thread)["body"]["stackFrames"][0]
    assert (frame["name"], frame["line"]) == ("double", 3)
    debugging.ask("continue", threadId=thread)
    reply = client.get_shell_msg(timeout=PATIENCE)
    while reply["parent_header"]["msg_id"] != sent:
        reply = client.get_shell_msg(timeout=PATIENCE)
    assert reply["content"]["status"] == "ok"
    assert debugging.ask("disconnect", restart=False, terminateDebuggee=False)["success"]


def test_it_is_not_there_before_it_is_asked_for(start: Start) -> None:
    _, client = start()
    assert value(client, LOADED) == "[]"
    assert Debugging(client).ask("debugInfo")["body"]["isStarted"] is False
    assert value(client, LOADED) == "['debugpy', 'pydevd']"
    meet_breakpoint(client)


def test_its_class_is_ipykernels_for_whoever_imports_it(start: Start) -> None:
    _, client = start()
    assert value(client, "__import__('ipykernel.debugger').debugger.Debugger.__module__") == "ipykernel.debugger"


def test_it_works_in_a_kernel_whose_memory_was_put_back(start: Start) -> None:
    """That of a copy speaks to the copy's sockets, though it is made from what the first kernel gave it."""
    _, client = start()
    assert execute(client, "%container snapshot --memory debugged").status == "ok"
    assert execute(client, "%container reset debugged").status == "ok"
    meet_breakpoint(client)
