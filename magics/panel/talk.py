"""Questions to the server through the control socket, from an event loop that must not wait."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from nbhull.kernel.rpc import HULL_ERROR, MAX_REQUEST
from nbhull.runtime.errors import HullError, ProcessFailed


async def ask(path: str, method: str, params: dict[str, Any]) -> Any:
    """What `rpc.call` gives. Raises HullError; asyncio.CancelledError closes the connection."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=4 * MAX_REQUEST)
    except OSError as error:
        raise ProcessFailed("the Jupyter server cannot be reached", "restart the kernel") from error
    try:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        writer.write(json.dumps(request).encode() + b"\n")
        line = await reader.readline()
    except OSError as error:
        raise ProcessFailed("the Jupyter server cannot be reached", "restart the kernel") from error
    finally:
        writer.close()
    if not line:
        raise ProcessFailed("the Jupyter server did not answer", "see the server's log")
    reply = json.loads(line)
    if "error" not in reply:
        return reply["result"]
    failure = reply["error"]
    if failure.get("code") == HULL_ERROR:
        raise HullError.from_dict(failure["data"])
    raise HullError(f"the server refused the request: {failure.get('message')}", "see the server's log")
