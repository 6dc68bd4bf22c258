"""The steps of one stage, one after the other: looked up, else done."""

from __future__ import annotations

import posixpath
import time

from nbhull.runtime.builder import copying, ignore, syntax
from nbhull.runtime.builder.build import NeedsWork
from nbhull.runtime.builder.cache import key_of
from nbhull.runtime.builder.copying import Job, Text
from nbhull.runtime.builder.expansion import Rules, expand
from nbhull.runtime.builder.instructions import Command, command
from nbhull.runtime.builder.mounts import BIND, CACHE, SECRET, TMPFS, StepMount, parse_mount
from nbhull.runtime.builder.scope import StageScope
from nbhull.runtime.builder.state import PATH
from nbhull.runtime.errors import Denied, HullError, InvalidInput
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from nbhull.runtime.builder.adding import Archive, Download
    from nbhull.runtime.builder.build import Build
    from nbhull.runtime.builder.instructions import Stage
    from nbhull.runtime.builder.progress import Step
    from nbhull.runtime.builder.state import State
    from nbhull.runtime.model import Network

PIPES = "/dev/pipes"
"""where the script of a heredoc that begins with `#!` is found"""
NETWORKS = ("default", "none", "host")


class RunStep(Record):
    """All that a RUN needs."""

    argv: tuple[str, ...]
    env: dict[str, str]
    folder: str
    user: str
    network: Network | None
    mounts: tuple[StepMount, ...]
    scripts: tuple[tuple[str, bytes], ...] = ()
    """path and content of files for this step alone"""


class StageBuild:
    """One stage being built."""

    def __init__(self, build: Build, stage: Stage) -> None:
        self.build = build
        self.stage = stage
        self.place = build.file_name

    def run(self) -> State:
        """All steps; what the stage has come to. Raises what went wrong, with the place."""
        build = self.build
        self.line = self.stage.line
        try:
            self.state = build.base(self.stage)
            if "PATH" not in self.state.env:
                self.state.set_env({"PATH": PATH, **self.state.env})
            triggers = self.triggers()
        except HullError as error:
            raise self.located(error) from None
        self.scope = StageScope(build.scope, self.state.env)
        commands = [*triggers, *self.stage.commands]
        prefix = "" if len(build.program.stages) == 1 else f"{self.stage.name} "
        self.tell(f"{prefix}1/{len(commands) + 1}", self.stage.text)
        for number, one in enumerate(commands, 2):
            build.check()
            self.label = f"{prefix}{number}/{len(commands) + 1}"
            self.line = one.line or self.stage.line
            try:
                self.step(one)
            except HullError as error:
                raise self.located(error) from None
        return self.state

    def located(self, error: HullError) -> HullError:
        """The error with its place before it."""
        if not error.message.startswith(f"{self.place}:"):
            error.message = f"{self.place}:{self.line}: {error.message}"
        return error

    def triggers(self) -> list[Command]:
        """The instructions that the base's ONBUILD had waiting."""
        waiting = self.state.config.pop("OnBuild", None) or []
        found = []
        for text in waiting:
            parsed = syntax.parse(text.encode(errors="surrogateescape"), "ONBUILD")
            found += [command(instruction).but(line=0) for instruction in parsed.instructions]
        return found

    def tell(self, label: str, text: str) -> None:
        """A step that takes no time."""
        if self.build.may_work:
            self.build.progress.step(label, text).end()
        else:
            self.build.told.append((label, text, ""))

    def step(self, one: Command) -> None:
        """Do, or look up, one instruction."""
        if one.name == "run":
            self.do_run(one)
        elif one.name in ("copy", "add"):
            self.do_copy(one)
        else:
            text = self.state.apply(one, self.scope)
            if one.name == "workdir":
                self.do_workdir(one, text)
            else:
                self.tell(self.label, one.text)
                self.state.remember(text, self.build.timestamp(time.time()))

    def files_step(self, one: Command, key: str, text: str, work: Callable[[Step], str]) -> None:
        """A step that changes files: `work` does it and gives the id of the layer, empty if nothing changed."""
        build = self.build
        done = build.cache.find(key)
        if done is None and not build.may_work:
            raise NeedsWork
        if done is not None:
            if build.may_work:
                build.progress.step(self.label, one.text).end("cached")
            else:
                build.told.append((self.label, one.text, "cached"))
        else:
            with build.exclusive(key):
                done = build.cache.find(key)
                with build.progress.step(self.label, one.text) as step:
                    done = done or build.cache.add(key, work(step))
        self.state.key = key
        build.steps[key] = done
        if done.layer:
            self.state.layers.insert(0, done.layer)
        self.state.remember(text, build.timestamp(done.created), empty=not done.layer)

    # WORKDIR

    def do_workdir(self, one: Command, text: str) -> None:
        """The folder is made where it is missing, for the user who will work in it."""
        epoch = self.build.options.epoch
        job = Job(self.state.folder, owner=self.state.user or None, epoch=epoch)
        key = key_of("workdir", self.state.key, job.to_dict())
        layers = list(self.state.layers)
        self.files_step(one, key, text, lambda step: self.build.materials.place(layers, job, iter(())))

    # COPY and ADD

    def do_copy(self, one: Command) -> None:
        """Files of the context, of another stage or image, from elsewhere, or written in the Containerfile."""
        build, flags = self.build, one.flags
        args = [self.scope.expand(arg) if syntax.heredoc(arg) is None else arg for arg in one.args]
        texts = self.texts(one)
        sources = tuple(arg for arg in args[:-1] if not (one.heredocs and syntax.heredoc(arg) is not None))
        if any("\0" in arg for arg in args):
            raise InvalidInput("a path has a NUL byte in it", "leave it out")
        target, is_folder = copying.destination(args[-1], self.state.folder)
        job = Job(
            target,
            owner=self.scope.expand(flags["chown"]) if flags["chown"] else None,
            mode=copying.parse_mode(self.scope.expand(flags["chmod"])) if flags["chmod"] else None,
            epoch=build.options.epoch,
        )
        excluded = tuple(self.scope.expand(pattern) for pattern in flags["exclude"])
        text = f"{one.name.upper()} {' '.join(args)}"
        if flags.get("from"):
            self.copy_from(one, job, sources, is_folder, excluded, text)
            return
        plain = sources
        extra: list[Archive | Download] = []
        if one.name == "add":
            from nbhull.runtime.builder import adding

            plain, extra = adding.sort(self, one, sources)
        parents = bool(flags.get("parents"))
        left_out = ignore.from_patterns(excluded) if excluded else None
        try:
            chosen = copying.items(build.context, plain, parents)
        except HullError as error:
            if one.name == "copy" and any(source.startswith(("http://", "https://")) for source in sources):
                error.hint = "COPY takes files of the context; ADD takes a URL"
            raise
        job = self.with_target(job, is_folder, parents, [i.name for i in chosen], [t.name for t in texts], extra)
        payload = [copying.digest(build.context, chosen, texts, left_out), [more.key for more in extra]]
        key = key_of("copy", self.files_key(one), job.to_dict(), payload)
        layers = self.under(one)

        def work(step: Step) -> str:
            streams: list[tuple[Job, Iterable[bytes]]] = []
            if chosen or texts:
                streams.append((job, copying.stream(build.context, chosen, texts, left_out)))
            streams += [(more.job(job), more.stream()) for more in extra]
            return build.materials.place_all(layers, streams)

        try:
            self.files_step(one, key, text, work)
        finally:
            for more in extra:
                more.close()

    def files_key(self, one: Command) -> str:
        """What a copy depends on besides itself: all files before it, unless it is linked in on its own."""
        return "" if one.flags["link"] else self.state.key

    def under(self, one: Command) -> list[str]:
        """The layers that a copy sees: none with --link, whose destination is then made anew."""
        return [] if one.flags["link"] else list(self.state.layers)

    def with_target(
        self, job: Job, is_folder: bool, parents: bool, names: list[str], texts: list[str], extra: list[Any]
    ) -> Job:
        """The job with what the destination is. Raises InvalidInput where several sources go to what is no folder."""
        count = len(names) + len(texts) + len(extra)
        if is_folder or parents or (count == 1 and names == [copying.SELF]):
            return job
        if count > 1:
            raise InvalidInput(
                f"{count} sources go to {job.target!r}, which does not end in '/'", f"write it as {job.target}/"
            )
        return job.but(into=False, name=(*names, *texts, *(one.name for one in extra))[0])

    def texts(self, one: Command) -> list[Text]:
        """The heredocs among the sources, in their order, variables in place unless the name was quoted."""
        rules = Rules(self.build.program.escape, quotes=False)
        found = []
        for document in one.heredocs:
            content = document.text()
            if document.expands:
                content = expand(content, self.scope.variables(), rules)
            found.append(Text(posixpath.basename(document.name), content.encode(errors="surrogateescape")))
        return found

    def copy_from(
        self, one: Command, job: Job, sources: tuple[str, ...], is_folder: bool, excluded: tuple[str, ...], text: str
    ) -> None:
        """Files of another stage or image."""
        build = self.build
        state = self.origin(self.scope.expand(one.flags["from"]))
        parents = bool(one.flags["parents"])
        key = key_of(
            "copy-from", self.files_key(one), state.key, sources, job.to_dict(), is_folder, excluded, parents
        )
        layers = self.under(one)
        texts = self.texts(one)
        if texts:
            raise InvalidInput("COPY --from has a heredoc", "write it by a COPY of its own")
        if one.flags["link"]:
            job = job.but(into=job.into)
        self.files_step(
            one,
            key,
            text,
            lambda step: build.materials.pick(layers, job, state.layers, sources, is_folder, excluded, parents),
        )

    def origin(self, name: str) -> State:
        """The stage, or image, that something is taken from."""
        earlier = self.build.find_stage(name, self.stage.index)
        if earlier is not None:
            return self.build.state_of(earlier)
        return self.build.image_state(name)

    # RUN

    def do_run(self, one: Command) -> None:
        """Run a command in a container of its own."""
        build = self.build
        if one.flags["security"] not in (None, "sandbox"):
            raise InvalidInput(f"--security={one.flags['security']} is not given to builds", "leave it out")
        if one.flags["device"]:
            raise InvalidInput("--device is not given to builds", "leave it out")
        name = one.flags["network"] or "default"
        if name not in NETWORKS:
            raise InvalidInput(f"there is no network {name!r} for RUN", f"one of: {', '.join(NETWORKS)}")
        if name == "host" and build.options.network != "host":
            raise Denied("RUN --network=host asks for the host's network", "build with --network host to give it")
        network: Network | None = "none" if name == "none" else "host" if name == "host" else build.options.network
        argv, scripts = self.run_argv(one)
        mounts = tuple(parse_mount(text, self.state.folder, self.scope.expand) for text in one.flags["mount"])
        run = RunStep(
            tuple(argv),
            self.scope.variables(),
            self.state.folder,
            self.state.user,
            network,
            mounts,
            scripts,
        )
        if any("\0" in text for text in (*argv, *run.env, *run.env.values())):
            raise InvalidInput("the command, or a variable, has a NUL byte in it", "leave it out")
        description = [
            argv,
            run.env,
            run.folder,
            run.user,
            run.network,
            [self.mount_key(mount) for mount in mounts],
            [(path, content.hex()) for path, content in scripts],
        ]
        apart = [] if build.options.bounds is None else [build.options.bounds.scope]
        key = key_of("run", self.state.key, description, build.options.epoch, *apart)
        shown = {name: value for name, value in self.scope.args.items() if name not in self.scope.env}
        prefix = f"|{len(shown)} {' '.join(f'{k}={v}' for k, v in sorted(shown.items()))} " if shown else ""
        text = f"RUN {prefix}{' '.join(argv)}"
        layers = list(self.state.layers)
        self.files_step(one, key, text, lambda step: self.execute(run, layers, step))

    def execute(self, run: RunStep, layers: list[str], step: Step) -> str:
        """Run it; the layer of what it changed."""
        from nbhull.runtime.builder.running import execute

        return execute(self, run, layers, step)

    def run_argv(self, one: Command) -> tuple[list[str], tuple[tuple[str, bytes], ...]]:
        """The command of a RUN, heredocs in it: one heredoc alone is the script itself, else the shell reads them."""
        if not one.heredocs:
            return self.state.argv(one), ()
        first = one.heredocs[0]
        if syntax.heredoc(one.args[0]) is not None:
            script = first.text()
            if script.startswith("#!"):
                path = f"{PIPES}/{posixpath.basename(first.name)}"
                return [path], ((path, script.encode(errors="surrogateescape")),)
            return [*self.state.shell, script], ()
        documents = "".join(f"\n{document.content}{document.name}" for document in one.heredocs)
        return [*self.state.shell, one.args[0] + documents], ()

    def mount_key(self, mount: StepMount) -> list[Any]:
        """What a mount adds to what a step depends on: of a secret or cache never the content."""
        fields: dict[str, Any] = mount.to_dict()
        if mount.kind == BIND:
            if mount.origin:
                fields["content"] = self.origin(mount.origin).key
            else:
                context = self.build.context
                (path,) = context.find(ignore.clean("/" + mount.source).replace("*", "\\*"))
                fields["content"] = context.digest(path, path).hex()
        elif mount.kind not in (CACHE, SECRET, TMPFS):
            raise InvalidInput(f"a mount of type {mount.kind} is not supported", "leave it out")
        return sorted(fields.items())
