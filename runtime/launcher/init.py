"""PID 1 of a container: starts what it is told to, reaps, and forwards signals.

It is a fork of the holder that never executes anything itself, so what could be read from it is
kept shut: it is not dumpable, and it has given its descriptors and abilities up.
"""

from __future__ import annotations

import fcntl
import os
import select
import termios
import time

from nbhull.runtime.errors import CommandNotExecutable, CommandNotFound, HostUnable, HullError, NotFound
from nbhull.runtime.launcher import wire
from nbhull.runtime.launcher.connection import pass_gate
from nbhull.runtime.lean import Socket, signal
from nbhull.runtime.linux import netlink
from nbhull.runtime.linux import process as linux
from nbhull.runtime.linux.seccomp import load_filter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

STANDING = "TtZX"
"""process states in which nothing is written: stopped, traced, ended"""
PATIENCE = 0.05
"""seconds for all processes to stand still, after which they are let go and stopped anew"""
ATTEMPTS = 40
PAUSE = 0.002
"""seconds between attempts"""
KILL = linux.capability_mask(frozenset({"KILL"}))
BECOME = linux.capability_mask(frozenset({"SETUID", "SETGID"}))
"""what a new process needs until it is the user that was asked for"""
NPROC = linux.RLIMITS["nproc"]
"""processes and threads of a user: in a user namespace, only those in it count (from Linux 5.14 on)"""
EXEC_STATUS = {2: 127, 20: 127}
"""exit status for an errno of execve, as shells give it: not found (127), else not executable (126)"""


def confine(confinement: dict[str, Any], last_capability: int) -> None:
    """Give up, for good, every ability that processes of the container must not have.

    What only init keeps beyond it (to signal, to become a user) is lost on execve, as it is not in the bounding set."""
    keep = confinement["capabilities"]
    linux.join_session_keyring()
    linux.drop_bounding_set(keep, last_capability)
    if confinement["no_new_privileges"]:
        linux.prctl("PR_SET_NO_NEW_PRIVS", linux.PR_SET_NO_NEW_PRIVS, 1)
    if confinement["seccomp"] and confinement["filter_init"]:
        load_filter(confinement["seccomp"])
    linux.set_capabilities(KILL, keep | KILL | BECOME)


def prepare_network(mode: str) -> None:
    """In a new network namespace: the loopback interface, and what Docker allows there, low ports for all users.

    Where there is a way out, no packet takes it to link-local addresses, at which clouds tell a machine's secrets."""
    if mode == "host":
        return
    linux.raise_loopback()
    linux.write_file("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
    if mode != "none":
        with netlink.Routes() as routes:
            routes.add_route("169.254.0.0", 16, unreachable=True)
            if netlink.has_ipv6():
                routes.add_route("fd00:ec2::", 32, unreachable=True)


class Init:
    """The loop of PID 1."""

    def __init__(
        self, holder: Socket, confinement: dict[str, Any], processes: int, gate: int, *, can_setgroups: bool
    ) -> None:
        """`processes`: how many a user may have, threads counted, where no cgroup counts them; else 0."""
        self.holder = holder
        self.confinement = confinement
        self.processes = processes
        self.gate = gate
        """where the launcher says that the network is there; -1 once it has, and where there is none"""
        self.held_back: list[tuple[dict[str, Any], list[int]]] = []
        """requests for processes, until the gate is open"""
        self.no_network: HullError | None = None
        self.can_setgroups = can_setgroups and not confinement["keep_groups"]
        self.channels: dict[int, Socket] = {}
        """by process id: the channel of the client that started it"""
        self.poll = select.poll()
        self.ending = False
        self.stopped: set[int] = set()
        """processes that stood still before a freeze, and are to stay so"""

    def run(self) -> NoReturn:
        """Serve until the holder goes away, or all processes have ended after `terminate`."""
        wake, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self.poll.register(wake, select.POLLIN)
        self.poll.register(self.holder, select.POLLIN)
        if self.gate >= 0:
            self.poll.register(self.gate, select.POLLIN)
        while True:
            for fd, _ in self.poll.poll():
                if fd == wake:
                    os.read(wake, 4096)
                elif fd == self.holder.fileno():
                    self.serve_holder()
                elif fd == self.gate:
                    self.open_gate()
                else:
                    self.serve_client(fd)
            self.reap()

    def serve_holder(self) -> None:
        """One request of the holder's; its end is ours."""
        received = wire.receive_request(self.holder)
        if received is None:
            os._exit(0)
        request, descriptors = received
        if request["op"] == "spawn" and self.gate >= 0:
            self.held_back.append((request, descriptors))
        else:
            self.serve(request, descriptors)

    def open_gate(self) -> None:
        """The network is there, or will not be: start what waits for it.

        Nothing else waits meanwhile: the launcher, which opens the gate, may itself wait for an answer from here."""
        self.poll.unregister(self.gate)
        gate, self.gate = self.gate, -1
        try:
            pass_gate(gate)
        except HullError as error:
            self.no_network = error
        for request, descriptors in self.held_back:
            self.serve(request, descriptors)
        self.held_back.clear()

    def serve(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Do what a request asks for, and answer it on its first descriptor."""
        channel = Socket(fileno=descriptors.pop(0))
        try:
            if request["op"] == "spawn":
                self.spawn(request, descriptors, channel)
                return
            if request["op"] == "adopt":
                self.adopt(request["pid"], channel)
                return
            if request["op"] == "end":
                self.end(set(request["keep"]))
                wire.send_answer(channel, "ended")
            if request["op"] == "ping":
                wire.send_answer(channel, "idle")
            if request["op"] == "freeze":
                self.freeze(request["frozen"])
                wire.send_answer(channel, "frozen")
            if request["op"] == "hold_writes":
                hold_writes(request["hold"])
                wire.send_answer(channel, "held")
            if request["op"] == "terminate":
                self.ending = True
                for number in (request["signal"], signal.SIGCONT):
                    try:
                        os.kill(-1, number)
                    except ProcessLookupError:
                        break  # nothing but init runs
                wire.send_answer(channel, "terminating")
        except HullError as error:
            wire.send_failure(channel, error)
        finally:
            for fd in descriptors:
                os.close(fd)
        channel.close()

    def freeze(self, frozen: bool) -> None:
        """Stop all other processes and wait until they stand, or let those go on that were stopped.

        For hosts without a usable cgroup freezer. Raises HostUnable, with all running, when one does not stand."""
        if not frozen:
            self.let_go()
            return
        self.stopped = {pid for pid in processes() if stands(pid)}
        for _ in range(ATTEMPTS):
            deadline = time.monotonic() + PATIENCE
            while moving := {pid for pid in processes() if not stands(pid)}:
                if time.monotonic() > deadline:
                    break
                for pid in moving:
                    send(pid, signal.SIGSTOP)
                os.sched_yield()
            else:
                return
            # A process in vfork(2) stops only after its child, which may stand already: let them pass.
            self.let_go()
            time.sleep(PAUSE)
        raise HostUnable("the container's processes do not stand still", "try again when fewer of them start")

    def let_go(self) -> None:
        """Let those go on that `freeze` has stopped."""
        for pid in processes() - self.stopped:
            send(pid, signal.SIGCONT)

    def spawn(self, request: dict[str, Any], stdio: list[int], channel: Socket) -> None:
        """Fork and execute; the answer is `started` once execve has succeeded."""
        if self.no_network is not None:
            raise self.no_network
        report, report_end = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            execute(request, stdio, report_end, self.confinement, self.processes, can_setgroups=self.can_setgroups)
        os.close(report_end)
        failure = os.read(report, 4096).decode()
        os.close(report)
        if failure:
            os.waitpid(pid, 0)
            status, text, hint = failure.split("\0")
            if status == "127":
                raise CommandNotFound(text, "give a program that the container has, or its whole path")
            raise CommandNotExecutable(
                text, hint or "see its permissions, and the folder and user that it is started with"
            )
        self.watch(pid, channel)
        wire.send_answer(channel, "started", pid=pid)

    def watch(self, pid: int, channel: Socket) -> None:
        """Take signals for a process from a channel, and tell its end there."""
        self.channels[pid] = channel
        self.poll.register(channel, select.POLLIN)

    def adopt(self, pid: int, channel: Socket) -> None:
        """Be asked about a process that another one started. Its end is told once it is init's own child."""
        if pid not in processes() or pid in self.channels:
            raise NotFound(f"there is no process {pid} in the container that could be adopted")
        self.watch(pid, channel)
        wire.send_answer(channel, "started", pid=pid)

    def end(self, keep: set[int]) -> None:
        """Kill all other processes but those, and wait until they have gone."""
        send(-1, signal.SIGSTOP)  # so that nothing forks any more
        while left := {pid for pid in processes() - keep if not has_ended(pid)}:
            for pid in left:
                send(pid, signal.SIGKILL)
            os.sched_yield()
        self.reap()
        for pid in keep:
            send(pid, signal.SIGCONT)

    def serve_client(self, fd: int) -> None:
        """A client of a process sends a signal, or has lost interest in it."""
        pid, channel = next((p, c) for p, c in self.channels.items() if c.fileno() == fd)
        received = wire.receive_request(channel)
        if received is None:
            self.forget(pid)
            return
        request, _ = received
        try:
            if request["group"]:
                os.killpg(pid, request["signal"])
            else:
                os.kill(pid, request["signal"])
        except ProcessLookupError:
            pass  # it ended a moment ago, which its channel is about to tell

    def forget(self, pid: int) -> None:
        """Close a process's channel."""
        channel = self.channels.pop(pid)
        self.poll.unregister(channel)
        channel.close()

    def reap(self) -> None:
        """Collect all that have ended, and tell those who wait for them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                if self.ending:
                    os._exit(0)
                return
            if pid == 0:
                return
            if pid in self.channels:
                wire.send_answer(self.channels[pid], "exited", status=os.waitstatus_to_exitcode(status))
                self.forget(pid)


def hold_writes(hold: bool) -> None:
    """Let no process of the container make a file longer, or let them all again: by the soft limit of RLIMIT_FSIZE,
    which what they fork inherits. Processes of other users than root are out of init's reach."""
    done: set[int] = set()
    while new := processes() - done:
        for pid in new:
            linux.set_soft_limit(pid, linux.RLIMITS["fsize"], 0 if hold else None)
        done |= new


def processes() -> set[int]:
    """All processes of the container but init."""
    return {int(name) for name in os.listdir("/proc") if name.isdigit()} - {1}


def has_ended(pid: int) -> bool:
    """Whether a process has gone, or is there only until somebody asks for its status."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def stands(pid: int) -> bool:
    """Whether no thread of a process can write anything: the states of proc_pid_stat(5)."""
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] not in STANDING:
                    return False
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended meanwhile, or a thread of it did, and the next look tells of the others
    return True


def send(pid: int, number: int) -> None:
    """kill(2); a process that has gone is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it ended meanwhile


def execute(
    request: dict[str, Any],
    stdio: list[int],
    report: int,
    confinement: dict[str, Any],
    processes: int,
    *,
    can_setgroups: bool,
) -> NoReturn:
    """In the new process: become what was asked for, or report why not and exit."""
    status, step = 126, "start"
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        report = connect_stdio(stdio, request["tty"], report)
        step = "set the resource limits"
        if processes and all(limit[0] != NPROC for limit in confinement["ulimits"]):
            linux.lower_rlimit(NPROC, processes)
        for limit in confinement["ulimits"]:
            linux.set_rlimit(*limit)
        become(request, confinement["capabilities"], can_setgroups=can_setgroups)
        step = f"enter the folder {request['cwd']}"
        os.chdir(request["cwd"])
        if not os.getcwd().startswith("/"):
            raise FileNotFoundError(2, "it lies outside of the container")
        os.umask(0o022)
        if confinement["seccomp"] and not confinement["filter_init"]:
            step = "load the seccomp profile"
            load_filter(confinement["seccomp"])
        step = f"execute {request['argv'][0]!r}"
        execute_by_path(request["argv"], request["env"])
    except OSError as error:
        if step.startswith("execute"):
            status = EXEC_STATUS.get(error.errno or 0, 126)
        os.write(report, f"{status}\0cannot {step}: {error.strerror}\0".encode())
    except CommandNotExecutable as error:
        os.write(report, f"{status}\0{error.message}\0{error.hint}".encode())
    except HullError as error:
        os.write(report, f"{status}\0cannot {step}: {error.message}\0{error.hint}".encode())
    finally:
        os._exit(status)


def become(request: dict[str, Any], keep: int, *, can_setgroups: bool) -> None:
    """Be the user, in the groups, and with no more capabilities than asked for; none unless it is root."""
    uid, gid, groups = request["uid"], request["gid"], request["groups"]
    linux.set_capabilities(keep | BECOME, keep | BECOME)
    try:
        if can_setgroups:
            os.setgroups(groups)
        elif groups:
            raise CommandNotExecutable(
                f"cannot take the supplementary groups {', '.join(map(str, groups))}: the groups of who started the "
                "container are kept",
                "leave out --group-add, or have subordinate ids given: see `nbhull doctor`",
            )
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise CommandNotExecutable(
            f"cannot become user {uid}:{gid}: {error.strerror}",
            "this container has fewer ids; see `nbhull doctor` for subordinate ids",
        ) from error
    if uid == 0:
        linux.set_capabilities(keep, keep)
    else:
        linux.set_capabilities(0, 0)


def execute_by_path(argv: list[str], env: dict[str, str]) -> NoReturn:
    """execve(2), searched for as execvp(3) does; raises the OSError that tells most."""
    if "/" in argv[0]:
        os.execve(argv[0], argv, env)
    failure: OSError = FileNotFoundError(2, "No such file on the PATH")
    for folder in env.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":"):
        try:
            os.execve(f"{folder or '.'}/{argv[0]}", argv, env)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            failure = error
    raise failure


def connect_stdio(stdio: list[int], tty: bool, report: int) -> int:
    """Standard input, output and error from the descriptors given, else from /dev/null; `report`
    moves to 3 (its new number is returned, execve closes it) and all others are closed."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    # Out of the way first, so that no descriptor is overwritten before it was used.
    sources = [
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10)
        for fd in (*(stdio[number] if number < len(stdio) else null for number in range(3)), report)
    ]
    for number, source in enumerate(sources):
        os.dup2(source, number, inheritable=number < 3)
    linux.close_range(4)
    if tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    return 3
