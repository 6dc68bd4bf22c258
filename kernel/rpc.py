"""What goes over the control socket: JSON-RPC 2.0, one object a line. Used on both sides.

Inside the container this must import nothing but the standard library and nbhull.runtime.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from typing import Any

from nbhull.kernel.names import CONTROL_VARIABLE, REPLAY
from nbhull.runtime.errors import Denied, HullError, InvalidInput, NotFound, ProcessFailed
from nbhull.runtime.verbs.results import Fields, Names, Result, Table, Text
from nbhull.runtime.verbs.snapshots import Difference

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HULL_ERROR = -32000
"""the request was understood and could not be done; `data` is the HullError"""

MAX_REQUEST = 16 << 20
"""bytes of one line; a reset carries the requests that wait behind it"""


class ContainerError(Exception):
    """A %container line failed. Shown as one line and its hint, without a traceback."""

    def __init__(self, error: HullError) -> None:
        super().__init__(f"{error.message}. {error.hint}" if error.hint else error.message)
        self.error = error

    def _render_traceback_(self) -> list[str]:
        """Called by IPython in place of formatting a traceback."""
        return [f"nbhull: {self.error.message}", *([f"  hint: {self.error.hint}"] if self.error.hint else [])]


def call(path: str, method: str, params: dict[str, Any]) -> Any:
    """Ask the server that made this container, through the control socket at `path`.

    Blocks until it answers. Raises the HullError that it answers with, ProcessFailed if it is gone,
    and Denied where the kernelspec gives this kernel no control socket.
    """
    request = request_line(method, params)
    if len(request) > MAX_REQUEST and params.get("pending", {}).get("queue"):
        # too much waits behind a reset: its senders would rather see it lost than the reset refused
        return call(path, method, {**params, "pending": {**params["pending"], "queue": []}})
    with connect(path) as channel:
        try:
            channel.sendall(request)
            line = channel.makefile("rb").readline()
        except OSError as error:
            raise unreachable(error) from error
    return result_in(line)


def line_of(message: dict[str, Any]) -> bytes:
    """A message of JSON-RPC as it is sent, with its line end."""
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def request_line(method: str, params: dict[str, Any]) -> bytes:
    """A request that is the only one under way on its connection."""
    return line_of({"id": 1, "method": method, "params": params})


def error_of(error: HullError) -> dict[str, Any]:
    """A HullError as the `error` of a reply, from which the other end makes it again."""
    return {"code": HULL_ERROR, "message": error.message, "data": error.to_dict()}


def refuse_none(path: str) -> None:
    """Raise Denied where there is no control socket."""
    if path == "none":
        raise Denied(
            "the kernelspec gives this kernel no control over its container", 'set "control": "siblings" in it'
        )


def uncontained() -> NotFound:
    """The error for what is about a kernel's container, where it has none."""
    return NotFound(
        "this kernel does not run in a container", "choose the kernel `Python 3 (container)` for this notebook"
    )


def own_control() -> str | None:
    """The control socket of this kernel's container; None where cells are run again by a replay.

    Raises NotFound outside of a container, and Denied without control over it."""
    control = os.environ.get(CONTROL_VARIABLE)
    if control is None:
        raise uncontained()
    if control == REPLAY:
        return None
    refuse_none(control)
    return control


def unreachable(error: OSError) -> ProcessFailed:
    """The error for a server that is gone."""
    return ProcessFailed(
        f"the Jupyter server that made this container cannot be reached: {error.strerror}", "restart the kernel"
    )


def unanswered() -> ProcessFailed:
    """The error for a server that has closed the connection instead."""
    return ProcessFailed("the Jupyter server that made this container did not answer", "see the server's log")


def connect(path: str) -> socket.socket:
    """A connection to the control socket at `path`. Raises ProcessFailed, and Denied where there is none."""
    refuse_none(path)
    channel = socket.socket(socket.AF_UNIX)
    try:
        channel.connect(path)
    except OSError as error:
        channel.close()
        raise unreachable(error) from error
    return channel


def converse(
    channel: socket.socket, method: str, params: dict[str, Any], hear: Callable[[str, dict[str, Any]], None]
) -> Any:
    """Ask for something that takes long, on a connection of its own, and `hear` what is told meanwhile.

    Interrupted, it tells the other end, and raises when all that was begun there has been ended. Raises what `call`
    does."""
    request = request_line(method, params)
    if len(request) > MAX_REQUEST:
        raise InvalidInput(
            f"the request is longer than {MAX_REQUEST >> 20} MiB",
            "write large data to a file in the notebook's folder, which both see",
        )
    with channel:
        try:
            channel.sendall(request)
            with channel.makefile("rb") as replies:
                for line in replies:
                    message = json.loads(line)
                    if "method" not in message:
                        return result_of(message)
                    hear(message["method"], message["params"])
        except OSError as error:
            raise unreachable(error) from error
        except BaseException:
            await_end(channel)
            raise
    raise unanswered()


def await_end(channel: socket.socket) -> None:
    """Tell the other end that nobody waits, and wait until it has cleaned up."""
    try:
        channel.shutdown(socket.SHUT_WR)
        while channel.recv(1 << 16):
            pass
    except OSError:
        pass  # the other end is gone


def result_in(line: bytes) -> Any:
    """What a line with a reply gives. Raises the HullError that it tells, and ProcessFailed if none came."""
    if not line:
        raise unanswered()
    return result_of(json.loads(line))


def result_of(reply: dict[str, Any]) -> Any:
    """What a reply gives. Raises the HullError that it tells."""
    if "error" in reply:
        failure = reply["error"]
        if failure.get("code") == HULL_ERROR:
            raise HullError.from_dict(failure["data"])
        raise HullError(f"the server refused the request: {failure.get('message')}", "see the server's log")
    return reply["result"]


def encode_result(result: Result) -> dict[str, Any]:
    """A verb's result as plain data; `decode_result` is its inverse."""
    if isinstance(result, Difference):
        return {"type": "difference", "rows": result.rows, "items": result.items, "texts": result.texts}
    noticed = {"notices": list(result.notices)}
    if isinstance(result, Table):
        return {"type": "table", "columns": result.columns, "rows": result.rows, "items": result.items} | noticed
    if isinstance(result, Fields):
        return {"type": "fields", "fields": result.fields, "item": result.item}
    if isinstance(result, Names):
        return {"type": "names", "names": result.names} | noticed
    return {"type": "text", "text": result.text()}


def decode_result(data: dict[str, Any]) -> Result:
    """A verb's result from what the server sent."""
    if data["type"] == "difference":
        return Difference(data["rows"], data["items"], data["texts"])
    if data["type"] == "table":
        table = Table(data["columns"], data["rows"], data["items"])
        table.notices = data.get("notices", ())
        return table
    if data["type"] == "fields":
        return Fields([(name, value) for name, value in data["fields"]], data["item"])
    if data["type"] == "names":
        return Names(data["names"], notices=data.get("notices", ()))
    return Text(data["text"])
