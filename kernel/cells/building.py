"""A build that a kernel asks for, within what the kernel itself may have.

Every word of the request is hostile, and so is the context: the kernel may change it while it is read.
"""

from __future__ import annotations

import base64
import binascii
import os
import select
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from nbhull.kernel.config import KernelConfig
from nbhull.kernel.streams import AskerGone, Stream, StreamedProgress
from nbhull.runtime.builder.bounds import Bounds
from nbhull.runtime.builder.build import Build, Cancelled, Options
from nbhull.runtime.builder.cache import Cache, key_of
from nbhull.runtime.builder.inputs import empty
from nbhull.runtime.builder.mounts import Secret
from nbhull.runtime.confinement import Confinement
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Conflict, Denied, InvalidInput, NotFound
from nbhull.runtime.images.reference import local_name
from nbhull.runtime.limits import Limits
from nbhull.runtime.linux.mount import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from nbhull.runtime.model import Image, Mount
from nbhull.runtime.verbs.results import Names, Result, short_id

LONGEST = 4096
"""characters of a name, an argument, a label"""
MOST = 200
"""arguments, labels, secrets or names"""


@dataclass(frozen=True)
class BuildRequest:
    """What is to be built. `request_in` makes one of what a kernel sends."""

    text: str
    """the Containerfile"""
    name: str | None = None
    """what errors call it; None for a cell"""
    context: str | None = None
    """a folder as the kernel sees it; None for no files"""
    tags: tuple[str, ...] = ()
    target: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    cached: bool = True
    pull: bool = False
    epoch: int | None = None


def request_in(params: Mapping[str, Any]) -> BuildRequest:
    """What a request asks for. Raises InvalidInput for anything that is not of the right form."""

    def wrong(key: str) -> InvalidInput:
        return InvalidInput(f"{key} of the build is not of the right form", "ask with %%container build")

    def text(key: str, longest: int = LONGEST) -> str | None:
        value = params.get(key)
        if value is not None and (not isinstance(value, str) or "\0" in value or len(value) > longest):
            raise wrong(key)
        return value

    def flag(key: str, default: bool) -> bool:
        value = params.get(key, default)
        if not isinstance(value, bool):
            raise wrong(key)
        return value

    def table(key: str, longest: int) -> dict[str, str]:
        value = params.get(key, {})
        if not isinstance(value, dict) or len(value) > MOST:
            raise wrong(key)
        for one in value.values():
            if not isinstance(one, str) or len(one) > longest or "\0" in one:
                raise wrong(key)
        return value

    containerfile, tags, epoch = text("text", 1 << 20), params.get("tags", []), params.get("epoch")
    if containerfile is None:
        raise wrong("text")
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags) or len(tags) > MOST:
        raise wrong("tags")
    if epoch is not None and (type(epoch) is not int or not 0 <= epoch < 10**12):
        raise wrong("epoch")
    try:
        secrets = {name: base64.b64decode(value, validate=True) for name, value in table("secrets", 1 << 20).items()}
    except (binascii.Error, ValueError) as error:
        raise wrong("secrets") from error
    return BuildRequest(
        text=containerfile,
        name=text("name"),
        context=text("context"),
        tags=tuple(local_name(tag) for tag in tags),
        target=text("target"),
        arguments=table("arguments", LONGEST),
        labels=table("labels", LONGEST),
        secrets=secrets,
        cached=flag("cached", True),
        pull=flag("pull", False),
        epoch=epoch,
    )


class Ongoing:
    """A build that is under way, for who may have to end it. Thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.build: Build | None = None
        self.is_ended = False
        self.done = threading.Event()

    def begin(self, build: Build) -> None:
        """It begins. Raises Conflict if it was ended before."""
        with self.lock:
            if self.is_ended:
                raise Conflict("the kernel was stopped", "start it again")
            self.build = build

    def end(self) -> None:
        """Have it end, without waiting for it. Idempotent."""
        with self.lock:
            self.is_ended = True
            if self.build is not None:
                self.build.cancel()

    def forget(self) -> None:
        """It has come to its end."""
        with self.lock:
            self.build = None


def build(
    engine: Engine,
    request: BuildRequest,
    bounds: Bounds,
    folders: Sequence[Mount],
    config: KernelConfig,
    stream: Stream,
    ongoing: Ongoing,
) -> Result:
    """Build within `bounds`, with files of `folders` alone, and tell `stream` how far it is. Raises HullError, and
    AskerGone when nobody waits any longer."""
    for name in request.tags:
        check_free(engine, name, bounds.scope)
    with context_of(engine, request.context, folders) as (path, fd):
        options = Options(
            context=path,
            folder=fd,
            text=request.text,
            file=request.name,
            target=request.target,
            arguments=dict(request.arguments),
            labels=dict(request.labels),
            secrets=tuple(Secret(name, value=value) for name, value in request.secrets.items()),
            cached=request.cached,
            pull=request.pull,
            network=config.network,
            host_settings=config.host_settings,
            epoch=request.epoch,
            teller=StreamedProgress(stream),
            bounds=bounds,
        )
        one = Build(engine, options)
        try:
            with ended_with_asker(stream, ongoing):
                ongoing.begin(one)
                image = one.run().image
        except Cancelled:
            if stream.is_abandoned():
                raise AskerGone from None
            raise Conflict("the kernel was stopped", "start it again") from None
        finally:
            ongoing.forget()
            one.close()
    give_names(engine, image, request.tags, bounds.scope)
    return Names([request.tags[0] if request.tags else short_id(image.id)])


@contextmanager
def ended_with_asker(stream: Stream, ongoing: Ongoing) -> Iterator[None]:
    """End a build when who asked for it waits no longer, though it writes nothing meanwhile."""
    done = os.eventfd(0, os.EFD_CLOEXEC)

    def watch() -> None:
        waiter = select.poll()
        waiter.register(stream.fileno(), select.POLLRDHUP)
        waiter.register(done, select.POLLIN)
        if stream.fileno() in dict(waiter.poll()):
            ongoing.end()

    watcher = threading.Thread(target=watch, name="nbhull-asker", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        os.eventfd_write(done, 1)
        watcher.join()
        os.close(done)


@contextmanager
def context_of(engine: Engine, path: str | None, folders: Sequence[Mount]) -> Iterator[tuple[str, int]]:
    """The name and a descriptor of a context. Raises Denied for one outside of `folders`, NotFound."""
    with ExitStack() as stack:
        if path is None:
            folder, _ = stack.enter_context(empty(engine))
            fd, path = os.open(folder, os.O_RDONLY | os.O_DIRECTORY), "no context"
        else:
            fd = open_within(folders, path)
        stack.callback(os.close, fd)
        yield path, fd


def open_within(folders: Sequence[Mount], path: str) -> int:
    """A descriptor of a folder that a kernel names as it sees it. Raises Denied for one that it was not handed,
    NotFound."""
    for mount in sorted(folders, key=lambda mount: len(mount.target), reverse=True):
        if path == mount.target or path.startswith(mount.target.rstrip("/") + "/"):
            break
    else:
        known = ", ".join(mount.target for mount in folders) or "none"
        raise Denied(
            f"the context {path[:200]!r} is in none of the folders that the kernel was given",
            f"it has: {known}; move the files there, or build with --no-context",
        )
    try:
        top = os.open(mount.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFound(f"the folder {mount.target!r} is gone: {error.strerror}", "restart the kernel") from error
    try:
        below = path[len(mount.target) :].strip("/") or "."
        return openat2(top, below, os.O_RDONLY | os.O_DIRECTORY, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        raise NotFound(
            f"the context {path[:200]!r} cannot be opened: {error.strerror}",
            "give a folder; links that lead out of the kernel's folders are not followed",
        ) from error
    finally:
        os.close(top)


def of_steps(confinement: Confinement) -> Confinement:
    """What RUN steps may do, of a kernel that may do so much: nothing that is beside the usual, since what they make
    lasts; what is taken from the kernel is taken from them, too."""
    return Confinement(
        cap_drop=confinement.cap_drop,
        seccomp="" if confinement.seccomp == "unconfined" else confinement.seccomp,
        ulimits=confinement.ulimits,
    )


def bounds_of(name: str, limits: Limits, config: KernelConfig) -> Bounds:
    """The bounds of a kernel's builds; `name`: what tells its images and caches from those of others."""
    scope = key_of("built for", name)
    return Bounds(scope, limits, of_steps(config.confinement), may_download=config.network == "host")


# -- names -----------------------------------------------------------------------------------------


def key_of_name(scope: str, name: str) -> str:
    """Under which the index remembers the image that was built under a name."""
    return key_of("built name", scope, name)


def check_free(engine: Engine, name: str, scope: str) -> None:
    """Raise Conflict if something has that name but what was built for the same `scope` before."""
    try:
        taken = engine.store.find_image(name)["id"]
    except NotFound:
        return
    if Cache(engine.store).find_image(key_of_name(scope, name)) != taken:
        raise Conflict(f"the image name {name!r} is in use, by an image that was not built here", "choose another name")


def give_names(engine: Engine, image: Image, names: Sequence[str], scope: str) -> None:
    """Name an image that was built, and remember it. Raises Conflict if something else has a name meanwhile."""
    cache = Cache(engine.store)
    for name in names:
        with engine.store.transaction():
            check_free(engine, name, scope)
            engine.store.set_tag(name, image.id)
            cache.add_image(key_of_name(scope, name), image.id)
