"""One kernel in its container: the blocking, thread-safe half of the provisioner."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from signal import SIGKILL, SIGTERM
from typing import Any

from nbhull.kernel.adding import with_ipykernel
from nbhull.kernel.cells.siblings import Siblings
from nbhull.kernel.checkpoints import Checkpoint, Checkpoints
from nbhull.kernel.command import CommandFinder, KernelCommand
from nbhull.kernel.config import KernelConfig
from nbhull.kernel.engines import submit
from nbhull.kernel.folder import WorkingFolder, make_in
from nbhull.kernel.launch import Launch
from nbhull.kernel.logged import LoggedProgress
from nbhull.kernel.names import (
    CONNECTION_FILE,
    CONTROL_SOCKET,
    CONTROL_VARIABLE,
    NOTICES_FILE,
    PANEL_FILE,
    PENDING_FILE,
    REPLAY,
)
from nbhull.kernel.obituary import deliver, take_request
from nbhull.kernel.occasions import Keeper
from nbhull.runtime import ends
from nbhull.runtime.builder.progress import Progress
from nbhull.runtime.engine import Engine, Process
from nbhull.runtime.errors import Conflict, HullError, LauncherLost, NotFound, ProcessFailed
from nbhull.runtime.model import Container, ContainerSpec, Image, Mount, ProcessSpec
from nbhull.runtime.verbs.results import short_id

PORTS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


class ContainedKernel:
    """Owns a container and the kernel process in it. The container is made on the first `prepare`, and lives until
    `remove`; kernel processes come and go in it. Everything here blocks, and may be called from any thread."""

    def __init__(
        self,
        engine: Engine,
        config: KernelConfig,
        folder: WorkingFolder,
        mounts: Sequence[Mount],
        name: str,
        log: logging.Logger,
    ) -> None:
        """`mounts` come in beside those of the config and the folder; `name` is shown by `nbhull ps`."""
        self.engine = engine
        self.config = config
        self.folder = folder
        self.name = name
        self.log = log
        self.mounts = tuple(mounts)
        self.container: Container | None = None
        self.process: Process | None = None
        self.command: KernelCommand | None = None
        self.socket_folder = ""
        """the folder as the clients know it, the same for the whole life of the kernel"""
        self.resetting = False
        self.checkpoints = Checkpoints()
        self.siblings = Siblings(self)
        self.keeper = Keeper(self, config.auto)
        self.taken: set[str] = set()
        """ids of the snapshots that were taken of this kernel's containers"""
        self._is_ended_by_us = False
        """the kernel process was told to end"""
        self._telling: Future[None] | None = None
        """the death of the kernel process is told to its clients, or has been"""
        self._notices: list[str] = []
        """for the next kernel process to show"""
        self._events_before: Mapping[str, int] = {}
        """limits that the container had met before the kernel process started"""
        self._lock = threading.RLock()
        self._launch: Launch | None = None
        self.came_from: str | None = None
        """the snapshot of what the last `use` has left"""
        # so that a kernel that nobody shuts down (its manager gave it up) does not keep its container
        self._remains: list[str] = []
        self._finalizer = weakref.finalize(self, _remove_remains, engine, self._remains)

    # -- the container -------------------------------------------------------------------------

    def prepare(self, notices: Sequence[str] = ()) -> bool:
        """See to it that the container runs. Returns whether one was there before but had to be
        replaced, because it had been removed. Raises HullError; nothing is left behind then."""
        with self._lock:
            had_one = self.container is not None
            if had_one and self._resume():
                return False
            shown = [notice for notice in (self.folder.notice, *notices) if notice]
            if had_one:
                shown.append("The container was gone, a new one took its place: its changes are lost.")
            try:
                shown += self._create()
                self._write(NOTICES_FILE, json.dumps(shown))
            except BaseException:
                self.remove()
                raise
            for notice in shown:
                self.log.warning("nbhull: %s", notice)
            return had_one

    def _resume(self) -> bool:
        """Start the container again if it was stopped; false if it is gone."""
        assert self.container is not None
        try:
            current = self.engine.container(self.container.id)
            if current.state != "running":
                current = self.engine.start(current.id)
        except (NotFound, LauncherLost):
            return False
        self._adopt(current)
        return True

    def _create(self) -> tuple[str, ...]:
        """Make the container and start it; what the user should know."""
        config = self.config
        progress = LoggedProgress(self.log, config.image)
        self.engine.provide(config.image, progress=progress)
        started, notices = self.make_container(config, self.name, self._remains, progress)
        self._adopt(started)
        if self.folder.mount is None:
            make_in(self.engine, started.id, self.folder.path, self._user())
        return (*progress.notices(), *notices)

    def make_container(
        self, config: KernelConfig, name: str, remains: list[str] | None = None, progress: Progress | None = None
    ) -> tuple[Container, tuple[str, ...]]:
        """A running container for the kernel, by a config of its own, and what the user should know. `remains`: takes
        its id as soon as it is there; else nothing is left of what fails. Raises HullError."""
        image, notice = with_ipykernel(self.engine, config.image, config.kernel, progress)
        mounts = [*self.handed_in(), *self.mounts]
        spec = ContainerSpec(
            image=image,
            name=name,
            limits=config.limits,
            network=config.network,
            dns=config.dns,
            mounts=tuple(mounts),
            environment=config.prefix,
            host_settings=config.host_settings,
            confinement=config.confinement,
            labels={"nbhull.kernel": config.kernel},
        )
        created = self.engine.create(spec)
        if remains is not None:
            remains[:] = [created.id]
        try:
            started = self.engine.start(created.id)
        except BaseException:
            if remains is None:
                self.engine.remove(created.id, force=True)
            raise
        return started, (*started.notices, *([notice] if notice else []))

    def take_place(
        self,
        config: KernelConfig,
        container: Container,
        pending: Mapping[str, Any] | None,
        moved: Callable[[], None],
        panel: bytes,
    ) -> None:
        """Have a running container take the place of the kernel's own, which is removed, with a new kernel on the same
        connection. `moved` is called in between; `panel`: content of PANEL_FILE. Raises Conflict when the kernel is
        being stopped; the container is not taken then."""
        with self._lock:
            before = self.running()
            if self._launch is None or self.process is None:
                raise Conflict("the kernel is being stopped", "start it again")
            self.resetting = True
            try:
                self.siblings.end()
                self.checkpoints.clear()
                self._remains.append(container.id)
                self.engine.remove(before.id, force=True)
                self._remains.remove(before.id)
                self.config = config
                self._adopt(container)
                if self.folder.mount is None:
                    make_in(self.engine, self.running().id, self.folder.path, self._user())
                if panel:
                    self._write(PANEL_FILE, panel)
                moved()
                self._spawn(self._launch, pending)
            finally:
                self.resetting = False

    def handed_in(self) -> list[Mount]:
        """The folders that the kernel works with: the notebook's, and the kernelspec's."""
        return [*([self.folder.mount] if self.folder.mount else []), *self.config.mounts]

    def _adopt(self, container: Container) -> None:
        self.container = container
        if not self.socket_folder:
            self.socket_folder = container.socket_folder
        elif self.socket_folder != container.socket_folder:
            # clients stay connected to the paths they know
            with suppress(FileNotFoundError):
                os.unlink(self.socket_folder)
            os.symlink(container.socket_folder, self.socket_folder)
        self.keeper.begin()

    def remove(self) -> None:
        """End the container and delete it. Idempotent; does nothing if there was none."""
        with self._lock:
            self.siblings.end()
            if self.process is not None:
                self.process.close()
            self.process = None
            self.checkpoints.clear()
            remains, self._remains[:] = list(self._remains), []
            if os.path.islink(self.socket_folder):
                os.unlink(self.socket_folder)
            self.container, self.socket_folder = None, ""
            for container in remains:
                with suppress(NotFound):
                    self.engine.remove(container, force=True)

    # -- the kernel process --------------------------------------------------------------------

    def find_command(self) -> KernelCommand:
        """Look up how the kernel is started, in the container as it is now. Raises HullError."""
        with self._lock:
            container = self.running()
            prefix = self.config.prefix or sys.prefix
            finder = CommandFinder(self.engine, container.id, container.image, prefix)
            self.command = finder.find(self.config.kernel)
            return self.command

    def launch(self, launch: Launch) -> None:
        """Start a kernel process. Raises HullError if its program cannot be executed."""
        with self._lock:
            self._launch = launch
            self._spawn(launch, pending=None)

    def _spawn(self, launch: Launch, pending: Mapping[str, Any] | None) -> None:
        container = self.running()
        command = self.find_command()
        inner = dict(launch.connection, transport="ipc", ip=f"{container.socket_folder}/k")
        self._unlink_sockets(launch)
        self._write(CONNECTION_FILE, json.dumps(inner))
        if pending is not None:
            self._write(PENDING_FILE, json.dumps(pending))
        spec = ProcessSpec(
            command.with_connection_file(f"{container.socket_folder}/{CONNECTION_FILE}", launch.arguments),
            env={
                **command.env,
                **launch.env,
                # a kernel that has no parent to watch says so to the terminal; 1 is one that never ends
                "JPY_PARENT_PID": "1",
                CONTROL_VARIABLE: self._control_path() or self.config.control,
            },
            cwd=self.folder.path,
            user=self._user(),
        )
        if self._notices:
            self._write(NOTICES_FILE, json.dumps(self._notices))
            self._notices = []
        self._is_ended_by_us, self._telling = False, None
        self._events_before = ends.read_events(container.socket_folder)
        with launch.open_output() as stdio:
            if self.process is not None:
                self.process.close()
            self.process = self.engine.spawn(container.id, spec, stdio)

    def _unlink_sockets(self, launch: Launch) -> None:
        """Take the sockets of an ended kernel away."""
        for port in PORTS:
            with suppress(FileNotFoundError):
                os.unlink(f"{self.running().socket_folder}/k-{launch.connection[port]}")

    def _user(self) -> str | None:
        """Who the kernel runs as: root of the container, who is the server's user outside, so that the notebook's
        folder and the sockets are its own, whatever user the image names; else whom the kernelspec says."""
        return None if self.config.confinement.user else "0"

    def is_up(self) -> bool:
        """Whether the kernel listens. Raises HullError with its last words if it has ended."""
        launch, process = self._launch, self.process
        if launch is None or process is None:
            raise ProcessFailed("the kernel was stopped while it started", "start it again")
        paths = [f"{self.socket_folder}/k-{launch.connection[port]}" for port in ("shell_port", "control_port")]
        if all(os.path.exists(path) for path in paths):
            return True
        status = process.poll()
        if status is None:
            return False
        raise self._died_early(launch, status)

    def _died_early(self, launch: Launch, status: int) -> HullError:
        words = launch.last_words()
        if words:
            self.log.error("nbhull: the kernel ended while it started; its output:\n%s", words)
        python = self.command.argv[0] if self.command else "python3"
        lines = [line.strip() for line in words.splitlines() if line.strip()]
        last = lines[-1] if lines else "it said nothing"
        if "No module named" in last and "ipykernel" in last:
            return NotFound(
                f"{python} in the image {self.config.image!r} has no ipykernel",
                f"install it there with `{python} -m pip install ipykernel`, or choose another image",
            )
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return ProcessFailed(
            f"the kernel ended while it started, with {how}: {last}", "the server's log has its output"
        )

    def poll(self) -> int | None:
        """None while the kernel runs, is being reset, or its death is being told; else its exit status (0 if
        there was none)."""
        process = self.process
        if self.resetting:
            return None
        if process is None:
            return 0
        try:
            status = process.poll()
        except LauncherLost:
            status = -9
        if status in (None, 0) or self._is_ended_by_us:
            return status
        with self._lock:
            if self._telling is None and self.process is process:
                self._telling = submit(lambda: self._tell_death(status))
        return status if self._telling is None or self._telling.done() else None

    def _tell_death(self, status: int) -> None:
        """The kernel process was killed or crashed: say why, in the cell that it was executing, in the log, and
        in the next kernel's first cell if nobody waits for the one before."""
        container, launch = self.container, self._launch
        if container is None or launch is None:
            return
        try:
            events = ends.since(self._events_before, self.engine.events(container.id))
        except NotFound:
            return  # removed with its kernel, as whoever did so knows
        message, hint = ends.explain_end(status, events, container.spec.limits)
        with suppress(NotFound, FileNotFoundError):  # removed in this moment
            self.engine.note_status(container.id, status)
        self.log.error("nbhull: %s", message)
        request = take_request(self.socket_folder)
        told = request is not None and deliver(launch.connection, f"{self.socket_folder}/k", request, message, hint)
        if not told:
            self._notices = [f"{message}. {hint}"]

    def signal(self, signum: int) -> None:
        """Signal the kernel's process group; no error if it has ended."""
        if self.process is not None:
            self._is_ended_by_us = self._is_ended_by_us or signum in (SIGKILL, SIGTERM)
            with suppress(LauncherLost):
                self.process.signal(signum)

    def forget_process(self) -> None:
        """Drop the ended kernel process; the container stays."""
        with self._lock:
            if self.process is not None and not self.resetting:
                self.process.close()
                self.process = None

    # -- what the kernel may ask for -----------------------------------------------------------

    def snapshot(self, name: str | None, pid: int | None = None, **how: Any) -> tuple[Image, list[str]]:
        """Keep the container's files as an image; and the kernel's memory, if a process of the container holds it.
        `how`: note, pinned and volumes, as Engine.snapshot takes them. Gives the names of the snapshots whose memory
        had to go for it, too. Raises HullError."""
        if pid is None:
            return self._keep_files(name, self.checkpoints.pids(), how), []
        with self._lock:
            process, connection = self._adopt_process(pid)
            try:
                image = self._keep_files(name, [*self.checkpoints.pids(), pid], how)
            except BaseException:
                process.close()
                raise
            return image, self.checkpoints.put(Checkpoint(image, process, connection))

    def _keep_files(self, name: str | None, asleep: Sequence[int], how: dict[str, Any]) -> Image:
        """Keep the container's files as an image; `asleep`: the processes in it that hold memory."""
        image = self.engine.snapshot(self.running().id, name, asleep=asleep, **how)
        self.taken.add(image.id)
        return image

    def _adopt_process(self, pid: int) -> tuple[Process, Mapping[str, Any]]:
        """A process that the kernel started, and the connection that both have."""
        container = self.running()
        if self._launch is None:
            raise Conflict("the kernel is being stopped", "start it again")
        return self.engine.adopt(container.id, pid), self._launch.connection

    def memory_goes_on(self, pid: int) -> None:
        """After a checkpoint was woken: the process that is it from now on. Raises HullError."""
        with self._lock:
            image, self.checkpoints.waking = self.checkpoints.waking, None
            if image is None:
                raise Conflict("no checkpoint was woken", "take a snapshot with %container snapshot --memory")
            self.checkpoints.put(Checkpoint(image, *self._adopt_process(pid)))

    def reset(
        self,
        snapshot: str | None,
        pending: Mapping[str, Any] | None,
        *,
        files_only: bool = False,
        undo: bool = False,
        volumes: bool = False,
    ) -> None:
        """Put the files back on a snapshot (with `undo`: to before the last reset), and the memory if it was kept (and
        not `files_only`); else the kernel starts anew, on the same connection.

        `pending` is handed to the kernel that goes on, which finishes the request that asked for this.
        Raises HullError; the old kernel goes on if nothing had happened yet.
        """
        with self._lock:
            container = self.running()
            if self._launch is None or self.process is None:
                raise Conflict("the kernel is being stopped", "start it again")
            had_memory = set(self.checkpoints.by_image)
            self.resetting = True
            try:
                keep = self.checkpoints.pids()
                if undo:
                    self._adopt(self.engine.undo(container.id, keep=keep))
                else:
                    self._adopt(self.engine.reset(container.id, snapshot, keep=keep, volumes=volumes))
                image = self.running().snapshot
                checkpoint = None if files_only else self.checkpoints.take(image, self._launch.connection)
                lost = image in had_memory and checkpoint is None and not files_only
                if self.folder.mount is None:
                    make_in(self.engine, self.running().id, self.folder.path, self._user())
                if checkpoint is not None:
                    if pending is not None:
                        what = f"reset to {checkpoint.image.name}: files and memory are as they were"
                        pending = {**pending, "message": what, "snapshot": checkpoint.image.name}
                    self._wake(checkpoint, pending)
                    return
                what = "the files are as they were, the kernel is new"
                if lost:
                    what += " (the memory of this snapshot is lost: the container had run out of it, or was stopped)"
                if pending is not None:
                    name = self._image_name(image)
                    pending = {**pending, "message": f"reset to {name}: {what}", "snapshot": image and name}
                self._spawn(self._launch, pending)
            finally:
                self.resetting = False

    def _image_name(self, image: str | None) -> str:
        """A snapshot's name, for people; None is the image that the container was made from."""
        names = {each.id: each.name for each in self.engine.images()}
        return self.running().image if image is None else names.get(image) or short_id(image)

    def _wake(self, checkpoint: Checkpoint, pending: Mapping[str, Any] | None) -> None:
        """Let a checkpoint be the kernel."""
        assert self._launch is not None
        assert self.process is not None
        self._unlink_sockets(self._launch)
        if pending is not None:
            self._write(PENDING_FILE, json.dumps(pending))
        self.process.close()
        self.process = checkpoint.wake()
        self._is_ended_by_us, self._telling = False, None

    def _control_path(self) -> str | None:
        if self.config.control in ("none", REPLAY):
            return None
        return f"{self.running().socket_folder}/{CONTROL_SOCKET}"

    def running(self) -> Container:
        """The container. Raises Conflict when there is none any more."""
        if self.container is None:
            raise Conflict("the kernel's container was removed", "restart the kernel")
        return self.container

    def _write(self, name: str, content: str | bytes) -> None:
        """Write a file into the socket folder, for the kernel."""
        path = f"{self.running().socket_folder}/{name}"
        with suppress(FileNotFoundError):
            os.unlink(path)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)


def _remove_remains(engine: Engine, remains: list[str]) -> None:
    for container in remains:
        with suppress(HullError):  # there is nobody left to tell; `nbhull ps` still shows it
            engine.remove(container, force=True)
