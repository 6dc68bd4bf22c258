"""How a forked process ends: always by `os._exit`, never by returning into its parent's code."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nbhull.runtime.errors import HullError, LauncherLost, SyscallFailed
from nbhull.runtime.launcher import wire


@contextmanager
def last_act(channel: socket.socket | None, step: str) -> Iterator[None]:
    """Run the body as the last thing that this process does; it exits with 0, or with 1 after an exception.

    An error that is known is answered on `channel`, an OSError named after `step`; a bug is printed."""
    status = 1
    try:
        yield
        status = 0
    except LauncherLost:
        status = 0  # whom it served has gone, and so does it
    except HullError as error:
        if channel is not None:
            wire.send_failure(channel, error)
    except OSError as error:
        if channel is None:
            sys.excepthook(*sys.exc_info())
        else:
            wire.send_failure(channel, SyscallFailed(step, error.errno or 0, str(error.filename or "")))
    except BaseException:  # noqa: BLE001  # what nobody expected must be seen, and must not go on in the parent's code
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
