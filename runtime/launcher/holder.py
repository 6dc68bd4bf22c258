"""The holder: root of a user namespace that holds all containers of a launcher.

Its ids are the containers' ids, so it makes their overlays, forks their inits into nested user
namespaces, and deletes what only it may delete. All that needs the host's own abilities (cgroups,
idmapped mounts) comes from the launcher, as descriptors.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import stat
from typing import Any, NoReturn

from nbhull.runtime.errors import HullError, InvalidInput, LauncherLost, NotFound, ProcessFailed, SyscallFailed
from nbhull.runtime.launcher import init, rootfs, wire
from nbhull.runtime.launcher.overlay import Stage
from nbhull.runtime.linux import mount as linux_mount
from nbhull.runtime.linux import process as linux

NAMESPACES = (
    linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
)


class Held:
    """A running container: its init and its root."""

    def __init__(self, pid: int, channel: socket.socket, root: int) -> None:
        self.pid = pid
        self.channel = channel
        self.root = root
        self.pidfd = os.pidfd_open(pid)


class Holder:
    """The loop of the holder process."""

    def __init__(self, launcher: socket.socket, stage: Stage, width: int) -> None:
        self.launcher = launcher
        self.stage = stage
        self.width = width
        self.held: dict[str, Held] = {}
        self.last_capability = linux.last_capability()
        self.poll = select.poll()

    def run(self) -> NoReturn:
        """Serve until the launcher goes away; the containers end with this process."""
        self.poll.register(self.launcher, select.POLLIN)
        while True:
            for fd, _ in self.poll.poll():
                if fd == self.launcher.fileno():
                    received = wire.receive_request(self.launcher)
                    if received is None:
                        os._exit(0)
                    self.serve(*received)
                else:
                    self.collect(fd)

    def serve(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """One request, answered on the socket that is its first descriptor."""
        channel = socket.socket(fileno=descriptors.pop(0))
        try:
            getattr(self, f"do_{request['op']}")(request, descriptors, channel)
        except HullError as error:
            wire.send_failure(channel, error)
        except OSError as error:
            wire.send_failure(channel, SyscallFailed(request["op"], error.errno or 0, str(error.filename or "")))
        finally:
            channel.close()
            for fd in descriptors:
                os.close(fd)

    def find(self, request: dict[str, Any]) -> Held:
        """The container that a request is about."""
        try:
            return self.held[request["container"]]
        except KeyError:
            raise NotFound(f"the container {request['container']} is not running", "start it first") from None

    def do_start(self, request: dict[str, Any], descriptors: list[int], channel: socket.socket) -> None:
        """Make a container's mounts and its init; `cgroups` of the descriptors are cgroup.procs files."""
        made: list[int] = []
        try:
            mounts = []
            root = self.stage.overlay(request["root"], descriptors)
            made.append(root)
            for entry in request["mounts"]:
                fd = self.stage.detached(entry, descriptors)
                made.append(fd)
                mounts.append({"at": entry["at"], "fd": len(made) - 1, "directory": is_folder(fd)})
            plan = {"root": 0, "mounts": mounts, "network": request["network"], "width": self.width}
            groups = [descriptors[index] for index in request["cgroups"]]
            held = self.fork_init(plan, made, groups, request)
            made.remove(root)
        finally:
            for fd in made:
                os.close(fd)
        self.held[request["container"]] = held
        self.poll.register(held.pidfd, select.POLLIN)
        wire.send_answer(channel, "running", pid=held.pid)

    def fork_init(self, plan: dict[str, Any], mounts: list[int], groups: list[int], request: dict[str, Any]) -> Held:
        """Fork the container's init into its namespaces and wait until it stands."""
        ours, theirs = wire.pair()
        parent = os.fork()
        if parent == 0:
            ours.close()
            become_init(theirs, plan, mounts, groups, request, self.last_capability)
        theirs.close()
        pid = 0
        try:
            wire.receive_answer(ours)
            for file in ("uid_map", "gid_map"):
                linux.write_file(f"/proc/{parent}/{file}", f"0 0 {self.width}")
            wire.send_answer(ours, "mapped")
            pid = int(wire.receive_answer(ours)[1]["pid"])
            os.waitpid(parent, 0)
            parent = 0
            wire.send_answer(ours, "adopted")
            wire.receive_answer(ours)
            return Held(pid, ours, mounts[plan["root"]])
        except BaseException as error:
            ours.close()
            for child in (parent, pid):
                if child:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
            if isinstance(error, LauncherLost):
                raise ProcessFailed("the container's init ended while it was set up", "see the log of its launcher") from None
            raise

    def collect(self, pidfd: int) -> None:
        """A container's init has ended: forget it and tell the launcher."""
        name, held = next((n, h) for n, h in self.held.items() if h.pidfd == pidfd)
        self.poll.unregister(pidfd)
        del self.held[name]
        os.waitpid(held.pid, 0)
        held.channel.close()
        os.close(held.root)
        os.close(pidfd)
        wire.send_answer(self.launcher, "ended", container=name)

    def do_spawn(self, request: dict[str, Any], descriptors: list[int], channel: socket.socket) -> None:
        """Hand a request on to the container's init, which answers it."""
        wire.send_request(self.find(request).channel, request, [channel.fileno(), *descriptors])

    do_terminate = do_spawn
    do_freeze = do_spawn

    def do_kill(self, request: dict[str, Any], descriptors: list[int], channel: socket.socket) -> None:
        """End all processes of a container at once; idempotent."""
        held = self.held.get(request["container"])
        if held is not None:
            signal.pidfd_send_signal(held.pidfd, signal.SIGKILL)
        wire.send_answer(channel, "killed")

    def do_open(self, request: dict[str, Any], descriptors: list[int], channel: socket.socket) -> None:
        """A read-only descriptor of a regular file or a folder inside a container."""
        held = self.find(request)
        path = request["path"]
        try:
            fd = linux_mount.openat2(held.root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"no file {path!r} in the container") from None
        except OSError as error:
            raise InvalidInput(f"cannot open {path!r} in the container: {error.strerror}") from error
        try:
            kind = os.fstat(fd).st_mode
            if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
                raise InvalidInput(f"{path!r} in the container is neither a file nor a folder")
            wire.send_answer(channel, "opened", [fd], folder=int(stat.S_ISDIR(kind)))
        finally:
            os.close(fd)

    def do_copy(self, request: dict[str, Any], descriptors: list[int], channel: socket.socket) -> None:
        """Copy changed files of one folder of the store to a new one, in a child of its own."""
        in_child(channel, lambda: self.stage.copy(request["source"], request["target"]))

    def do_delete(self, request: dict[str, Any], descriptors: list[int], channel: socket.socket) -> None:
        """Delete a folder of the store, in a child of its own."""
        in_child(channel, lambda: remove_tree(self.stage.path(request["path"])))


def in_child(channel: socket.socket, work: Any) -> None:
    """Do what may take long in a forked process, which answers `done` or the failure.

    It is forked twice, so that it is reaped without a wait."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        if os.fork() == 0:
            try:
                work()
                wire.send_answer(channel, "done")
            except HullError as error:
                wire.send_failure(channel, error)
            except OSError as error:
                wire.send_failure(channel, SyscallFailed("copy or delete", error.errno or 0, str(error.filename)))
    finally:
        os._exit(0)


def remove_tree(path: str) -> None:
    """Delete a folder and all in it; a folder that is gone is no error."""
    if os.path.lexists(path):
        make_searchable(path)
        shutil.rmtree(path)


def make_searchable(path: str) -> None:
    """Give every folder the bits that deleting in it needs: overlayfs leaves `work` with none."""
    for folder, names, _ in os.walk(path):
        for name in names:
            inner = os.path.join(folder, name)
            if not os.path.islink(inner) and os.lstat(inner).st_mode & 0o700 != 0o700:
                os.chmod(inner, 0o700)


def is_folder(fd: int) -> bool:
    """Whether a descriptor is a folder's."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def become_init(
    holder: socket.socket, plan: dict[str, Any], mounts: list[int], groups: list[int], request: dict[str, Any], last: int
) -> NoReturn:
    """In the fork: enter the container's namespaces, fork its init, and end (the parent of a process
    namespace is not in it)."""
    try:
        linux.set_name("nbhull-init")
        linux.close_all_but([0, 1, 2, holder.fileno(), *mounts, *groups])
        for fd in groups:
            os.write(fd, b"0")
            os.close(fd)
        private = linux.CLONE_NEWNET if request["network"] == "none" else 0
        linux.unshare(NAMESPACES | private)
        wire.send_answer(holder, "unshared")
        wire.receive_answer(holder)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        if request["setgroups"]:
            os.setgroups([])
        child = os.fork()
        if child:
            wire.send_answer(holder, "forked", pid=child)
            os._exit(0)
        linux.prctl("PR_SET_DUMPABLE", linux.PR_SET_DUMPABLE, 0)
        if private:
            linux.raise_loopback()
        rootfs.build(plan, mounts)
        for fd in mounts:
            os.close(fd)
        linux.sethostname(request["hostname"])
        init.confine(last)
        wire.receive_answer(holder)
        linux.prctl("PR_SET_PDEATHSIG", linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        wire.send_answer(holder, "ready")
        init.serve(holder)
    except HullError as error:
        wire.send_failure(holder, error)
    except OSError as error:
        wire.send_failure(holder, SyscallFailed("set-up of the container", error.errno or 0, str(error.filename or "")))
    finally:
        os._exit(1)
