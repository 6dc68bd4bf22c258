"""ipykernel's kernel, which knows what it has been asked and not yet done, so that it can be handed over."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import zmq
from ipykernel.ipkernel import IPythonKernel

from nbhull.kernel.app.executing import Executing
from nbhull.kernel.app.handover import await_peers, connected_peers, describe_request, frames_to_text
from nbhull.kernel.app.memory import Memory
from nbhull.kernel.app.occasions import CellOccasions
from nbhull.kernel.app.recording import Recorder
from nbhull.kernel.app.revival import ensure_subshell, rebind_kernel
from nbhull.kernel.rpc import ContainerError
from nbhull.runtime.errors import HullError

DELIMITER = b"<IDS|MSG>"

Frames = list[Any]


class HullKernel(IPythonKernel):
    """A kernel whose unfinished requests can be carried over a reset.

    ipykernel 7 reads requests in a thread of their own and forwards them to the main one; 6 keeps them
    in a queue of the main loop. `surrender` knows both.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inherited: list[Frames] = []
        """requests that the kernel before this one had not begun; they go first"""
        self.answerers = 0
        """clients that could be asked for input before a reset, and have not been asked since"""
        self.executing: Executing | None = None
        """where the request under way is written down"""
        self._arrived: dict[bytes, Frames] = {}
        self._arrived_lock = threading.Lock()
        self.memory = Memory(self)
        self.recorder: Recorder | None = None
        self.occasions: CellOccasions | None = None
        self.is_executing = False
        """whether a cell runs in the main shell"""
        self.is_copy = False
        """whether its process was a checkpoint before"""
        self.has_taken_over = False
        """whether it goes on with the clients of a kernel that was reset, which may know subshells of that one"""
        self.on_revival: list[Callable[[], None]] = []
        """called in a copy when it goes on as the kernel"""

    @classmethod
    def instance(cls, *args: Any, **kwargs: Any) -> HullKernel:
        """Called by the application to make the kernel; in a copy of the process it is there, and gets new sockets."""
        if not kwargs or not cls.initialized():
            return super().instance(*args, **kwargs)
        kernel: Any = cls._instance
        kernel.is_copy = True
        kernel._arrived, kernel._arrived_lock = {}, threading.Lock()
        rebind_kernel(kernel, kwargs)
        return kernel  # type: ignore[no-any-return]

    # -- ipykernel 7: called in the thread of the shell channel, and in that which executes ---------

    async def shell_channel_thread_main(self, msg: Frames) -> None:
        """Called for each request as it arrives."""
        await self._forward_inherited()
        await self._forward(msg)

    async def _forward_inherited(self) -> None:
        inherited, self.inherited = self.inherited, []
        for frames in inherited:
            await self._forward(frames)

    async def _forward(self, frames: Frames) -> None:
        with self._arrived_lock:
            self._arrived[signature(frames)] = frames
        if (self.is_copy or self.has_taken_over) and (subshell := self._subshell_of(frames)):
            ensure_subshell(self.shell_channel_thread.manager, subshell)
        await super().shell_channel_thread_main(frames)

    def _subshell_of(self, frames: Frames) -> str | None:
        """The subshell that a request is for."""
        texts = [frame.bytes for frame in frames]
        header: dict[str, Any] = json.loads(texts[texts.index(DELIMITER) + 2])
        subshell = header.get("subshell_id")
        return subshell if isinstance(subshell, str) else None

    async def dispatch_shell(self, msg: Frames, *args: Any, **kwargs: Any) -> None:
        """Called for each request when its turn has come (also in ipykernel 6)."""
        with self._arrived_lock:
            self._arrived.pop(signature(msg), None)
        await super().dispatch_shell(msg, *args, **kwargs)

    async def execute_request(self, stream: Any, ident: list[bytes], parent: dict[str, Any]) -> None:
        """Called for each cell when its turn has come; those of subshells are not the notebook's."""
        if self.executing is None or parent["header"].get("subshell_id"):
            await super().execute_request(stream, ident, parent)
            return
        self.executing.begin(parent, ident, self.execution_count + 1)
        try:
            await super().execute_request(stream, ident, parent)
        finally:
            self.executing.end()

    # -- both ------------------------------------------------------------------------------------

    async def do_execute(self, code: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Called for each cell. What it asked to be done behind it is part of its outcome."""
        if threading.current_thread() is not threading.main_thread():
            return await super().do_execute(code, *args, **kwargs)  # type: ignore[no-any-return]
        if self.occasions is not None:
            self.occasions.before(code)
        self.is_executing = True
        try:
            reply = await self._execute_recorded(code, *args, **kwargs)
        finally:
            self.is_executing = False
        try:
            self.memory.finish_cell(reply["status"])
        except HullError as error:
            shown = ContainerError(error)
            failure = {"ename": type(shown).__name__, "evalue": str(shown), "traceback": shown._render_traceback_()}
            shell: Any = self.shell
            shell._showtraceback(type(shown), shown, failure["traceback"])
            reply.update(failure, status="error")
        self.memory.look_after()
        if self.occasions is not None and code.strip():
            self.io_loop.add_callback(self.occasions.after, code)
        return reply

    async def _execute_recorded(self, code: str, silent: bool, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a cell, and write down what it gave."""
        recorder = self.recorder if not silent and kwargs.get("store_history", True) else None
        if recorder is not None:
            recorder.begin()
        try:
            return await super().do_execute(code, silent, *args, **kwargs)  # type: ignore[no-any-return]
        finally:
            if recorder is not None:
                recorder.end(code)

    def _input_request(self, *args: Any, **kwargs: Any) -> str:
        """Called to ask for input. After a reset, who answers may still be on the way back."""
        answerers, self.answerers = self.answerers, 0
        app: Any = self.parent
        await_peers(f"{app.ip}-{app.stdin_port}", answerers)
        return super()._input_request(*args, **kwargs)

    def _publish_status(self, status: str, *args: Any, **kwargs: Any) -> None:
        """Called whenever the status changes. A copy does not start: it goes on."""
        if not (self.is_copy and status == "starting"):
            super()._publish_status(status, *args, **kwargs)

    def start(self) -> None:
        """Called by the application before its loop runs."""
        super().start()
        if self._reads_in_thread():
            self.shell_channel_thread.io_loop.add_callback(self._forward_inherited)
        else:
            inherited, self.inherited = self.inherited, []
            for frames in inherited:
                self.schedule_dispatch(self.dispatch_shell, frames)  # type: ignore[attr-defined]

    def surrender(self) -> dict[str, Any]:
        """The request being executed, and those behind it, as plain data for the next kernel. What asks for the
        reset may be no cell, but a comm's message; then the cell that runs meanwhile is told of as `broken`.

        To be called from the thread that executes the asking request.
        """
        if self._reads_in_thread():
            with self._arrived_lock:
                queue = list(self._arrived.values())
        else:
            # what has come since the cell began still lies in the socket
            stream: Any = self.shell_stream
            stream.flush(zmq.POLLIN)
            requests: Any = self.msg_queue  # type: ignore[attr-defined]
            waiting = [requests.get_nowait() for _ in range(requests.qsize())]
            for entry in waiting:
                requests.put_nowait(entry)  # this kernel goes on if it is not reset after all
            queue = [args[0] for _, dispatch, args in waiting if dispatch == self.dispatch_shell]
        app: Any = self.parent
        idents: Any = self._parent_ident["shell"]
        parent = self.get_parent("shell")
        running = self.executing.request if self.executing is not None else None
        is_own = running is not None and running["parent"]["header"].get("msg_id") == parent["header"].get("msg_id")
        return {
            **describe_request(parent, idents),
            "broken": None if is_own else running,
            "execution_count": self.execution_count,
            "queue": [frames_to_text(frames) for frames in queue],
            "subscribers": connected_peers(f"{app.ip}-{app.iopub_port}"),
            "answerers": connected_peers(f"{app.ip}-{app.stdin_port}"),
        }

    def _reads_in_thread(self) -> bool:
        return getattr(self, "shell_channel_thread", None) is not None


def signature(frames: Frames) -> bytes:
    """What tells one request from every other: the frame behind the routing ids."""
    texts = [frame.bytes for frame in frames]
    return bytes(texts[texts.index(DELIMITER) + 1]) if DELIMITER in texts[:-1] else b"".join(texts)
