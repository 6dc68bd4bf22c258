"""A build: which stages are needed, in which order they go, and the image that comes of it."""

from __future__ import annotations

import os
import threading
import time

from nbhull.runtime.builder import context as contexts
from nbhull.runtime.builder import instructions, syntax
from nbhull.runtime.builder.cache import Cache, Done, key_of
from nbhull.runtime.builder.instructions import located
from nbhull.runtime.builder.mounts import Secret, parse_mount
from nbhull.runtime.builder.progress import Terminal
from nbhull.runtime.builder.scope import GlobalScope, platform
from nbhull.runtime.builder.state import State
from nbhull.runtime.errors import HullError, InvalidInput, NotFound
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future
    from typing import Any

    from nbhull.runtime.builder.bounds import Bounds
    from nbhull.runtime.builder.instructions import Stage
    from nbhull.runtime.builder.materials import Materials
    from nbhull.runtime.builder.progress import Progress
    from nbhull.runtime.builder.travel import Place
    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import Image, Network

CELL = "cell"
"""what errors call a Containerfile that is a cell: its lines are those of the cell, in which `%%container build` is the
first"""
NOTHING: dict[str, str] = {}
NO_STEPS: dict[str, Done] = {}
"""defaults that nobody changes"""


class Options(Record):
    """What `build` is told."""

    context: str
    """a folder"""
    file: str | None = None
    """the Containerfile; None takes the context's own"""
    tags: tuple[str, ...] = ()
    target: str | None = None
    """the stage to build; None is the last one"""
    arguments: dict[str, str] = NOTHING
    labels: dict[str, str] = NOTHING
    secrets: tuple[Secret, ...] = ()
    cached: bool = True
    """whether steps done before count"""
    pull: bool = False
    """look for newer base images even where there are some"""
    network: Network | None = None
    """of RUN steps; None is the default of every container"""
    host_settings: bool = True
    """hand RUN steps the host's proxies and certificates"""
    progress: str = "auto"
    teller: Progress | None = None
    """who is told how far it is, instead of standard error"""
    bounds: Bounds | None = None
    """of a build for somebody without rights of their own; None for who runs this program"""
    text: str | None = None
    """the Containerfile, where it is a cell of a notebook and no file; `file` is then what errors call it"""
    folder: int | None = None
    """a descriptor of the context, where its path could be made another one's meanwhile; stays the caller's"""
    epoch: int | None = None
    """SOURCE_DATE_EPOCH, seconds: the time of all that the build makes"""
    cache_from: tuple[Place, ...] = ()
    """caches whose steps count (travel)"""
    cache_to: tuple[Place, ...] = ()
    """where this build's steps go"""

    @property
    def travels(self) -> bool:
        """Whether steps come from, or go to, other stores, so that ids of this one tell nothing."""
        return bool(self.cache_from or self.cache_to)


class NeedsWork(Exception):
    """Something was not done before; raised in the first, quick pass alone."""


class Cancelled(Exception):
    """Another stage has failed, or the user has had enough."""


class Result(Record):
    """What a build gives."""

    image: Image
    cached: bool
    """nothing had to be done"""
    warnings: tuple[str, ...] = ()
    steps: dict[str, Done] = NO_STEPS
    """by their keys"""


class Build:
    """One build."""

    def __init__(self, engine: Engine, options: Options, given: dict[str, State] | None = None) -> None:
        """Reads the Containerfile. `given`: what FROM may name besides images. Raises InvalidInput with its line,
        NotFound where there is none."""
        self.given = given or {}
        self.engine = engine
        self.options = options
        if options.text is not None:
            self.file, self.file_name, before = "", options.file or CELL, 0 if options.file else 1
            data = options.text.encode(errors="surrogateescape")
        else:
            self.file, before = contexts.find_file(options.context, options.file), 0
            self.file_name = os.path.basename(self.file) if options.file is None else options.file
            with open(self.file, "rb") as file:
                data = file.read(syntax.LARGEST_FILE + 1)
        self.program = instructions.program(syntax.parse(data, self.file_name, before), self.file_name)
        self.target = self.find_target(options.target)
        try:
            self.scope = GlobalScope(
                options.arguments,
                self.program.arguments,
                self.program.escape,
                self.target.name,
            )
        except InvalidInput as error:
            raise located(error, self.file_name, self.program.arguments[0].line) from None
        memory = engine.store.path("contexts", key_of("context", os.path.realpath(options.context))[:24])
        self.context = contexts.open_context(
            options.context, self.file, memory, options.folder, is_guarded=options.bounds is not None
        )
        self.cache = Cache(engine.store, enabled=options.cached)
        self.progress = options.teller or Terminal(options.progress)
        self.steps: dict[str, Done] = {}
        """those that change files, by their keys"""
        self.may_work = False
        self.told: list[tuple[str, str, str]] = []
        """steps of the quick pass"""
        self.cancelled = threading.Event()
        self.wake = os.eventfd(0, os.EFD_CLOEXEC)
        """readable once the build is cancelled"""
        self.results: dict[int, Future[State]] = {}
        self.quick: dict[int, State] = {}
        self.locks: dict[str, threading.Lock] = {}
        self.lock = threading.Lock()
        self.used_materials: Materials | None = None

    def close(self) -> None:
        """Keep what was learned of the context; idempotent."""
        if self.wake >= 0:
            self.context.close()
            os.close(self.wake)
            self.wake = -1

    @property
    def materials(self) -> Materials:
        """Images and layers, at hand once something needs them."""
        with self.lock:
            if self.used_materials is None:
                from nbhull.runtime.builder.materials import Materials

                self.used_materials = Materials(self.engine, self.options)
            return self.used_materials

    # Stages

    def find_target(self, target: str | None) -> Stage:
        """The stage to build, by name or number. Raises NotFound."""
        stages = self.program.stages
        if target is None:
            return stages[-1]
        found = self.find_stage(target, len(stages))
        if found is None:
            names = ", ".join(stage.name for stage in stages)
            raise NotFound(f"{self.file_name} has no stage {target!r}", f"it has {names}")
        return found

    def find_stage(self, name: str, before: int) -> Stage | None:
        """An earlier stage by name or number."""
        for stage in reversed(self.program.stages[:before]):
            if name.lower() == stage.name or name == str(stage.index):
                return stage
        return None

    def needed(self) -> list[Stage]:
        """The stages that the target is made of, in their order."""
        wanted = {self.target.index}
        for stage in reversed(self.program.stages):
            if stage.index in wanted:
                wanted |= {needed.index for needed in self.needs(stage)}
        return [stage for stage in self.program.stages if stage.index in wanted]

    def needs(self, stage: Stage) -> Iterator[Stage]:
        """The earlier stages that a stage takes something from."""
        names = [self.base_name(stage)]
        for command in stage.commands:
            if command.name == "copy" and command.flags["from"]:
                names.append(command.flags["from"])
            for text in command.flags.get("mount") or () if command.name == "run" else ():
                try:
                    names.append(parse_mount(text, "/", lambda word: word).origin)
                except InvalidInput as error:
                    raise located(error, self.file_name, command.line) from None
        for name in names:
            if name and (found := self.find_stage(name, stage.index)) is not None:
                yield found

    def base_name(self, stage: Stage) -> str:
        """What a stage stands on, arguments in place. Raises InvalidInput."""
        try:
            name = self.scope.expand(stage.base)
            wanted = self.scope.expand(stage.platform)
        except InvalidInput as error:
            raise located(error, self.file_name, stage.line) from None
        own = "/".join(part for part in platform() if part)
        if wanted and wanted not in (own, "/".join(platform()[:2])):
            raise InvalidInput(
                f"{self.file_name}:{stage.line}: this machine is {own} and cannot build for {wanted}",
                "leave --platform out, or build on such a machine",
            )
        if not name:
            raise InvalidInput(
                f"{self.file_name}:{stage.line}: FROM names nothing, since {stage.base!r} is empty",
                "give the argument a default before FROM, or a value with --build-arg",
            )
        return name

    # The whole

    def run(self) -> Result:
        """Build. Raises what went wrong, with the line."""
        started = time.monotonic()
        stages = self.needed()
        cached = True
        try:
            for stage in stages:
                self.quick[stage.index] = self.stage(stage)
            final = self.quick[self.target.index]
            for label, text, how in self.told:
                self.progress.step(label, text).end(how)
        except NeedsWork:
            cached = False
            final = self.work(stages)
        image = self.finish(final)
        warnings = list(self.program.warnings)
        known = {*self.scope.used, *self.scope.proxies(), "SOURCE_DATE_EPOCH"}
        if unused := sorted(self.options.arguments.keys() - known):
            warnings.append(f"no ARG takes the build argument {', '.join(unused)}")
        for warning in warnings:
            self.progress.note(f"warning: {warning}")
        self.progress.note(f"built in {time.monotonic() - started:.1f} s")
        return Result(image, cached, tuple(warnings), self.steps)

    def work(self, stages: list[Stage]) -> State:
        """All stages at the same time, each waiting where it needs another."""
        from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

        self.may_work = True
        self.engine.launcher()  # before there are threads, so that it can be a fork of this process
        # within bounds one RUN step at a time, so that each may have all that they have together
        width = len(stages) if self.options.bounds is None else 1
        with self.engine.catalog.making(), ThreadPoolExecutor(width, "nbhull-build") as pool:
            try:
                with self.lock:
                    self.results = {stage.index: pool.submit(self.stage, stage) for stage in stages}
                futures = list(self.results.values())
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                if any(f.done() and f.exception() for f in self.results.values()) or not all(
                    f.done() for f in self.results.values()
                ):
                    self.cancel()
        failures = [error for future in futures if (error := future.exception()) is not None]
        real = [error for error in failures if not isinstance(error, Cancelled)]
        if real:
            raise real[0]
        return self.results[self.target.index].result()

    def cancel(self) -> None:
        """Have all stages end."""
        self.cancelled.set()
        os.eventfd_write(self.wake, 1)

    def check(self) -> None:
        """Raise Cancelled if the build has been given up."""
        if self.cancelled.is_set():
            raise Cancelled

    def state_of(self, stage: Stage) -> State:
        """What another stage has come to, waiting for it."""
        if not self.may_work:
            return self.quick[stage.index]
        with self.lock:
            future = self.results[stage.index]
        try:
            return future.result()
        except (HullError, Cancelled):
            raise Cancelled from None  # told by that stage

    def exclusive(self, key: str) -> threading.Lock:
        """A lock for a step, so that two stages do not do the same one."""
        with self.lock:
            return self.locks.setdefault(key, threading.Lock())

    def stage(self, stage: Stage) -> State:
        """Do, or look up, all steps of a stage."""
        from nbhull.runtime.builder.stage import StageBuild

        return StageBuild(self, stage).run()

    def base(self, stage: Stage) -> State:
        """What a stage begins with."""
        name = self.base_name(stage)
        if (earlier := self.find_stage(name, stage.index)) is not None:
            before = self.state_of(earlier)
            return State(before.config, before.layers, before.key, before.history, before.author)
        from nbhull.runtime.builder import bases

        if name.lower() == bases.SCRATCH:
            bases.check(self.engine, bases.SCRATCH, self.options)
            return State({}, [], key_of("scratch"))
        return self.image_state(name)

    def image_state(self, name: str) -> State:
        """The state that an image is. Raises NeedsWork where it has to be got first."""
        from nbhull.runtime.builder import bases

        if name in self.given:
            state = self.given[name]
            return State(state.config, state.layers, state.key, state.history, state.author)
        if bases.path_of(name):
            bases.check(self.engine, name, self.options)
        found = bases.find(self.engine, name, self.options)
        if found is None:
            if not self.may_work:
                raise NeedsWork
            with self.exclusive(f"image {name}"):
                found = bases.find(self.engine, name, self.options) or bases.get(self, name)
        if not bases.path_of(name):
            bases.check(self.engine, name, self.options)
        return found

    def finish(self, state: State) -> Image:
        """The image of the last state, the same one as before if it is made of the same."""
        if self.options.labels:
            state.config["Labels"] = {**(state.config.get("Labels") or {}), **self.options.labels}
            text = " ".join(f"{name}={value}" for name, value in self.options.labels.items())
            state.remember(f"LABEL {text}", self.timestamp(time.time()))
        if any(place.kind == "inline" for place in self.options.cache_to):
            from nbhull.runtime.builder import travel

            carried = {travel.LABEL: travel.label(self.steps, list(reversed(state.layers)))}
            state.config["Labels"] = {**(state.config.get("Labels") or {}), **carried}
        lines = [entry.get("created_by", "") for entry in state.history]
        key = key_of("image", state.key, state.layers, state.config, lines, state.author, self.options.epoch)
        from nbhull.runtime.builder import bases

        known = self.cache.find_image(key)
        if known is not None:
            return bases.retag(self.engine, known, self.options.tags)
        system, architecture, variant = platform()
        document: dict[str, Any] = {
            "created": self.timestamp(time.time()),
            **({"author": state.author} if state.author else {}),
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "os": system,
            "config": {name: value for name, value in state.config.items() if value not in (None, {}, [], "")},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": state.history,
        }
        image = self.materials.register(document, state.layers, self.options.tags)
        self.cache.add_image(key, image.id)
        return image

    def timestamp(self, seconds: float) -> str:
        """A time as configurations have it; SOURCE_DATE_EPOCH in its place where there is one."""
        epoch = self.options.epoch
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds if epoch is None else epoch))
