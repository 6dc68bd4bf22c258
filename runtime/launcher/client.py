"""The engine's side: starting a launcher, asking it, and the processes that it started."""

from __future__ import annotations

import os
import select
import stat
import sys

from nbhull.runtime.errors import HostUnable, HullError, InvalidInput, LauncherLost, SyscallFailed
from nbhull.runtime.launcher import wire
from nbhull.runtime.lean import Lock, Socket, other_threads, signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOCK, SOCKET = "lock", "launcher.sock"
"""files of a launcher's folder: held locked while it lives; where other processes of the user ask it"""
LONGEST_SOCKET_PATH = 107
"""bytes in sockaddr_un.sun_path, its final NUL left out (unix(7))"""


def runtime_folder() -> str:
    """The folder for sockets and locks: $XDG_RUNTIME_DIR/nbhull, else /run/nbhull for root, else
    /tmp/nbhull-UID; made with mode 0700. Raises HostUnable when somebody else's stands there."""
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        folder = f"{base}/nbhull"
    else:
        folder = "/run/nbhull" if os.getuid() == 0 else f"/tmp/nbhull-{os.getuid()}"
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise HostUnable(
            f"cannot make the runtime folder {folder!r}: {error.strerror}",
            "set XDG_RUNTIME_DIR to a folder of your own",
        ) from error
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise HostUnable(
            f"the runtime folder {folder!r} is not a private folder of this user's",
            f"remove it, or run: chmod 700 {folder}; or set XDG_RUNTIME_DIR to a folder of your own",
        )
    return folder


class Client:
    """A connection to a launcher; thread-safe."""

    def __init__(self, channel: Socket, folder: str, pid: int = 0) -> None:
        self.channel = channel
        self.folder = folder
        self.pid = pid
        """the launcher's process id, if it is this process's child"""
        self.is_starting = False
        """whether it has not told yet that it is up"""
        self.lock = Lock()

    def request(
        self, op: str, descriptors: list[int] | None = None, **arguments: Any
    ) -> tuple[str, dict[str, str], list[int]]:
        """Ask, and wait for the one answer. Raises what the other side raised, or LauncherLost."""
        with self.open(op, descriptors, **arguments) as channel:
            return wire.receive_answer(channel)

    def open(self, op: str, descriptors: list[int] | None = None, **arguments: Any) -> Socket:
        """Ask; the answers come on the socket returned. Raises what `await_up` does."""
        self.await_up()
        ours, theirs = wire.pair()
        try:
            with theirs:
                wire.send_request(self.channel, {"op": op, **arguments}, [theirs.fileno(), *(descriptors or [])])
        except BaseException:
            ours.close()
            raise
        return ours

    def await_up(self) -> None:
        """Wait until a launcher that was begun is up. Raises HostUnable, with what mends it, where the machine
        refuses; the launcher has ended then."""
        with self.lock:
            if not self.is_starting:
                return
            self.is_starting = False
            try:
                wire.receive_answer(self.channel)
            except BaseException as error:
                self.close()
                if isinstance(error, SyscallFailed):
                    raise explained(error) from error
                raise

    def user_ids(self) -> list[range]:
        """The ids that the users of its containers have on the host."""
        extents = [tuple(map(int, extent.split("+"))) for extent in self.request("users")[1]["ids"].split()]
        return [range(first, first + count) for first, count in extents]

    def is_open(self) -> bool:
        """Whether it can still be asked: not after `leave` and `close`, and not if it could not start."""
        return self.channel.fileno() >= 0

    def leave(self) -> None:
        """Leave the launcher, without waiting for what it then does; idempotent."""
        self.channel.close()

    def close(self) -> None:
        """Leave the launcher; one that this process started ends with all its containers, and has
        cleaned up when this returns."""
        self.leave()
        if self.pid:
            try:
                os.waitpid(self.pid, 0)
            except ChildProcessError:
                pass  # somebody else's SIGCHLD handler has reaped it
            self.pid = 0


def start(home: str, *, fork: bool) -> Client:
    """Start a launcher for the store at `home`, and wait until it is up; see `begin` and `Client.await_up`."""
    client = begin(home, fork=fork)
    client.await_up()
    return client


def begin(home: str, *, fork: bool) -> Client:
    """Start a launcher for the store at `home`, a folder that exists.

    `fork`: do so by a fork of this process, which is quick but needs it to be single-threaded; else
    a new interpreter is executed. Raises HostUnable where it cannot have a folder.
    """
    folder = f"{runtime_folder()}/{os.urandom(4).hex()}"
    if len(os.fsencode(folder)) + 40 > LONGEST_SOCKET_PATH:
        raise HostUnable(
            f"the runtime folder's path {folder!r} is too long for Unix sockets",
            "set XDG_RUNTIME_DIR to a shorter path, such as /run/user/$UID",
        )
    os.mkdir(folder, 0o700)
    ours, theirs = wire.pair()
    if fork:
        pid = fork_launcher(theirs, folder, home)
    else:
        pid = execute_launcher(theirs)
        for word in (package_folder(), folder, home, library_folder()):
            ours.send(os.fsencode(word))
    theirs.close()
    client = Client(ours, folder, pid)
    client.is_starting = True
    return client


def explained(error: SyscallFailed) -> HullError:
    """A failed start as HostUnable with the line that mends it, where that is known; else as it is."""
    from nbhull.runtime.doctor.mending import explain

    mend = explain(error.call, error.errno, error.subject)
    return HostUnable(error.message, mend) if mend else error


def fork_launcher(server: Socket, folder: str, home: str) -> int:
    """A launcher as a fork of this process."""
    if other_threads():
        raise InvalidInput("a process with threads cannot fork a launcher", "use Engine(fork=False)")
    from nbhull.runtime.launcher.child import last_act

    pid = os.fork()
    if pid == 0:
        with last_act(server, "the launcher's fork"):
            # here, so that this process can go on meanwhile
            from nbhull.runtime.launcher.broker import Launcher
            from nbhull.runtime.linux.process import close_all_but

            os.setsid()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)  # the command line's handlers are not the launcher's
            close_all_but([0, 1, 2, server.fileno()])
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            Launcher(server, folder, home, keep_spare=False).run()
    return pid


PROGRAM = """import os, sys; sys.path.insert(0, os.read(0, 4096).decode())
from nbhull.runtime.launcher.start import main; main()"""
"""what the launcher's interpreter runs; paths come by the socket, since containers see its command line as init's"""


def execute_launcher(server: Socket) -> int:
    """A launcher in an interpreter of its own, which starts quicker without site and environment."""
    moves = [(os.POSIX_SPAWN_DUP2, server.fileno(), 0)]
    return os.posix_spawn(
        sys.executable, [sys.executable, "-I", "-S", "-c", PROGRAM], os.environ, file_actions=moves, setpgroup=0
    )


def package_folder() -> str:
    """The folder that the package nbhull is imported from."""
    import nbhull

    return os.path.dirname(os.path.dirname(os.path.abspath(nbhull.__file__)))


NO_LIBRARIES = "-"


def library_folder() -> str:
    """The folder of the library that speaks D-Bus, which a launcher needs to ask systemd; NO_LIBRARIES where there is
    no systemd, or no such library."""
    from importlib.util import find_spec

    from nbhull.runtime.cgroups.hierarchies import SYSTEMD

    if not os.path.isdir(SYSTEMD):
        return NO_LIBRARIES

    found = find_spec("jeepney")
    return os.path.dirname(os.path.dirname(found.origin)) if found is not None and found.origin else NO_LIBRARIES


def connect(folder: str) -> Client:
    """A connection to a running launcher of the same user, by its folder. Raises LauncherLost."""
    channel = Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.connect(f"{folder}/{SOCKET}")
    except OSError as error:
        channel.close()
        raise LauncherLost("the launcher that held this container has ended", "start the container again") from error
    return Client(channel, folder)


class Process:
    """A process that was started in a container."""

    def __init__(self, channel: Socket, pid: int) -> None:
        self.channel = channel
        self.pid = pid
        """its id inside the container"""
        self.status: int | None = None
        self.lock = Lock()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def fileno(self) -> int:
        """A descriptor that becomes readable once the process has ended (for select and asyncio); -1
        when `poll` or `wait` has told the end."""
        return self.channel.fileno()

    def poll(self) -> int | None:
        """The exit status as `subprocess.Popen.returncode` gives it (-9 for SIGKILL), else None.

        -9 too when the whole container ended, for that kills what is in it."""
        return self.collect(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises TimeoutError after `timeout` seconds."""
        status = self.collect(None if timeout is None else int(timeout * 1000))
        if status is None:
            raise TimeoutError(f"the process {self.pid} still runs after {timeout} s")
        return status

    def collect(self, milliseconds: int | None) -> int | None:
        """The exit status if it comes in time."""
        fd = self.channel.fileno()
        if self.status is None and fd >= 0:
            waiter = select.poll()
            waiter.register(fd, select.POLLIN)
            ready = waiter.poll(milliseconds)
            with self.lock:
                if ready and self.status is None:
                    self.status = self.receive()
        return self.status

    def receive(self) -> int:
        """The exit status that init tells, with which the channel has served."""
        with self.channel:
            try:
                return int(wire.receive_answer(self.channel)[1]["status"])
            except LauncherLost:
                return -9

    def signal(self, signum: int, *, group: bool = True) -> None:
        """Send a signal to the process, and with `group` to its whole process group; a process
        that has ended is no error."""
        if self.poll() is None:
            try:
                wire.send_request(self.channel, {"signal": int(signum), "group": group}, [])
            except LauncherLost:
                pass  # it ended this moment

    def close(self) -> None:
        """Forget the process (it goes on running)."""
        self.channel.close()


def spawn(client: Client, stdio: list[int], **request: Any) -> Process:
    """Start a process in a container. Raises ProcessFailed when it cannot be executed."""
    return process_of(client.open("spawn", stdio, **request))


def adopt(client: Client, **request: Any) -> Process:
    """A process that another one in the container started. Raises NotFound when there is none."""
    return process_of(client.open("adopt", **request))


def process_of(channel: Socket) -> Process:
    """The process that a request answers with."""
    try:
        _, fields, _ = wire.receive_answer(channel)
    except BaseException:
        channel.close()
        raise
    return Process(channel, int(fields["pid"]))
