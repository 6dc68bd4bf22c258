"""RUN: one command in a container of its own, on the layers so far; what it changed becomes the next layer."""

from __future__ import annotations

import os
import posixpath
import select
import signal

from nbhull.runtime import hostsettings
from nbhull.runtime.builder import ignore
from nbhull.runtime.builder.build import Cancelled
from nbhull.runtime.builder.copying import SELF, Item, Job
from nbhull.runtime.builder.mounts import TMPFS, StepMount
from nbhull.runtime.errors import InvalidInput, ProcessFailed
from nbhull.runtime.linux.mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from nbhull.runtime.snapshots import generations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.builder.progress import Step
    from nbhull.runtime.builder.stage import RunStep, StageBuild
    from nbhull.runtime.launcher.client import Process

LABEL = "nbhull.build"
"""of containers that a build makes for a step"""
CHUNK = 1 << 16


def execute(stage: StageBuild, run: RunStep, layers: list[str], step: Step) -> str:
    """Run it, and give the layer of what it changed. Raises ProcessFailed if it fails."""
    running = Running(stage, run)
    try:
        running.prepare(layers)
        running.attend(step)
        return running.keep()
    finally:
        running.clean_up()


class Running:
    """One step while it runs."""

    def __init__(self, stage: StageBuild, run: RunStep) -> None:
        self.stage = stage
        self.build = stage.build
        self.engine = stage.build.engine
        self.materials = stage.build.materials
        self.run = run
        self.id = os.urandom(6).hex()
        self.handed = f"containers/{self.id}/handed"
        self.count = 0
        self.env = dict(run.env)
        self.mounts: list[dict[str, Any]] = []
        self.locks: list[int] = []
        self.exists = False

    # Before

    def prepare(self, layers: list[str]) -> None:
        """Make the container and all that is mounted in it, and start it."""
        name = f"build-{self.id}"
        spec = ContainerSpec(
            name=name, hostname="build", host_settings=False, network=self.run.network, labels={LABEL: "1"}
        )
        if (bounds := self.build.options.bounds) is not None:
            spec = spec.but(limits=bounds.limits, confinement=bounds.confinement)
        wanted: list[tuple[str, StepMount | None, bytes]] = [("", mount, b"") for mount in self.run.mounts]
        wanted += [(path, None, content) for path, content in self.run.scripts]
        if self.build.options.host_settings:
            settings = hostsettings.read()
            self.env = {**settings.env, **self.build.scope.proxies(), **self.env}
            wanted += [(path, None, content) for path, content in settings.files.items()]
        else:
            self.env = {**self.build.scope.proxies(), **self.env}
        os.mkdir(self.engine.store.path("containers", self.id), 0o700)
        self.engine.catalog.workshop.ask("folder", path=self.handed, mode=0o755, uid=0, gid=0)
        for path, mount, content in wanted:
            if mount is None:
                self.file(path, content, 0o755 if path.startswith("/dev/") else 0o644)
            else:
                getattr(self, f"mount_{mount.kind}")(mount)
        record = {
            "base": "oci",
            "environment": None,
            "parts": [],
            "foundation": layers,
            "config": {
                "env": [],
                "entrypoint": [],
                "cmd": [],
                "working_dir": self.run.folder,
                "user": self.run.user,
                "stop_signal": int(signal.SIGTERM),
                "volumes": [],
                "labels": {},
            },
            "step": sorted(self.mounts, key=lambda mount: str(mount["at"]).count("/")),
        }
        self.engine.create_from(spec, record, None, None, identity=self.id)
        self.exists = True
        self.engine.start(self.id)

    def file(self, at: str, content: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
        """A file for this step alone."""
        path = self.materials.hand(self.handed, self.count, content, mode, uid, gid)
        self.count += 1
        self.bind(at, path, folder=False)

    def bind(self, at: str, source: str, *, folder: bool, read_only: bool = True, owned: bool = False) -> None:
        """One more mount; `source` is a path in the store, or, `owned`, one of this machine's."""
        self.mounts.append(
            {
                "kind": "bind",
                "at": at,
                "source": source,
                "owned": owned,
                "read_only": read_only,
                "recursive": False,
                "folder": folder,
            }
        )

    def overlay(self, at: str, lowers: list[str], within: str = "", *, read_only: bool) -> None:
        """A tree of layers, what is written to it thrown away afterwards."""
        upper, work = f"{self.handed}/{self.count}/upper", f"{self.handed}/{self.count}/work"
        self.count += 1
        for folder in (upper.rpartition("/")[0], upper, work):
            self.engine.catalog.workshop.ask("folder", path=folder, mode=0o755, uid=0, gid=0)
        facts = self.engine.catalog.workshop.ask("kind", lowers=lowers, path=within or "/")
        self.mounts.append(
            {
                "kind": "tree",
                "at": at,
                "lowers": lowers,
                "upper": upper,
                "work": work,
                "within": within,
                "owned": False,
                "read_only": read_only,
                "folder": facts["folder"] == "1",
            }
        )

    def mount_tmpfs(self, mount: StepMount) -> None:
        """An empty file system in memory."""
        options = ["mode=1777", *([] if mount.size is None else [f"size={mount.size}"])]
        flags = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID
        self.mounts.append(
            {"kind": TMPFS, "at": mount.target, "owned": False, "options": options, "flags": flags, "folder": True}
        )

    def mount_secret(self, mount: StepMount) -> None:
        """A secret as a file, or a variable, of this step alone."""
        for secret in self.build.options.secrets:
            if secret.id == mount.id:
                content = secret.read()
                if mount.env:
                    self.env[mount.env] = os.fsdecode(content)
                if mount.target:
                    self.file(mount.target, content, mount.mode, mount.uid, mount.gid)
                return
        if mount.required:
            raise InvalidInput(
                f"the secret {mount.id!r} was not given", f"build with --secret id={mount.id},src=FILE"
            )

    def mount_cache(self, mount: StepMount) -> None:
        """A folder that stays from one build to the next."""
        import fcntl

        if mount.origin:
            raise InvalidInput("a cache mount cannot begin with files of an image", "leave out from= and source=")
        bounds = self.build.options.bounds
        name = f"{bounds.scope} {mount.id}" if bounds is not None else mount.id
        while True:
            folder = self.materials.cache_folder(name, mount.mode, mount.uid, mount.gid)
            if mount.sharing == "shared":
                break
            fd = os.open(self.engine.store.path(f"{folder}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            self.locks.append(fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | (fcntl.LOCK_NB if mount.sharing == "private" else 0))
                break
            except BlockingIOError:
                name += " "  # another one of its own
        self.bind(mount.target, folder, folder=True, read_only=mount.read_only)

    def mount_bind(self, mount: StepMount) -> None:
        """Files of another stage or image, or of the context."""
        from nbhull.runtime.builder import copying
        from nbhull.runtime.builder.materials import lowers

        if mount.origin:
            state = self.stage.origin(mount.origin)
            self.overlay(mount.target, lowers(state.layers), mount.source, read_only=mount.read_only)
            return
        context = self.build.context
        (path,) = context.find(ignore.clean("/" + mount.source))
        is_folder = context.is_folder(path)
        if mount.read_only and not context.excluded and self.build.options.bounds is None:
            root = os.path.realpath(self.build.options.context)
            source = root if path == "." else f"{root}/{path}"
            self.bind(mount.target, source, folder=is_folder, owned=True)
            return
        # what the ignore file leaves out is not to be seen, what is written is not to stay, and a path that may become
        # another one meanwhile is not to be mounted
        copy = f"{self.handed}/{self.count}"
        self.count += 1
        self.engine.catalog.workshop.ask("folder", path=copy, mode=0o755, uid=0, gid=0)
        name = SELF if is_folder else posixpath.basename(path)
        self.materials.send(
            "place",
            copying.stream(context, [Item(path, name)], [], None),
            lowers=[],
            upper=copy,
            work="",
            job=Job("/").to_dict(),
        )
        self.bind(
            mount.target, copy if is_folder else f"{copy}/{name}", folder=is_folder, read_only=mount.read_only
        )

    # While it runs

    def attend(self, step: Step) -> None:
        """Run the command, and pass on what it writes. Raises ProcessFailed, Cancelled."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        spec = ProcessSpec(self.run.argv, self.env, self.run.folder, self.run.user or None)
        try:
            process = self.engine.spawn(self.id, spec, (null, write_end, write_end))
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
            os.close(null)
        with process, open(read_end, "rb", buffering=0) as output:
            status = self.follow(process, output.fileno(), step)
        if status:
            ended = f"ended with status {status}" if status > 0 else f"was ended by {signal.Signals(-status).name}"
            raise ProcessFailed(
                f"RUN {shortened(self.run.argv)} {ended}",
                f"what it wrote last: {step.lines[-1].strip()}" if step.lines else "it wrote nothing",
            )

    def follow(self, process: Process, output: int, step: Step) -> int:
        """Pass on output until the process has ended; its exit status."""
        import codecs

        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        interest = select.poll()
        for fd in (output, process.fileno(), self.build.wake):
            interest.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in interest.poll()}
            if self.build.wake in ready:
                raise Cancelled
            if output in ready:
                data = os.read(output, CHUNK)
                if data:
                    step.output(decoder.decode(data))
                    continue
                interest.unregister(output)
            if process.fileno() in ready or (status := process.poll()) is not None:
                status = process.wait()
                os.set_blocking(output, False)
                try:
                    while data := os.read(output, CHUNK):
                        step.output(decoder.decode(data))
                except BlockingIOError:
                    pass  # something that it started holds the other end
                return status

    # Afterwards

    def keep(self) -> str:
        """The layer of what changed."""
        self.engine.stop(self.id, 0)
        return self.materials.adopt(f"{generations.folder(self.id, generations.FIRST)}/root")

    def clean_up(self) -> None:
        """Take away the container and what was handed to it."""
        for fd in self.locks:
            os.close(fd)
        if self.exists:
            self.engine.remove(self.id, force=True)
        else:
            self.engine.catalog.workshop.ask("delete", path=f"containers/{self.id}")


def shortened(argv: tuple[str, ...]) -> str:
    """A command for a message."""
    text = " ".join(argv[2:] if argv[:2] == ("/bin/sh", "-c") else argv)
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:77]}..."
