"""The launcher: what needs the user's, or root's, own abilities on the host, and the life of the holder.

It makes cgroups, idmaps what root hands in, watches its server, and hands everything else on to the
holder. It ends with its server, with the last of its containers, or never leaves them alone: when
it ends, for whatever reason, the holder and all inits follow.
"""

from __future__ import annotations

import fcntl
import os
import select

from nbhull.runtime import cgroups, network, usermap
from nbhull.runtime.errors import HostUnable, HullError, LauncherLost, NotFound, SyscallFailed
from nbhull.runtime.files import remove_tree
from nbhull.runtime.launcher import wire
from nbhull.runtime.launcher.child import last_act
from nbhull.runtime.launcher.client import LOCK, SOCKET
from nbhull.runtime.launcher.connection import Connections
from nbhull.runtime.launcher.entering import become_holder
from nbhull.runtime.launcher.limiter import LATER, Limiter
from nbhull.runtime.launcher.nodes import make_device
from nbhull.runtime.launcher.quota import GLANCE
from nbhull.runtime.launcher.sweeping import GROUPS, sweep
from nbhull.runtime.lean import Socket, signal, socket
from nbhull.runtime.linux import mount as linux_mount
from nbhull.runtime.model import ContainerSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

IDLE = 2
"""milliseconds without a request after which a spare init is prepared"""
SPARE = "spare"
"""what the spare init's connection goes by until it is a container's"""
STAGE = "stage"
"""in a launcher's folder: where the holder mounts"""


class Launcher:
    """One launcher with its holder."""

    def __init__(self, server: Socket, folder: str, store: str, *, keep_spare: bool) -> None:
        """`server`: the socket of who started it; `folder`: its own, existing; `store`: the store's.
        `keep_spare`: prepare for the next container when idle, as a launcher that serves for long should."""
        self.keep_spare = keep_spare
        self.wanted: dict[str, Any] = {}
        """the network that the spare init is made with: the last one that was started"""
        self.preparing: cgroups.Group | None = None
        """the groups of a spare init that is being made"""
        self.prepared: Socket | None = None
        """where the holder answers for the spare init; open until the next one, so that no other descriptor gets its
        number while events wait to be served"""
        self.server = server
        self.folder = folder
        self.store = store
        self.map = usermap.plan()
        self.poll = select.poll()
        self.connections = Connections(self.poll, folder)
        self.limiter = Limiter(folder, store, self.poll, keep_spare=keep_spare)
        self.clients: dict[int, Socket] = {}
        self.asking = -1
        """descriptor of the client whose request is being served"""
        self.kept: dict[str, int] = {}
        """containers whose socket folder outlives them, since a client, by its descriptor, is about to start them
        again"""
        self.frozen: dict[int, tuple[str, Socket]] = {}
        """by descriptor: containers that stand still until the channel is closed"""
        self.waiting: dict[str, list[Socket]] = {}
        self.userns = -1
        self.holder_pid = 0

    def run(self) -> None:
        """Serve until the server goes away."""
        with last_act(self.server, "the launcher's start"):
            try:
                self.lock()
                self.start_holder()
                self.listen()
                wire.send_answer(self.server, "up", holder=self.holder_pid)
                while self.step():
                    pass
            finally:
                self.clean_up()

    def lock(self) -> None:
        """Hold the folder's lock for as long as this process lives."""
        fd = os.open(f"{self.folder}/{LOCK}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.lock_fd = fd

    def start_holder(self) -> None:
        """Fork the holder into its user namespace, give it its map and the store."""
        os.mkdir(f"{self.folder}/{STAGE}", 0o700)
        self.holder, theirs = wire.pair()
        pid = os.fork()
        if pid == 0:
            become_holder(theirs, f"{self.folder}/{STAGE}", self.map, self.store)
        theirs.close()
        self.holder_pid = pid
        wire.receive_answer(self.holder)
        usermap.write(self.map, pid)
        self.userns = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        descriptors = [self.own(self.store)] if self.can_idmap() else []
        wire.send_request(self.holder, {"op": "enter"}, descriptors)
        for fd in descriptors:
            os.close(fd)
        wire.receive_answer(self.holder)

    def can_idmap(self) -> bool:
        """Whether this process hands folders in through idmapped mounts, as real root must."""
        return self.map.strategy == "direct"

    def own(self, path: str, *, recursive: bool = False) -> int:
        """A detached mount of a host's folder or file in which the user's own files (root's, here) are
        those of the containers' root. Raises HostUnable where the file system cannot be idmapped."""
        try:
            fd = linux_mount.open_tree(path, recursive=recursive)
        except SyscallFailed as error:
            raise NotFound(
                f"cannot hand in {path!r}: {os.strerror(error.errno)}", "give an existing folder or file"
            ) from error
        try:
            linux_mount.mount_setattr(fd, 0, userns_fd=self.userns, recursive=recursive, subject=path)
        except SyscallFailed as error:
            os.close(fd)
            raise HostUnable(
                f"{path!r} cannot be handed in to a container of root's: {os.strerror(error.errno)}",
                "its file system must allow idmapped mounts (ext4, xfs, btrfs, tmpfs from Linux 6.3); "
                "move it, or start as an ordinary user",
            ) from error
        return fd

    def listen(self) -> None:
        """Take requests of the server, and on a socket in the folder those of the user's other processes."""
        self.listener = Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(f"{self.folder}/{SOCKET}")
        self.listener.listen(64)
        for one in (self.server, self.holder, self.listener):
            self.poll.register(one, select.POLLIN)

    def step(self) -> bool:
        """Wait for one event and handle it; False when the server or the holder has gone."""
        limiter = self.limiter
        wants_spare = self.keep_spare and self.preparing is None and not self.is_prepared()
        looks = limiter.later or limiter.quotas.kept
        wait = LATER[0] if looks else IDLE if wants_spare else None
        events = self.poll.poll(1000 * GLANCE if limiter.quotas.by_name else wait)
        limiter.tell_later()
        for name in limiter.quotas.due():
            self.measure(name)
        for name in limiter.quotas.filled():
            limiter.write_events(name)
        if not events and wants_spare:
            self.prepare()
        for fd, _ in events:
            if fd == self.server.fileno():
                if not self.receive(self.server):
                    return False
            elif fd == self.holder.fileno():
                try:
                    word, fields, descriptors = wire.receive_answer(self.holder)
                except LauncherLost:
                    return False
                if word == "namespaces":
                    self.connections.attach(fields["container"], descriptors)
                else:
                    self.forget(fields["container"])
            elif self.preparing is not None and self.prepared is not None and fd == self.prepared.fileno():
                self.finish_preparing()
            elif fd in self.connections.waiting:
                self.connections.finish(fd)
            elif fd == self.listener.fileno():
                self.accept()
            elif fd in self.frozen:
                self.thaw(fd)
            elif fd in limiter.watched:
                limiter.tell(fd)
            elif fd in limiter.quotas.measuring:
                self.judge(fd)
            elif fd in self.clients and not self.receive(self.clients[fd]):
                self.poll.unregister(fd)
                self.clients.pop(fd).close()
                self.give_up(fd)
        return True

    def measure(self, name: str) -> None:
        """Have the holder measure what a container's own files take."""
        ours, theirs = wire.pair()
        with theirs:
            request = {"op": "measure", "path": f"containers/{name}"}
            wire.send_request(self.holder, request, [theirs.fileno()])
        self.limiter.quotas.measuring[ours.fileno()] = name, ours
        self.poll.register(ours, select.POLLIN)

    def judge(self, fd: int) -> None:
        """A measurement is done: see to it that the container keeps to its quota."""
        name, channel = self.limiter.quotas.measuring.pop(fd)
        self.poll.unregister(fd)
        with channel:
            _, fields, _ = wire.receive_answer(channel)
        quota = self.limiter.quotas.by_name.get(name)
        if quota is None:
            return  # it has ended meanwhile
        verdict = quota.judge((int(fields["disk"]), int(fields["inodes"])))
        if verdict in ("hold", "release"):
            self.ask_holder({"op": "hold_writes", "container": name, "hold": verdict == "hold"})
        elif verdict == "kill":
            self.ask_holder({"op": "kill", "container": name})
        if verdict:
            self.limiter.write_events(name)

    def give_up(self, client: int) -> None:
        """A client has gone that was about to start containers again: nobody else will."""
        for name in [name for name, fd in self.kept.items() if fd == client]:
            del self.kept[name]
            if name not in self.limiter.groups and os.path.isdir(f"{self.folder}/{name}"):
                remove_tree(f"{self.folder}/{name}")

    def accept(self) -> None:
        """A process connects: only the user's own and root's may ask anything."""
        client = self.listener.accepted()
        if wire.peer_user(client) not in (os.getuid(), 0):
            client.close()
            return
        self.clients[client.fileno()] = client
        self.poll.register(client, select.POLLIN)

    def receive(self, client: Socket) -> bool:
        """Serve one request of a client; False when it has gone."""
        received = wire.receive_request(client)
        if received is None:
            return False
        request, descriptors = received
        self.asking = client.fileno()
        channel = Socket(fileno=os.dup(descriptors[0]))
        try:
            handler = getattr(self, f"do_{request['op']}", self.hand_on)
            handler(request, descriptors)
        except HullError as error:
            wire.send_failure(channel, error)
        except OSError as error:
            wire.send_failure(channel, SyscallFailed(request["op"], error.errno or 0, str(error.filename or "")))
        finally:
            channel.close()
            for fd in descriptors:
                os.close(fd)
        return True

    def hand_on(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Let the holder, or the container's init, answer."""
        wire.send_request(self.holder, request, descriptors)

    def is_prepared(self) -> bool:
        """Whether the next container that is like the last one finds its init."""
        return self.limiter.spare is not None and self.connections.request(SPARE) == self.wanted

    def discard_spare(self) -> None:
        """End a spare init that is not like what is wanted."""
        self.finish_preparing()
        if self.limiter.spare is not None:
            self.ask_holder({"op": "discard_spare"})
            group, self.limiter.spare = self.limiter.spare, None
            self.connections.remove(SPARE)
            group.remove()

    def ask_holder(self, request: dict[str, Any], descriptors: list[int] | None = None) -> list[int]:
        """A request of the launcher's own; the descriptors of its answer."""
        ours, theirs = wire.pair()
        with ours:
            with theirs:
                wire.send_request(self.holder, request, [theirs.fileno(), *(descriptors or [])])
            return wire.receive_answer(ours)[2]

    def prepare(self) -> None:
        """Have a spare init made, in cgroups and with a network of its own: entering cgroups waits for the kernel's
        grace periods, and a network for its helper, which the next container's start then need not. Requests are
        served meanwhile."""
        self.discard_spare()
        self.wanted = self.wanted or network.plan(ContainerSpec()).request()
        group = self.limiter.make_spare(self.processes())
        self.note_groups(group)
        descriptors = group.open_procs()
        answered, theirs = wire.pair()
        try:
            with theirs:
                request = {"op": "prepare", "network": self.wanted["mode"]}
                wire.send_request(self.holder, request, [theirs.fileno(), *descriptors])
        finally:
            for fd in descriptors:
                os.close(fd)
        self.connections.add(SPARE, self.wanted)
        if self.prepared is not None:
            self.prepared.close()
        self.preparing, self.prepared = group, answered
        self.poll.register(answered, select.POLLIN)

    def finish_preparing(self) -> None:
        """Wait for the spare init that is being made, if there is one, and begin to connect it."""
        if self.preparing is None or self.prepared is None:
            return
        group, self.preparing = self.preparing, None
        self.poll.unregister(self.prepared)
        try:
            namespaces = wire.receive_answer(self.prepared)[2]
            if namespaces:
                self.connections.attach(SPARE, namespaces)
        except BaseException:
            self.connections.remove(SPARE)
            group.remove()
            raise
        self.limiter.spare = group

    def processes(self) -> list[int]:
        """The launcher's own, which systemd moves with its containers."""
        return [os.getpid(), self.holder_pid]

    def do_start(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Add what the holder cannot make itself, then hand on: cgroups, and folders idmapped for root."""
        self.finish_preparing()
        name = request["container"]
        extra: list[int] = []

        def pass_on(fd: int) -> int:
            """The index that a descriptor will have for the holder, which takes the first off."""
            extra.append(fd)
            return len(descriptors) + len(extra) - 2

        if not request["network"].get("publish"):
            self.wanted = request["network"]
        has_network = False
        try:
            fits = self.limiter.spare is not None and self.connections.request(SPARE) == request["network"]
            group = self.limiter.start(request, self.processes(), may_take_spare=fits)
            if request["spare"]:
                self.connections.rename(SPARE, name)
            else:
                self.connections.add(name, request["network"])
            has_network = True
            os.makedirs(f"{self.folder}/{name}", 0o700, exist_ok=True)
            self.idmap(request["mounts"], pass_on)
            request["gate"] = None
            if request["network"]["mode"] == "nat":
                request["gate"] = pass_on(self.connections.open_gate(name))
            request["cgroups"] = []
            if not request["spare"]:
                self.note_groups(group)
                request["cgroups"] = [pass_on(fd) for fd in group.open_procs()]
            wire.send_request(self.holder, request, [*descriptors, *extra])
            self.kept.pop(name, None)
        except BaseException:
            if request.get("spare"):
                self.limiter.give_back(name)
                if has_network:
                    self.connections.rename(name, SPARE)
                if request["limits"]:
                    self.discard_spare()  # it has limits by now
            self.forget(name)
            raise
        finally:
            for fd in extra:
                os.close(fd)

    def idmap(self, entries: list[dict[str, Any]], pass_on: Callable[[int], int]) -> None:
        """Replace the sources that are the user's own by idmapped mounts of them, where that is how they go in."""
        for entry in entries:
            source = entry.get("source")
            if entry["owned"] and source is not None and self.can_idmap():
                if entry["kind"] == "device":
                    entry["source"] = pass_on(make_device(source, entry["access"]))
                else:
                    entry["source"] = pass_on(self.own(source, recursive=entry.get("recursive", False)))

    def do_move(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Add what the holder cannot make itself, then hand on."""
        extra: list[int] = []

        def pass_on(fd: int) -> int:
            extra.append(fd)
            return len(descriptors) + len(extra) - 2

        try:
            self.idmap(request["parts"], pass_on)
            wire.send_request(self.holder, request, [*descriptors, *extra])
        finally:
            for fd in extra:
                os.close(fd)

    def note_groups(self, group: cgroups.Group) -> None:
        """Write down the cgroup folders that exist, for who cleans up after a killed launcher."""
        with open(f"{self.folder}/{GROUPS}", "a") as file:
            file.writelines(f"{folder}\n" for folder in group.folders())

    def do_kill(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """End all processes of a container at once; with `keep`, its socket folder stays for the next start."""
        self.kept.pop(request["container"], None)
        if request["keep"]:
            self.kept[request["container"]] = self.asking
        self.hand_on(request, descriptors)

    def do_discard(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """After a start that failed: take away what was made for it."""
        self.kept.pop(request["container"], None)
        self.forget(request["container"])
        self.answer(descriptors, "discarded")

    def do_usage(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """What a container uses, and how often it has met its limits."""
        if request["container"] not in self.limiter.groups:
            raise NotFound(f"the container {request['container']} is not running", "start it first")
        self.answer(descriptors, "usage", **self.limiter.usage(request["container"]))

    def do_users(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Which ids of the host the containers' users are: `FIRST+COUNT` for each extent."""
        ids = " ".join(f"{first}+{count}" for _, first, count in self.map.uids)
        self.answer(descriptors, "users", ids=ids)

    def do_freeze(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Stop all processes of a container until the client closes the request's channel, as it also
        does by dying: by its cgroup, else by its init. Several may hold one: the last of them lets it go."""
        if not self.is_frozen(request["container"]):
            self.freeze(request["container"], True)
        channel = Socket(fileno=os.dup(descriptors[0]))
        self.frozen[channel.fileno()] = (request["container"], channel)
        self.poll.register(channel, select.POLLIN)
        wire.send_answer(channel, "frozen")

    def freeze(self, name: str, frozen: bool) -> None:
        """Stop or continue; a container that has ended meanwhile is no error when it continues."""
        group = self.limiter.groups.get(name)
        if group is None:
            if frozen:
                raise NotFound(f"the container {name} is not running", "start it first")
            return
        if group.freeze(frozen):
            return
        self.ask_holder({"op": "freeze", "container": name, "frozen": frozen})

    def thaw(self, fd: int) -> None:
        """Who had a container frozen is done with it, or gone."""
        name, channel = self.frozen.pop(fd)
        self.poll.unregister(fd)
        channel.close()
        if not self.is_frozen(name):
            self.freeze(name, False)

    def is_frozen(self, name: str) -> bool:
        """Whether a client holds a container still."""
        return any(held == name for held, _ in self.frozen.values())

    def do_workspace(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """What a process needs that works on the store as the containers' root: their user namespace, and the
        store's folder as it looks from there."""
        store = self.own(self.store) if self.can_idmap() else os.open(self.store, os.O_PATH | os.O_CLOEXEC)
        try:
            with Socket(fileno=os.dup(descriptors[0])) as channel:
                facts = {"idmapped": int(self.can_idmap()), "store": self.store}
                wire.send_answer(channel, "workspace", [self.userns, store], **facts)
        finally:
            os.close(store)

    def do_wait(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Answer once the container has ended and nothing of it is left running."""
        if request["container"] in self.limiter.groups:
            self.waiting.setdefault(request["container"], []).append(Socket(fileno=os.dup(descriptors[0])))
        else:
            self.answer(descriptors, "ended")

    def answer(self, descriptors: list[int], kind: str, **fields: object) -> None:
        """Answer a request that the launcher serves itself."""
        with Socket(fileno=os.dup(descriptors[0])) as channel:
            wire.send_answer(channel, kind, None, **fields)

    def forget(self, name: str) -> None:
        """A container has ended: its network, its groups and its socket folder go."""
        self.connections.remove(name)
        self.limiter.forget(name)
        if name not in self.kept and os.path.isdir(f"{self.folder}/{name}"):
            remove_tree(f"{self.folder}/{name}")
        for channel in self.waiting.pop(name, []):
            wire.send_answer(channel, "ended")
            channel.close()

    def clean_up(self) -> None:
        """End the holder, wait until its containers have ended, and take away all that was made."""
        if self.holder_pid:
            os.kill(self.holder_pid, signal.SIGKILL)
            os.waitpid(self.holder_pid, 0)
        self.connections.close()
        sweep(self.folder)
