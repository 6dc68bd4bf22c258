"""A container's way out of its network namespace: made, watched and taken away by the launcher.

A connection is attached as soon as the namespaces stand, while the holder makes the container's mounts. Init waits
at its *gate*, a pipe, before it starts the first process, so that this one finds the network complete.
"""

from __future__ import annotations

import os
import select

from nbhull.runtime import network, usermap
from nbhull.runtime.errors import Conflict, HostUnable, HullError, SyscallFailed
from nbhull.runtime.lean import Socket, signal, socket
from nbhull.runtime.linux import mount as linux_mount
from nbhull.runtime.linux import process as linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UP = b"up"
"""what a gate lets pass; anything else is an error's message and hint"""
INTERFACE = "eth0"
"""the interface's name inside"""
FORWARDING = "forwarding"
"""file of a launcher's folder, there if it switched the machine's forwarding on"""
WORDS = 4096
"""bytes of a helper's complaints that are read"""


class Connection:
    """A connection of one container; this one is complete from the start."""

    def __init__(self, request: dict[str, Any], folder: str) -> None:
        """`request`: what `network.Plan.request` gave; `folder`: the launcher's. Raises Conflict or HostUnable
        for a port that cannot be published."""
        self.request = request
        self.folder = folder
        self.reserved = reserve(request.get("publish", []))
        """sockets that hold the published ports"""
        self.gate = -1
        self.outcome = b""
        """what the gate is told; empty while it is not known"""

    def attach(self, userns: int, netns: int) -> None:
        """Begin to connect a network namespace, given with its user namespace as descriptors. Raises HullError."""
        self.settle(UP)

    def descriptors(self) -> list[int]:
        """Descriptors of which one becomes readable when `finish` can tell the outcome."""
        return []

    def finish(self) -> None:
        """Settle what has come of it."""

    def close(self) -> None:
        """Take the connection away; idempotent."""
        self.settle(b"the container has ended\0")
        self.release()

    def release(self) -> None:
        """Let the published ports go."""
        for one in self.reserved:
            one.close()
        self.reserved = []

    def settle(self, outcome: bytes) -> None:
        """Know the outcome, and tell it to whom waits for it."""
        self.outcome = self.outcome or outcome
        if self.gate >= 0:
            gate, self.gate = self.gate, -1
            try:
                os.write(gate, self.outcome)
            except BrokenPipeError:
                pass  # the container has ended, which its pidfd tells
            os.close(gate)

    def fail(self, error: HullError) -> None:
        """Settle that there will be no network."""
        self.settle(f"{error.message}\0{error.hint}".encode())

    def open_gate(self) -> int:
        """The reading end of a new gate, for init."""
        reading, self.gate = os.pipe2(os.O_CLOEXEC)
        if self.outcome:
            self.settle(self.outcome)
        return reading


def pass_gate(gate: int) -> None:
    """In init: wait until the network is there. Raises HostUnable with the reason why it will not be."""
    answer = os.read(gate, WORDS)
    os.close(gate)
    if answer != UP:
        message, _, hint = (answer or b"the launcher ended\0").decode(errors="replace").partition("\0")
        raise HostUnable(message, hint)


class Helper(Connection):
    """A program that is the container's router, run as the user: pasta(1) or slirp4netns(1).

    It enters the container's user namespace before it is executed, so that it gains no abilities later, at which
    the kernel would forget that it must end with its parent (PR_SET_PDEATHSIG of prctl(2))."""

    def __init__(self, request: dict[str, Any], folder: str) -> None:
        super().__init__(request, folder)
        self.pid = 0
        self.ready = self.words = self.pidfd = -1
        self.fifo = f"{folder}/ready-{os.urandom(4).hex()}"

    def attach(self, userns: int, netns: int) -> None:
        self.release()  # the program takes them itself
        os.mkfifo(self.fifo, 0o600)
        self.ready = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.words, words_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        launcher = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                command = self.command(netns)
                enter(userns, launcher)
                self.arrange(netns)
                os.dup2(words_end, 2)
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # pasta of 2023 gives up where it is ignored
                os.execve(command[0], command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
            except (HullError, OSError) as error:
                os.write(words_end, str(error).encode())
            finally:
                os._exit(1)
        os.close(words_end)
        self.pidfd = os.pidfd_open(self.pid)

    def command(self, netns: int) -> list[str]:
        """In the child: the program and its arguments; it writes something to the FIFO when all stands."""
        raise NotImplementedError

    def arrange(self, netns: int) -> None:
        """In the child, as root of the container's user namespace: what the program finds there."""

    def descriptors(self) -> list[int]:
        return [self.ready, self.pidfd] if self.ready >= 0 else []

    def finish(self) -> None:
        is_up = bool(os.read(self.ready, 100))
        self.forget_fifo()
        if is_up:
            self.settle(UP)
            return
        try:
            words = os.read(self.words, WORDS).decode(errors="replace")
        except BlockingIOError:
            words = ""
        lines = [line.strip() for line in words.splitlines() if line.strip() and "to syslog" not in line]
        program = self.request["method"]
        self.fail(
            HostUnable(
                f"{program} could not set up the network: {lines[-1] if lines else 'it ended without a word'}",
                "run `nbhull doctor`, or choose another network: --network host",
            )
        )

    def close(self) -> None:
        super().close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0
        self.forget_fifo()
        for fd in (self.pidfd, self.words):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.words = -1

    def forget_fifo(self) -> None:
        """The FIFO has served."""
        if self.ready >= 0:
            os.close(self.ready)
            os.unlink(self.fifo)
            self.ready = -1


def enter(userns: int, launcher: int) -> None:
    """In the helper: become root of the container's user namespace, and end with the launcher."""
    linux.setns(userns, linux.CLONE_NEWUSER)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setsid()
    linux.prctl("PR_SET_PDEATHSIG", linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(1)


class Pasta(Helper):
    """pasta(1): translates between the container's tap device and sockets of the user's."""

    @property
    def place(self) -> str:
        """The path of the network namespace, in the helper's own mount namespace: pasta closes what it inherits
        (from 2024 on), and as another user than the launcher's it could not read that one's descriptors."""
        return f"{self.folder}/netns"

    def arrange(self, netns: int) -> None:
        linux.unshare(linux.CLONE_NEWNS)
        linux_mount.set_propagation(linux_mount.MS_REC | linux_mount.MS_SLAVE)
        linux_mount.mount(f"/proc/self/fd/{netns}", self.place, None, linux_mount.MS_BIND)

    def command(self, netns: int) -> list[str]:
        with open(self.place, "a"):
            pass  # something to mount on
        ports: list[str] = []
        for protocol, option in (("tcp", "-t"), ("udp", "-u")):
            specs = [
                f"{f'{address}/' if address else ''}{outside}:{inside}"
                for address, outside, inside, kind in self.request["publish"]
                if kind == protocol
            ]
            ports += [word for spec in specs or ["none"] for word in (option, spec)]
        forward = ["--dns-forward", network.FORWARDER] if self.request["resolver"] else []
        # No way to the machine's loopback: neither by the gateway's address, nor by ports of the same number.
        closed = ["--no-map-gw", "-T", "none", "-U", "none"]
        quiet = ["--foreground", "--quiet", "--no-dhcp", "--no-dhcpv6", "--no-ra"]
        inside = ["--config-net", "--ns-ifname", INTERFACE, "--netns-only", "--netns", self.place, "--no-netns-quit"]
        return [usermap.which("pasta"), *quiet, *closed, *forward, *ports, *inside, "--pid", self.fifo]


class Slirp(Helper):
    """slirp4netns(1): the same with a TCP/IP stack of its own; slower."""

    def command(self, netns: int) -> list[str]:
        ready = os.open(self.fifo, os.O_WRONLY)
        os.set_inheritable(ready, True)
        os.set_inheritable(netns, True)
        options = ["--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={ready}"]
        return [usermap.which("slirp4netns"), *options, "--netns-type=path", f"/proc/self/fd/{netns}", INTERFACE]


def reserve(publish: list[list[Any]]) -> list[Socket]:
    """Sockets that hold the ports to publish. Raises Conflict for one in use, HostUnable for one not allowed."""
    held: list[Socket] = []
    try:
        for address, outside, _, protocol in publish:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
            held.append(Socket(family, kind))
            try:
                held[-1].bind((address or "0.0.0.0", outside))
            except PermissionError as error:
                raise HostUnable(
                    f"the port {outside} cannot be published by this user: {error.strerror}",
                    "publish a port from 1024 on",
                ) from error
            except OSError as error:
                where = f"{address}:{outside}" if address else str(outside)
                raise Conflict(
                    f"the port {where}/{protocol} of this machine cannot be published: {error.strerror}",
                    "publish another port, or end what uses it",
                ) from error
    except BaseException:
        for one in held:
            one.close()
        raise
    return held


def make(request: dict[str, Any], folder: str) -> Connection:
    """The connection that a plan's request describes."""
    if request["method"] == "pasta":
        return Pasta(request, folder)
    if request["method"] == "slirp4netns":
        return Slirp(request, folder)
    if request["method"] == "veth":
        from nbhull.runtime.launcher.veth import Veth

        return Veth(request, folder)
    return Connection(request, folder)


class Connections:
    """The connections of all of a launcher's containers."""

    def __init__(self, poll: select.poll, folder: str) -> None:
        """`poll`: where descriptors are registered that tell of connections; `folder`: the launcher's."""
        self.poll = poll
        self.folder = folder
        self.by_name: dict[str, Connection] = {}
        self.waiting: dict[int, Connection] = {}
        """by descriptor: those that are being set up"""

    def add(self, name: str, request: dict[str, Any]) -> None:
        """Begin to care for a container's connection. Raises Conflict, HostUnable for ports."""
        self.by_name[name] = make(request, self.folder)

    def request(self, name: str) -> dict[str, Any]:
        """What a connection was made from."""
        return self.by_name[name].request

    def rename(self, name: str, new: str) -> None:
        """Give a connection to another container."""
        self.by_name[new] = self.by_name.pop(name)

    def open_gate(self, name: str) -> int:
        """The reading end of a container's gate."""
        return self.by_name[name].open_gate()

    def attach(self, name: str, namespaces: list[int]) -> None:
        """The user and the network namespace of a container stand: begin to connect them. Closes the descriptors;
        what fails is told at the gate."""
        try:
            made = self.by_name.get(name)
            if made is None:
                return  # its start has failed meanwhile
            try:
                made.attach(*namespaces)
            except HullError as error:
                made.fail(error)
            except OSError as error:
                made.fail(SyscallFailed("the network's set-up", error.errno or 0, str(error.filename or "")))
            for fd in made.descriptors():
                self.waiting[fd] = made
                self.poll.register(fd, select.POLLIN)
        finally:
            for fd in namespaces:
                os.close(fd)

    def finish(self, fd: int) -> None:
        """What was awaited of a connection has come."""
        made = self.waiting[fd]
        self.stop_waiting(made)
        made.finish()

    def stop_waiting(self, made: Connection) -> None:
        """Look at a connection's descriptors no more."""
        for fd in [fd for fd, other in self.waiting.items() if other is made]:
            self.poll.unregister(fd)
            del self.waiting[fd]

    def remove(self, name: str) -> None:
        """Take a container's connection away; idempotent."""
        made = self.by_name.pop(name, None)
        if made is not None:
            self.stop_waiting(made)
            made.close()

    def close(self) -> None:
        """Take all away."""
        for name in list(self.by_name):
            self.remove(name)
