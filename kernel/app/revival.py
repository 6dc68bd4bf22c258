"""The kernel's application in a copy of its process: the same objects, on new sockets, threads and event loops.

Kernel, shell, session and comms stay the same objects, so that whatever refers to them (and to them by their ids: the
page) goes on. Nothing of the old ZeroMQ context is touched: its sockets belong to the process that was copied.
"""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from functools import partial
from typing import Any

from ipykernel.iostream import OutStream

from nbhull.kernel.app.debugging import LateDebugger

GRAVES: list[Any] = []
"""what belonged to the process that was copied, kept so that nothing tries to close it"""
OLD_PARTS = (
    "context",
    "shell_socket",
    "control_socket",
    "debugpy_socket",
    "debug_shell_socket",
    "stdin_socket",
    "iopub_socket",
    "iopub_thread",
    "control_thread",
    "shell_channel_thread",
    "heartbeat",
)
KERNEL_PARTS = frozenset({"shell_stream", "control_stream", "debugpy_stream", *OLD_PARTS}) - {"context", "heartbeat"}
"""what the application hands to its kernel that is new"""


def revive(app: Any) -> None:
    """Make all anew that does not come through a fork. To be called outside of any event loop."""
    kernel, shell = app.kernel, app.shell
    GRAVES.append([getattr(app, name, None) for name in OLD_PARTS])
    GRAVES.append([getattr(kernel, name, None) for name in KERNEL_PARTS])
    loop = kernel.io_loop.asyncio_loop
    loop.set_exception_handler(lambda *_: None)  # it would tell that nobody asked how the last request ended
    loop.close()
    asyncio.set_event_loop(asyncio.new_event_loop())
    app.session.pid = os.getpid()
    atexit.unregister(app.close)
    app.context = None
    app.init_sockets()
    app.init_heartbeat()
    for stream in {id(stream): stream for stream in (kernel._stdout, kernel._stderr)}.values():
        if isinstance(stream, OutStream):
            rebind_stream(stream, app.iopub_thread)
    app.init_kernel()
    for publisher in (app.displayhook, shell.displayhook, shell.display_pub):
        publisher.pub_socket = app.iopub_socket
    if shell.history_manager.enabled:
        shell.history_manager.new_session()  # the lines to come are others than those of the old one's


def rebind_stream(stream: Any, publisher: Any) -> None:
    """Have a standard stream write to new sockets, and watch its descriptor again."""
    stream.pub_thread = publisher
    stream._io_loop = publisher.io_loop
    stream._master_pid = os.getpid()
    stream._flush_pending = stream._subprocess_flush_pending = False
    stream._buffer_lock = threading.RLock()
    if getattr(stream, "_should_watch", False):
        stream._fid, writable = os.pipe()
        os.dup2(writable, stream._original_stdstream_fd)
        os.close(writable)
        stream.watch_fd_thread = threading.Thread(target=stream._watch_pipe_fd, daemon=True)
        stream.watch_fd_thread.start()


def rebind_kernel(kernel: Any, parts: dict[str, Any]) -> None:
    """Give a kernel what its application has made anew."""
    for name in KERNEL_PARTS & parts.keys():
        if kernel.has_trait(name):
            setattr(kernel, name, parts[name])
    if hasattr(kernel, "_main_asyncio_lock"):  # ipykernel 7
        kernel._main_asyncio_lock = asyncio.Lock()
    if hasattr(kernel, "control_queue"):  # ipykernel 6
        kernel.control_queue = type(kernel.control_queue)()
    debugger = getattr(kernel, "debugger", None)
    if isinstance(debugger, LateDebugger):
        debugger.finish = partial(rebind_debugger, kernel)
        debugger = debugger.made
    if debugger is not None:
        rebind_debugger(kernel, debugger)


def rebind_debugger(kernel: Any, debugger: Any) -> None:
    """Give ipykernel's debugger what its kernel has that is new."""
    debugger.shell_socket = kernel.debug_shell_socket
    debugger.stopped_queue = type(debugger.stopped_queue)()
    debugger.debugpy_client.debugpy_stream = kernel.debugpy_stream


def ensure_subshell(manager: Any, identity: str) -> None:
    """Have a subshell that the page made in a kernel of which this is a copy, or that went on after it was copied."""
    if identity in manager.list_subshell():
        return
    from types import SimpleNamespace

    from ipykernel import subshell_manager

    module: Any = subshell_manager
    uuid, module.uuid = module.uuid, SimpleNamespace(uuid4=lambda: identity)  # it makes an id of its own, else
    try:
        manager._create_subshell()
    finally:
        module.uuid = uuid
