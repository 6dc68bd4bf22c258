"""Questions to the server through the control socket, from an event loop that must not wait."""

from __future__ import annotations

import asyncio
from typing import Any

from nbhull.kernel.rpc import MAX_REQUEST, request_line, result_in, unreachable


async def ask(path: str, method: str, params: dict[str, Any]) -> Any:
    """What `rpc.call` gives. Raises HullError; asyncio.CancelledError closes the connection."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=4 * MAX_REQUEST)
    except OSError as error:
        raise unreachable(error) from error
    try:
        writer.write(request_line(method, params))
        line = await reader.readline()
    except OSError as error:
        raise unreachable(error) from error
    finally:
        writer.close()
    return result_in(line)
