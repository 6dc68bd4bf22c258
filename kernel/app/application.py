"""ipykernel's application with %container, notices, and a way to take over from a kernel that was reset."""

# mypy: disallow-untyped-calls=False

from __future__ import annotations

import gc
import json
import os
from typing import TYPE_CHECKING, Any

import zmq
from ipykernel.iostream import IOPubThread
from ipykernel.kernelapp import IPKernelApp
from tornado.ioloop import IOLoop
from traitlets import Type

from nbhull.kernel.app import debugging, inspection
from nbhull.kernel.app.checkpoint import Woken
from nbhull.kernel.app.executing import Executing
from nbhull.kernel.app.handover import Handover, await_subscribers
from nbhull.kernel.app.kernel import HullKernel
from nbhull.kernel.app.notices import LimitNotices, show_once
from nbhull.kernel.app.occasions import CellOccasions
from nbhull.kernel.app.recording import Recorder
from nbhull.kernel.app.revival import revive
from nbhull.kernel.names import EXECUTING_FILE, HISTORY_FILE, NOTICES_FILE, PENDING_FILE, RECORD_FILE

if TYPE_CHECKING:
    import sqlite3

EXTENSION = "nbhull.magics"


class HullKernelApp(IPKernelApp):
    """The application of a Python kernel in a container."""

    kernel_class = Type(HullKernel, klass="ipykernel.kernelbase.Kernel").tag(config=True)  # type: ignore[assignment]

    handover: Handover | None = None

    is_copy = False
    """whether this process was a checkpoint before"""

    def init_sockets(self) -> None:
        """Called by `initialize` once the connection file is read, and in a copy of this process."""
        if (pending := take_file(self.beside_connection_file(PENDING_FILE))) is not None:
            self.handover = Handover(pending)
        super().init_sockets()

    def init_iopub(self, context: zmq.Context[Any]) -> None:
        """Called by `init_sockets`. In a kernel that takes over, the clients of the old one must be
        subscribed again before anything is published, or they would miss how their request ended."""
        if self.handover is None:
            super().init_iopub(context)
            return
        publisher = context.socket(zmq.XPUB)
        publisher.linger = 1000
        publisher.xpub_verbose = 1
        self.iopub_port = self._bind_socket(publisher, self.iopub_port)
        await_subscribers(publisher, f"{self.ip}-{self.iopub_port}", self.handover.subscribers)
        publisher.xpub_verbose = 0
        self.configure_tornado_logger()
        self.iopub_thread = IOPubThread(publisher, pipe=True)
        if hasattr(self.iopub_thread, "session"):
            self.iopub_thread.session = self.session
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket

    def configure_tornado_logger(self) -> None:
        """Called by `init_iopub`; one handler is enough."""
        if not self.is_copy:
            super().configure_tornado_logger()

    def init_kernel(self) -> None:
        """Called by `initialize`: the last moment at which the shell socket is this thread's alone."""
        if self.handover is not None:
            self.handover.finish_requests(self.session, self.shell_socket, self.iopub_socket)
        if "hist_file" not in self.config.HistoryManager:
            # Beside the container's files: a database that is always open would have every snapshot copy them all.
            self.config.HistoryManager.hist_file = self.beside_connection_file(HISTORY_FILE)
            self.config.HistoryManager.connection_options = {"check_same_thread": False, "factory": connect_unsynced}
        debugging.defer()
        super().init_kernel()
        debugging.settle()
        if isinstance(self.kernel, HullKernel):
            self.kernel.executing = Executing(self.beside_connection_file(EXECUTING_FILE))
            self.kernel.occasions = CellOccasions(os.path.dirname(self.abs_connection_file))
            if self.handover is not None:
                self.kernel.inherited = self.handover.queue
                self.kernel.answerers = self.handover.answerers
                self.kernel.has_taken_over = True
            self.kernel.memory.baseline = inspection.open_things()
            self.record(self.kernel)

    def record(self, kernel: HullKernel) -> None:
        """Write down from here on what the kernel runs."""
        if kernel.recorder is None:
            kernel.recorder = Recorder(self.session, self.beside_connection_file(RECORD_FILE))
            kernel.recorder.note(start=True)
        if self.handover is not None:
            kernel.recorder.note(reset=self.handover.snapshot, memory=self.is_copy)

    def init_extensions(self) -> None:
        """Called by `initialize`; the user's configuration of extensions stays."""
        self.default_extensions = [*self.default_extensions, EXTENSION]
        super().init_extensions()
        if notices := take_file(self.beside_connection_file(NOTICES_FILE)):
            show_once(self.shell, [str(notice) for notice in notices])
        LimitNotices(self.shell, os.path.dirname(self.abs_connection_file))

    def start(self) -> None:
        """Called by `launch_instance`; runs until the kernel ends, in as many copies of its process as there are."""
        # What the start has made stays: it need not be looked through at every collection.
        gc.freeze()
        gc.enable()
        while True:
            if self.handover is not None:
                # behind the kernel's own `starting`, which would else be the last that a client hears
                IOLoop.current().add_callback(self.handover.publish_idle, self.session, self.iopub_socket)
            try:
                super().start()
            except Woken as woken:
                self.go_on(woken)
            else:
                return

    def go_on(self, woken: Woken) -> None:
        """In a copy of this process that was asleep, take over from the kernel that was reset."""
        self.is_copy = True
        self.handover = None
        revive(self)
        if isinstance(self.kernel, HullKernel):
            self.kernel.memory.come_back(woken)
            for revived in self.kernel.on_revival:
                revived()
        if woken.problems:
            show_once(self.shell, woken.problems)

    def beside_connection_file(self, name: str) -> str:
        """Path of another file in the socket folder."""
        return os.path.join(os.path.dirname(self.abs_connection_file), name)


def connect_unsynced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
    """A connection that does not wait for the disk: a history that goes with its container need not outlive a power
    failure, and making the file would wait sixteen times."""
    import sqlite3  # by now IPython has found that this Python has it

    connection = sqlite3.Connection(*args, **kwargs)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def take_file(path: str) -> Any:
    """What a JSON file says, which is deleted; None if there is none."""
    try:
        with open(path) as file:
            content = json.load(file)
    except FileNotFoundError:
        return None
    os.unlink(path)
    return content


launch_new_instance = HullKernelApp.launch_instance
