"""The holder: root of a user namespace that holds all containers of a launcher.

Its ids are the containers' ids, so it makes their overlays, forks their inits into nested user
namespaces, and deletes what only it may delete. All that needs the host's own abilities (cgroups,
idmapped mounts) comes from the launcher, as descriptors.
"""

from __future__ import annotations

import gc
import os
import select
import stat

from nbhull.runtime.errors import HullError, InvalidInput, LauncherLost, NotFound, ProcessFailed, SyscallFailed
from nbhull.runtime.files import measure, remove_tree
from nbhull.runtime.launcher import init, rootfs, wire
from nbhull.runtime.launcher.child import close_later, in_child, last_act
from nbhull.runtime.launcher.overlay import Stage
from nbhull.runtime.launcher.parts import Part, close_parts, descriptors_of
from nbhull.runtime.lean import Socket, signal
from nbhull.runtime.linux import mount as linux_mount
from nbhull.runtime.linux import process as linux
from nbhull.runtime.usermap import Extent, UserMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from nbhull.runtime.launcher.moving import Moving

NAMESPACES = linux.CLONE_NEWUSER | linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
"""of every container, and the network's where it is private; the cgroup namespace follows once init is in its cgroup"""

LATER = (
    "linux.ptrace", "linux.statx", "launcher.copying", "launcher.standstill", "launcher.census", "launcher.carrying",
    "launcher.move", "launcher.moving", "launcher.listing", "snapshots.chains", "launcher.flatten",
)  # fmt: skip
"""modules that a holder may come to need, and a container's start does not (`bundle.hold`)"""

QUIET = 20
"""milliseconds without a request after which what has served is taken away"""

OOM_SCORE = 500
"""added to the score by which Linux chooses what to kill when the whole machine is out of memory (proc(5),
oom_score_adj): a container goes before the server that it belongs to"""


class Held:
    """A container's init, and once it runs, its file systems."""

    def __init__(self, pid: int, channel: Socket) -> None:
        self.pid = pid
        self.channel = channel
        self.pidfd = os.pidfd_open(pid)
        self.parts: list[Part] = []
        """what can be written in it, the root first"""
        self.generation = ""
        """the folder of the store that it writes to"""
        self.namespace = -1
        """of its mounts"""
        self.move: Moving | None = None
        self.begins_anew = False
        """it ends for a start on other folders, which need not wait until these are on the disk"""
        self.namespaces: list[int] = []
        """descriptors of the user and the private network namespace, until the launcher has them"""

    @property
    def root(self) -> int:
        """A descriptor of its root."""
        return self.parts[0].mount

    def close_namespaces(self) -> None:
        """The launcher has them."""
        for fd in self.namespaces:
            os.close(fd)
        self.namespaces = []

    def discard(self) -> None:
        """End and reap it."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.release()

    def release(self) -> None:
        """Reap it, which has ended, and close what was its."""
        os.waitpid(self.pid, 0)
        self.channel.close()
        self.close_namespaces()
        if self.begins_anew:
            close_later(descriptors_of(self.parts))
        else:
            close_parts(self.parts)
        for fd in (self.pidfd, self.namespace):
            if fd >= 0:
                os.close(fd)


class Holder:
    """The loop of the holder process."""

    def __init__(self, launcher: Socket, stage: Stage, user_map: UserMap) -> None:
        self.launcher = launcher
        self.stage = stage
        self.maps = {"uid_map": identity(user_map.uids), "gid_map": identity(user_map.gids)}
        self.width = user_map.width
        self.can_setgroups = user_map.strategy != "single"
        self.held: dict[str, Held] = {}
        self.spare: Held | None = None
        """an init in its namespaces and cgroups that waits for its container"""
        self.moves: dict[int, Moving] = {}
        """by descriptor of the channel on which each will tell its end"""
        self.last_capability = linux.last_capability()
        self.poll = select.poll()

    def run(self) -> NoReturn:
        """Serve until the launcher goes away; the containers end with this process."""
        self.poll.register(self.launcher, select.POLLIN)
        gc.freeze()  # so that a fork's collector does not copy all pages
        while True:
            events = self.poll.poll(QUIET if self.stage.served else None)
            if not events:
                self.stage.tidy()
            for fd, _ in events:
                if fd == self.launcher.fileno():
                    received = wire.receive_request(self.launcher)
                    if received is None:
                        os._exit(0)
                    self.serve(*received)
                elif fd in self.moves:
                    self.finish_move(fd)
                else:
                    self.collect(fd)

    def serve(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """One request, answered on the socket that is its first descriptor."""
        held = self.held.get(request.get("container", ""))
        if held is not None and held.move is not None and request["op"] != "kill":
            held.move.waiting.append((request, descriptors))
            return
        channel = Socket(fileno=descriptors.pop(0))
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

    def do_prepare(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """Make a spare init; the descriptors are cgroup.procs files."""
        self.spare = self.fork_init(descriptors, request["network"], is_spare=True)
        wire.send_answer(channel, "prepared", self.spare.namespaces)
        self.spare.close_namespaces()

    def do_discard_spare(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """End the spare init, which nobody wants as it is."""
        if self.spare is not None:
            spare, self.spare = self.spare, None
            spare.discard()
        wire.send_answer(channel, "discarded")

    def do_start(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """Make a container's mounts, and have an init build its root of them: the spare one, or a new
        one, which enters the cgroups of the descriptors `cgroups`."""
        made: list[int] = []
        if request["spare"]:
            held, self.spare = self.spare, None
        else:
            groups = [descriptors[index] for index in request["cgroups"]]
            held = self.fork_init(groups, request["network"]["mode"], is_spare=False)
            if held.namespaces:  # at once, so that the launcher connects it while the mounts are made
                wire.send_answer(self.launcher, "namespaces", held.namespaces, container=request["container"])
                held.close_namespaces()
        if held is None:
            raise ProcessFailed("the container's prepared init has ended", "start the container again")
        try:
            held.parts.append(self.stage.part(request["root"], descriptors))
            held.generation = request["generation"]
            mounts, fds = [], [held.root]
            for entry in request["mounts"]:
                if entry["kind"] == "overlay":
                    held.parts.append(self.stage.part(entry, descriptors))
                    fds.append(held.parts[-1].mount)
                else:
                    made.append(self.stage.detached(entry, descriptors))
                    fds.append(made[-1])
                mounts.append(
                    {
                        "at": entry["at"],
                        "fd": len(fds) - 1,
                        "directory": is_folder(fds[-1]),
                        "image": entry["kind"] == "overlay",
                        "fill": entry.get("fill", False),
                    }
                )
            plan = {
                "root": 0,
                "mounts": mounts,
                "network": request["network"]["mode"],
                "gate": len(fds) if request["gate"] is not None else None,
                "width": self.width,
                "hostname": request["hostname"],
                "confinement": request["confinement"],
                "empty_run": request.get("empty_run", True),
                "cores": request["cores"],
                "views": request["views"],
                "processes": request["processes"],
            }
            gate = [] if request["gate"] is None else [descriptors[request["gate"]]]
            wire.send_request(held.channel, plan, [*fds, *gate])
            (held.namespace,) = wire.receive_answer(held.channel)[2]
        except BaseException as error:
            held.discard()
            if isinstance(error, LauncherLost):
                raise ProcessFailed(
                    "the container's init ended while it was set up", "see the log of its launcher"
                ) from None
            raise
        finally:
            for fd in made:
                os.close(fd)
        self.held[request["container"]] = held
        self.poll.register(held.pidfd, select.POLLIN)
        wire.send_answer(channel, "running", pid=held.pid)

    def fork_init(self, groups: list[int], network: str, *, is_spare: bool) -> Held:
        """Fork a container's init into its namespaces, and give it its ids. `network`: which mode of network it has."""
        private = network != "host"
        ours, theirs = wire.pair()
        pid = linux.clone(NAMESPACES | (linux.CLONE_NEWNET if private else 0))
        if pid == 0:
            ours.close()
            become_init(theirs, groups, self, network if is_spare else "")
        theirs.close()
        held = Held(pid, ours)
        try:
            for file, text in self.maps.items():
                linux.write_file(f"/proc/{pid}/{file}", text)
            if private:
                for kind in ("user", "net"):
                    held.namespaces.append(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC))
            wire.send_answer(ours, "mapped")
        except BaseException:
            held.discard()
            raise
        return held

    def collect(self, pidfd: int) -> None:
        """A container's init has ended: forget it and tell the launcher."""
        name, held = next((n, h) for n, h in self.held.items() if h.pidfd == pidfd)
        self.poll.unregister(pidfd)
        del self.held[name]
        held.release()
        wire.send_answer(self.launcher, "ended", container=name)

    def do_spawn(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """Hand a request on to the container's init, which answers it."""
        wire.send_request(self.find(request).channel, request, [channel.fileno(), *descriptors])

    do_adopt = do_spawn
    do_end = do_spawn
    do_terminate = do_spawn
    do_freeze = do_spawn
    do_hold_writes = do_spawn

    def do_kill(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """End all processes of a container at once; idempotent."""
        held = self.held.get(request["container"])
        if held is not None:
            held.begins_anew = request.get("keep", False)
            signal.pidfd_send_signal(held.pidfd, signal.SIGKILL)
        wire.send_answer(channel, "killed")

    def do_open(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
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

    def do_generation(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """Which folder of the store a container writes to."""
        wire.send_answer(channel, "generation", generation=self.find(request).generation)

    def do_move(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """Put a running container on new writable parts (`move`), in a child. It answers `moved`, with what is
        not as it should be as `problem`, or the failure that left the container where it was; ContainerLost tells
        that it was ended."""
        from nbhull.runtime.launcher.moving import Moving, perform_move

        held = self.find(request)
        parts: list[Part] = []
        try:
            for entry in request["parts"]:
                parts.append(self.stage.part(entry, descriptors))
            ours, theirs = wire.pair()
            child = os.fork()
        except BaseException:
            close_parts(parts)
            raise
        if child == 0:
            ours.close()
            with last_act(theirs, "move of a container"):
                perform_move(theirs, held, self.stage.store, parts, request)
        theirs.close()
        client = Socket(fileno=os.dup(channel.fileno()))
        held.move = Moving(child, ours, client, held, parts, request["generation"])
        self.moves[ours.fileno()] = held.move
        self.poll.register(ours, select.POLLIN)

    def finish_move(self, fd: int) -> None:
        """A move has ended, one way or the other: note where the container is, tell, and serve what had to wait."""
        move = self.moves.pop(fd)
        self.poll.unregister(fd)
        with move.channel, move.client:
            try:
                _, fields, _ = wire.receive_answer(move.channel)
            except LauncherLost as error:
                move.give_up(error)
            except HullError as error:
                wire.send_failure(move.client, error)
            else:
                move.held.parts, move.parts = move.parts, move.held.parts
                move.held.generation = move.generation
                wire.send_answer(move.client, "moved", None, **fields)
        os.waitpid(move.child, 0)
        close_later(descriptors_of(move.parts))
        move.held.move = None
        for request, descriptors in move.waiting:
            self.serve(request, descriptors)

    def do_copy(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """Copy changed files of one folder of the store to a new one, in a child of its own."""

        def work() -> None:
            self.stage.copy(request["source"], request["target"])
            wire.send_answer(channel, "done")

        in_child(channel, work)

    def do_separate(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """Part what a move that was killed has left together (`carrying.separate`); `folders`: upper folders of a
        container in the store, the one that it will write to first."""
        from nbhull.runtime.launcher.carrying import separate

        newer, *older = (self.stage.path(folder) for folder in request["folders"])
        separate(newer, older)
        wire.send_answer(channel, "done")

    def do_flatten(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """Merge layers of the store into one (`flatten`), in a child of its own."""
        from nbhull.runtime.launcher import flatten

        folders = [self.stage.path(folder) for folder in request["folders"]]

        def work() -> None:
            flatten.flatten(folders, self.stage.path(request["target"]), request["keys"], request["span"])
            wire.send_answer(channel, "done")

        in_child(channel, work)

    def do_list(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """What is in a folder of the store (`listing`), in a child of its own; answers `listed` with a memory file."""
        from nbhull.runtime.launcher import listing

        path, below = self.stage.path(request["path"]), request["below"]
        in_child(channel, lambda: send_words(channel, listing.list_folder(path, below)))

    def do_find(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """What merged layers have at some paths, in the same way."""
        from nbhull.runtime.launcher import listing

        folders = [self.stage.path(folder) for folder in request["folders"]]
        in_child(channel, lambda: send_words(channel, listing.find(folders, request["paths"])))

    def do_peek(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """A descriptor of a regular file in a folder of the store, no links followed."""
        from nbhull.runtime.launcher import listing

        folder = os.open(self.stage.path(request["folder"]), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = linux_mount.openat2(folder, request["path"], os.O_RDONLY | os.O_NONBLOCK, listing.BENEATH)
        except OSError as error:
            raise NotFound(f"{request['path']!r} cannot be read: {error.strerror}") from None
        finally:
            os.close(folder)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise InvalidInput(f"{request['path']!r} is no regular file")
            wire.send_answer(channel, "opened", [fd])
        finally:
            os.close(fd)

    def do_measure(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """Tell how many bytes and inodes a folder of the store takes, from a child of its own."""
        path = self.stage.path(request["path"])
        in_child(channel, lambda: wire.send_answer(channel, "measured", None, **measure(path)))

    def do_delete(self, request: dict[str, Any], descriptors: list[int], channel: Socket) -> None:
        """Delete a folder of the store, in a child of its own if it may take long."""
        path = self.stage.path(request["path"])

        def work() -> None:
            remove_tree(path)
            wire.send_answer(channel, "done")

        if request.get("in_child", True):
            in_child(channel, work)
        else:
            work()


def send_words(channel: Socket, words: list[str]) -> None:
    """Answer with a memory file of words."""
    from nbhull.runtime.launcher import listing

    memory = listing.pack(words)
    wire.send_answer(channel, "listed", [memory])
    os.close(memory)


def identity(extents: list[Extent]) -> str:
    """The map of a container's user namespace onto the holder's ids: each id on itself. An extent may
    not span two of the parent's, so they are the same (user_namespaces(7))."""
    return "\n".join(f"{inside} {inside} {count}" for inside, _, count in extents)


def is_folder(fd: int) -> bool:
    """Whether a descriptor is a folder's."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def become_init(holder: Socket, groups: list[int], maker: Holder, network: str) -> None:
    """In the fork, which is process 1 of its namespace: wait for the container's plan, and become its init. `network`:
    the mode that it will have, if there is time to prepare for it; else empty."""
    with last_act(holder, "set-up of the container"):
        gc.disable()
        linux.raise_oom_score(OOM_SCORE)
        linux.set_name("nbhull-init")
        linux.prctl("PR_SET_PDEATHSIG", linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        linux.close_all_but([0, 1, 2, holder.fileno(), *groups])
        linux.enter_cgroups(groups)
        linux.unshare(linux.CLONE_NEWCGROUP)
        wire.receive_answer(holder)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        linux.prctl("PR_SET_DUMPABLE", linux.PR_SET_DUMPABLE, 0)
        if network:
            init.prepare_network(network)
        received = wire.receive_request(holder)
        if received is None:
            os._exit(0)
        plan, mounts = received
        if maker.can_setgroups and not plan["confinement"]["keep_groups"]:
            os.setgroups([])
        gate = -1 if plan["gate"] is None else mounts.pop(plan["gate"])
        if not network:
            init.prepare_network(plan["network"])
        rootfs.build(plan, mounts)
        for fd in mounts:
            os.close(fd)
        if plan["cores"]:
            os.sched_setaffinity(0, plan["cores"])
        linux.sethostname(plan["hostname"])
        init.confine(plan["confinement"], maker.last_capability)
        linux.prctl("PR_SET_PDEATHSIG", linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        wire.send_answer(holder, "ready", [namespace])
        os.close(namespace)
        init.Init(holder, plan["confinement"], plan["processes"], gate, can_setgroups=maker.can_setgroups).run()
