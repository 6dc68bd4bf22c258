"""The server's end of the control sockets: one thread for all kernels of the process.

Each kernel has a socket of its own, so which container asks is known by where it asks, and it can ask
about itself alone; who is neither a user of the container nor its owner is hung up on. Every byte is hostile:
requests are bounded, a client that is slow or silent keeps nobody waiting, and one container has one request under way
at a time.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import time
from typing import Any, NamedTuple

from nbhull.kernel import panel, using, volumes
from nbhull.kernel.asking import name_in, pending_in, pid_in
from nbhull.kernel.cells.siblings import CELL_OF
from nbhull.kernel.concealing import conceal, without_sources
from nbhull.kernel.contained import ContainedKernel
from nbhull.kernel.engines import submit
from nbhull.kernel.names import CONTROL_SOCKET, MEMORY_BUDGET
from nbhull.kernel.rpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    encode_result,
    error_of,
    line_of,
)
from nbhull.kernel.streams import Stream
from nbhull.runtime.composition import OF_VOLUME
from nbhull.runtime.errors import Conflict, HullError, InvalidInput, NotFound
from nbhull.runtime.launcher import wire
from nbhull.runtime.model import Container
from nbhull.runtime.verbs.results import (
    Names,
    Result,
    Table,
    container_fields,
    container_table,
    image_table,
    snapshot_taken,
)
from nbhull.runtime.verbs.snapshots import difference_table, snapshot_table
from nbhull.runtime.verbs.stats import sample

MAX_CLIENTS = 16
"""connections of one container; the oldest gives way to a new one"""
CHUNK = 1 << 16


class ControlService:
    """One kernel's control socket, and what may be asked through it."""

    def __init__(self, kernel: ContainedKernel) -> None:
        self.kernel = kernel
        self.listener: socket.socket | None = None
        self.path = ""
        self.identity: tuple[int, int] | None = None
        """of the socket's file: the container may put something else in its place"""
        self.users: list[range] = []
        """ids, as seen from here, of those who may ask"""
        self.clients: list[Client] = []
        self.waiting: deque[tuple[Client, bytes]] = deque()
        self.is_working = False
        self.methods: dict[str, Callable[[dict[str, Any]], Result]] = {
            "info": self.info,
            "stats": self.stats,
            "ps": self.ps,
            "images": self.images,
            "snapshot": self.snapshot,
            "woken": self.woken,
            "keep": self.kernel.keeper.take_up,
            "auto": self.kernel.keeper.change,
            "replay": self.replay,
            "reset": self.reset,
            "undo": self.undo,
            "use": self.use,
            "snapshots": self.snapshots,
            "diff": self.diff,
            **panel.methods(kernel, self.own_id),
        }
        self.long_methods: dict[str, Callable[[dict[str, Any], Stream], Result | dict[str, Any]]] = {
            "run": kernel.siblings.run,
            "build": kernel.siblings.build,
            "prepare": functools.partial(using.prepare, kernel),
            **panel.long_methods(kernel, self.own_id),
        }
        """those that tell things meanwhile, and have a connection and a thread for themselves"""

    def listen(self) -> None:
        """Have the socket in the kernel's socket folder, as it is now."""
        container = self.kernel.container
        if container is None:
            raise Conflict("the kernel's container was removed", "restart the kernel")
        path = f"{container.socket_folder}/{CONTROL_SOCKET}"
        if path == self.path and identity_of(path) == self.identity:
            return
        self.close()
        self.users = [range(os.getuid(), os.getuid() + 1), *self.kernel.engine.user_ids(container.id)]
        with suppress(FileNotFoundError):
            os.unlink(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(path)
        listener.listen(MAX_CLIENTS)
        self.listener, self.path, self.identity = listener, path, identity_of(path)
        control_thread().run(lambda thread: thread.add(self))

    def close(self) -> None:
        """Give the socket up. Idempotent."""
        listener, self.listener = self.listener, None
        if listener is not None:
            control_thread().run(lambda thread: thread.drop(self, listener))
            with suppress(FileNotFoundError):
                os.unlink(self.path)

    # -- requests, in a thread of their own ------------------------------------------------------

    def answer(self, line: bytes) -> bytes | Long:
        """The reply to one line, with its line end (empty for a notification); or what has a thread for itself."""
        identity: Any = None
        try:
            try:
                request = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RequestError(PARSE_ERROR, "parse error: a request is one JSON object on one line") from error
            if not isinstance(request, dict) or request.get("jsonrpc") != "2.0":
                raise RequestError(INVALID_REQUEST, "invalid request: not a JSON-RPC 2.0 object")
            identity = request.get("id")
            if not isinstance(identity, str | int | float | None):
                identity = None
                raise RequestError(INVALID_REQUEST, "invalid request: id is neither text nor number")
            method, params = request.get("method"), request.get("params", {})
            if not isinstance(method, str) or (method not in self.methods and method not in self.long_methods):
                raise RequestError(METHOD_NOT_FOUND, f"method not found: {str(method)[:80]}")
            if not isinstance(params, dict):
                raise RequestError(INVALID_PARAMS, "invalid params: not an object")
            if long := self.long_methods.get(method):
                return Long(identity, functools.partial(self.concealed, functools.partial(long, params)))
            reply: dict[str, Any] = {"result": encode_result(self.methods[method](params))}
            if "id" not in request:
                return b""
        except RequestError as error:
            reply = {"error": {"code": error.code, "message": error.message}}
        except HullError as error:
            reply = {"error": error_of(conceal(error, self.kernel.engine))}
        except Exception as error:
            # a defect of ours, or the machine's: who asks is told that there is no answer, and waits no longer
            logging.getLogger("nbhull").error("a request from a container failed", exc_info=error)
            reply = {"error": {"code": INTERNAL_ERROR, "message": "internal error: the server's log has it"}}
        return line_of({"id": identity, **reply})

    def concealed(self, work: Callable[[Stream], Result | dict[str, Any]], stream: Stream) -> Result | dict[str, Any]:
        """Do what takes long; its errors tell the container no more than others do."""
        try:
            return work(stream)
        except HullError as error:
            raise conceal(error, self.kernel.engine) from error

    def info(self, params: dict[str, Any]) -> Result:
        """This container, and what it uses."""
        container = self.kernel.engine.container(self.own_id())
        fields = container_fields(container, self.kernel.engine.usage(container.id), time())
        fields.item = without_sources(fields.item)
        return fields

    def stats(self, params: dict[str, Any]) -> Result:
        """What this container uses, against its limits."""
        return sample(self.kernel.engine, [self.own_id()])

    def ps(self, params: dict[str, Any]) -> Result:
        """The containers that this one may know of: itself, and those of its cells."""
        ours = [c for c in self.kernel.engine.containers() if c.spec.labels.get(CELL_OF) == self.kernel.name]
        table = container_table([self.kernel.engine.container(self.own_id()), *ours], time())
        table.items = [without_sources(item) for item in table.items]
        return table

    def images(self, params: dict[str, Any]) -> Result:
        """What there is to reset to or to run."""
        return image_table([i for i in self.kernel.engine.images() if not i.auto and i.base != OF_VOLUME], time())

    def snapshot(self, params: dict[str, Any]) -> Result:
        """Keep this container's files as an image, or what is in a volume of it; with `memory`, the number of the
        process that holds the kernel's memory as it is now."""
        if volume := volumes.asked(params, self.own()):
            return volumes.snapshot(self.kernel.engine, volume, name_in(params), params)
        note, pinned = panel.remarks_in(params)
        how = {"note": note or "", "pinned": pinned or False, "volumes": params.get("volumes") is True}
        image, dropped = self.kernel.snapshot(name_in(params), pid_in(params), **how)
        taken = snapshot_taken(image)
        notices = [f"the memory of {name} was dropped: {MEMORY_BUDGET} are kept" for name in dropped]
        return Names(taken.names, notices=[*taken.notices, *notices])

    def woken(self, params: dict[str, Any]) -> Result:
        """A checkpoint has become the kernel: `memory` is the process that is the checkpoint now. Gives all of them."""
        pid = pid_in(params)
        if pid is None:
            raise InvalidInput("memory is missing", "give the number of a process")
        self.kernel.memory_goes_on(pid)
        held = [(one.process.pid, one.image.name) for one in self.kernel.checkpoints.by_image.values()]
        return Table(
            ("process", "snapshot"),
            [(str(pid), name) for pid, name in held],
            [{"process": pid, "snapshot": name} for pid, name in held],
        )

    def snapshots(self, params: dict[str, Any]) -> Result:
        """The tree in which this container stands."""
        own = self.own()
        if volume := volumes.asked(params, own):
            return snapshot_table(self.kernel.engine.volumes.snapshots(volume), time())
        nodes = self.kernel.engine.snapshots(own.id)
        # the images are for all, but which containers stand on them is nobody else's business
        mine = [node.but(containers=tuple(name for name in node.containers if name == own.name)) for node in nodes]
        return snapshot_table(mine, time())

    def diff(self, params: dict[str, Any]) -> Result:
        """What differs between two of this container's tree; without any, what it has changed."""
        names = [params.get(key) for key in ("a", "b")]
        images = [node.image for node in self.kernel.engine.snapshots(self.own_id())]
        allowed = {key for image in images for key in (image.id, image.name)}
        allowed |= volumes.comparable(self.kernel.engine, self.own())
        for name in names:
            if name is not None and name not in allowed:
                raise NotFound(
                    f"there is no snapshot {str(name)[:80]!r} of this container", "see: %container snapshots"
                )
        old, new = names
        text = params.get("text") is True
        if old is None:
            return difference_table(self.kernel.engine.diff(self.own_id(), text=text))
        if new is None and not self.own().has_volume(old):
            new = self.own_id()
        return difference_table(self.kernel.engine.diff(old, new, text=text))

    def undo(self, params: dict[str, Any]) -> Result:
        """Take the last reset, or the last `use`, back. The asking kernel ends; `pending` goes to the next one."""
        if volume := volumes.asked(params, self.own(), to_write=True):
            return volumes.undo(self.kernel.engine, volume)
        pending = pending_in(params)
        if not using.undo(self.kernel, pending, self.listen):
            self.kernel.reset(None, pending, undo=True)
        return Names([self.own_id()])

    def use(self, params: dict[str, Any]) -> Result:
        """Go on in another image, in a container of its own. The asking kernel ends; `pending` goes to the next one."""
        return using.use(self.kernel, params, pending_in(params), self.listen)

    def reset(self, params: dict[str, Any]) -> Result:
        """Put this container's files back. The asking kernel ends; `pending` goes to the next one."""
        if volume := volumes.asked(params, self.own(), to_write=True):
            return volumes.reset(self.kernel.engine, volume, name_in(params))
        self.kernel.reset(
            name_in(params),
            pending_in(params),
            files_only=params.get("files") is True,
            volumes=params.get("volumes") is True,
        )
        return Names([self.own_id()])

    def replay(self, params: dict[str, Any]) -> Result:
        """Run the cells since a snapshot again, in a fresh container beside this one."""
        from nbhull.kernel.replay.live import replay_live

        return replay_live(self.kernel, name_in(params))

    def own(self) -> Container:
        """The container that asks."""
        return self.kernel.engine.container(self.own_id())

    def own_id(self) -> str:
        """The id of the container that asks."""
        container = self.kernel.container
        if container is None:
            raise Conflict("the kernel is being stopped", "start it again")
        return container.id


def identity_of(path: str) -> tuple[int, int] | None:
    """What tells a file from any other, links not followed; None if there is none."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class Long(NamedTuple):
    """A request that takes long."""

    identity: Any
    work: Callable[[Stream], Result | dict[str, Any]]


class RequestError(Exception):
    """A request is not of the form it must have."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Client:
    """One connection from a container."""

    def __init__(self, channel: socket.socket, service: ControlService) -> None:
        self.channel = channel
        self.service = service
        self.received = bytearray()
        self.searched = 0
        """bytes of `received` known to hold no line end"""
        self.to_send = bytearray()
        self.is_waiting = False
        """a request of it is waiting or under way; nothing more is read meanwhile"""
        self.has_ended = False
        """it is to be closed once all is sent"""


class ControlThread:
    """Reads, writes and accepts for all control sockets of this process; never blocks on one of them."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.inbox: deque[Callable[[ControlThread], None]] = deque()
        self.bell, self.rung = socket.socketpair()
        self.bell.setblocking(False)
        self.rung.setblocking(False)
        self.selector.register(self.rung, selectors.EVENT_READ, None)
        threading.Thread(target=self.loop, name="nbhull-control", daemon=True).start()

    def run(self, task: Callable[[ControlThread], None]) -> None:
        """Have the thread do something; may be called from any thread."""
        self.inbox.append(task)
        with suppress(BlockingIOError):  # a full bell rings already
            self.bell.send(b"\0")

    def loop(self) -> None:
        """The thread's work, for as long as the process lives."""
        while True:
            for key, events in self.selector.select():
                if key.data is None:
                    self.rung.recv(CHUNK)
                elif isinstance(key.data, ControlService):
                    self.accept(key.data)
                else:
                    self.serve(key.data, events)
            while self.inbox:
                self.inbox.popleft()(self)

    # -- in the thread ---------------------------------------------------------------------------

    def add(self, service: ControlService) -> None:
        """Accept connections for a service."""
        if service.listener is not None:
            self.selector.register(service.listener, selectors.EVENT_READ, service)

    def drop(self, service: ControlService, listener: socket.socket) -> None:
        """Close a service's listening socket and its connections."""
        with suppress(KeyError):
            self.selector.unregister(listener)
        listener.close()
        service.waiting.clear()
        for client in list(service.clients):
            self.close(client)

    def accept(self, service: ControlService) -> None:
        """Take a new connection; where there are too many, the oldest goes."""
        assert service.listener is not None
        try:
            channel, _ = service.listener.accept()
        except OSError:
            return  # it was gone before we came, or the container has used up our descriptors for now
        if not any(wire.peer_user(channel) in ids for ids in service.users):
            channel.close()
            return
        channel.setblocking(False)
        if len(service.clients) >= MAX_CLIENTS:
            self.close(service.clients[0])
        client = Client(channel, service)
        service.clients.append(client)
        self.selector.register(channel, selectors.EVENT_READ, client)

    def serve(self, client: Client, events: int) -> None:
        """Read from or write to a connection that is ready."""
        try:
            if events & selectors.EVENT_WRITE:
                del client.to_send[: client.channel.send(client.to_send)]
            if events & selectors.EVENT_READ:
                chunk = client.channel.recv(CHUNK)
                client.received += chunk
                client.has_ended = client.has_ended or not chunk
        except BlockingIOError:
            pass
        except OSError:
            self.close(client)
            return
        self.advance(client)

    def advance(self, client: Client) -> None:
        """Do what a connection is ready for, and wait for what it needs next."""
        if not client.is_waiting:
            end = client.received.find(b"\n", client.searched)
            client.searched = len(client.received) if end < 0 else 0
            if end >= 0:
                line = bytes(client.received[:end])
                del client.received[: end + 1]
                client.is_waiting = True
                client.service.waiting.append((client, line))
                self.work(client.service)
            elif len(client.received) > MAX_REQUEST:
                client.received.clear()
                client.searched = 0
                client.has_ended = True
                message = {
                    "code": INVALID_REQUEST,
                    "message": f"invalid request: longer than {MAX_REQUEST} bytes",
                }
                client.to_send += json.dumps({"jsonrpc": "2.0", "id": None, "error": message}).encode() + b"\n"
        if client.has_ended and not client.is_waiting and not client.to_send:
            self.close(client)
            return
        events = selectors.EVENT_WRITE if client.to_send else 0
        if not client.is_waiting and not client.has_ended:
            events |= selectors.EVENT_READ
        self.watch(client, events)

    def watch(self, client: Client, events: int) -> None:
        """Wait for `events` of a connection; none while its request is under way."""
        registered = client.channel in self.selector.get_map()
        if events and registered:
            self.selector.modify(client.channel, events, client)
        elif events:
            self.selector.register(client.channel, events, client)
        elif registered:
            self.selector.unregister(client.channel)

    def work(self, service: ControlService) -> None:
        """Give the service's next request to a thread, unless one is under way."""
        if service.is_working or not service.waiting:
            return
        service.is_working = True
        client, line = service.waiting.popleft()

        def answer() -> None:
            reply: bytes | Long = b""
            try:
                reply = service.answer(line)
            finally:
                self.run(lambda thread: thread.finish(client, reply))

        submit(answer)

    def finish(self, client: Client, reply: bytes | Long) -> None:
        """Send a reply, and go on with the service's next request."""
        client.service.is_working = False
        self.work(client.service)
        if client in client.service.clients and isinstance(reply, Long):
            client.service.clients.remove(client)
            self.watch(client, 0)
            stream = Stream(client.channel, reply.identity)
            threading.Thread(target=stream.serve, args=(reply.work,), name="nbhull-long", daemon=True).start()
        elif client in client.service.clients and isinstance(reply, bytes):
            client.is_waiting = False
            client.to_send += reply
            self.advance(client)

    def close(self, client: Client) -> None:
        """Close a connection."""
        client.service.clients.remove(client)
        self.watch(client, 0)
        client.channel.close()


_lock = threading.Lock()
_thread: ControlThread | None = None
_pid = 0


def control_thread() -> ControlThread:
    """The thread of this process, made on first use; a forked child has its own."""
    global _thread, _pid
    with _lock:
        if _thread is None or _pid != os.getpid():
            _thread, _pid = ControlThread(), os.getpid()
        return _thread
