"""The run of a cell in a container made for it, which is gone when it ends, however it ends."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from signal import SIGKILL
from typing import Any

from nbhull.kernel.config import parse_environment, parse_image
from nbhull.kernel.streams import AskerGone, Stream, StreamedProgress
from nbhull.runtime import ends
from nbhull.runtime.engine import Engine, Process
from nbhull.runtime.errors import CommandNotFound, HullError, InvalidInput, NotFound
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from nbhull.runtime.verbs.values import parse_pull, parse_user, parse_workdir

FOLDER = "{folder}"
"""in a command and its variables: where the cell's files lie in the container"""
SHELL = "{shell}"
"""as a program: the image's shell"""
OUT = "out"
"""the folder, among the cell's files, for what it hands back"""
LARGEST = 8 << 20
"""bytes of all that a cell is given, and of all that it may hand back"""
MOST_FILES = 200
CHUNK = 1 << 16


@dataclass(frozen=True)
class Cell:
    """What is to be run. `cell_in` makes one of what a kernel sends."""

    image: str
    command: tuple[str, ...]
    entrypoint: str | None = None
    """as for `nbhull run`"""
    pull: str = "missing"
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    user: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    """what lies in its folder, by name"""
    wanted: tuple[str, ...] = ()
    """names of the files that it may leave in OUT"""

    def placed(self, user: str, cwd: str | None) -> Cell:
        """The same, run by `user` in the folder `cwd` where it says nothing else itself."""
        return replace(self, user=self.user or user, cwd=self.cwd or cwd)


def cell_in(params: Mapping[str, Any]) -> Cell:
    """What a request asks for. Raises InvalidInput for anything that is not of the right form."""

    def texts(key: str) -> tuple[str, ...]:
        value = params.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
            raise InvalidInput(f"{key} is not a list of texts", "ask with %container run")
        return tuple(value)

    def text(key: str) -> str | None:
        value = params.get(key)
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise InvalidInput(f"{key} is not a text", "ask with %container run")
        return value

    files, wanted = params.get("files", {}), texts("wanted")
    if not isinstance(files, dict) or not all(isinstance(content, str) for content in files.values()):
        raise InvalidInput("files are not texts by name", "ask with %container run")
    if len(files) + len(wanted) > MOST_FILES:
        raise InvalidInput("there are too many variables", f"hand over at most {MOST_FILES // 2}")
    for name in (*files, *wanted):
        if re.fullmatch(r"\w[\w.]{0,127}", name, re.ASCII) is None or (name == OUT and name in files):
            raise InvalidInput(f"{name[:80]!r} is no name of a variable", "use letters, digits and '_'")
    if sum(map(len, files.values())) > LARGEST:
        raise InvalidInput(
            f"the cell and what it is given are larger than {LARGEST >> 20} MiB",
            "write large data to a file in the notebook's folder, which both see",
        )
    cwd, user = text("cwd"), text("user")
    return Cell(
        image=parse_image(params.get("image")),
        command=texts("command"),
        entrypoint=text("entrypoint"),
        pull=parse_pull(text("pull") or "missing"),
        env=parse_environment(params.get("env", {})),
        cwd=None if cwd is None else parse_workdir(cwd),
        user=None if user is None else parse_user(user),
        files=files,
        wanted=wanted,
    )


def run_cell(
    engine: Engine, spec: ContainerSpec, cell: Cell, stream: Stream, made: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Make the container, run the cell in it, remove the container; gives the exit status (as
    `subprocess.Popen.returncode` has it), the files it hands back, and what is to be said about limits it met.

    What it writes goes to `stream` as it comes; `made` is told the container's id. Raises HullError, and AskerGone when
    nobody waits any longer."""
    engine.provide(cell.image, cell.pull, StreamedProgress(stream))
    container = engine.create(spec)
    result: dict[str, Any] = {}
    try:
        with ended_with_asker(stream), pipes() as (read_ends, write_ends):
            made(container.id)
            started = engine.start(container.id)
            for notice in started.notices:
                stream.notify("notice", text=notice)
            hand_in(started.socket_folder, cell.files)
            process = start(engine, container.id, started.socket_folder, cell, write_ends)
            with process:
                attend(process, read_ends, stream)
                status = process.wait()
            result = {
                "status": status,
                "files": handed_back(engine, container.id, started.socket_folder, cell.wanted),
                "said": said(status, engine.events(container.id), spec),
            }
            engine.stop(container.id, 0)
            drain(read_ends, stream)
    finally:
        with suppress(NotFound):  # its kernel has ended, and with it all that belonged to it
            engine.remove(container.id, force=True)
    return result


def run_in(engine: Engine, ref: str, spec: ProcessSpec, stream: Stream) -> dict[str, Any]:
    """Run a command in a container that runs, which outlives it; gives the exit status. Raises HullError, and AskerGone
    when nobody waits any longer: the command has ended then."""
    with pipes() as (read_ends, write_ends):
        with open(os.devnull, "rb") as null:
            try:
                process = engine.spawn(ref, spec, (null.fileno(), *write_ends))
            finally:
                while write_ends:
                    os.close(write_ends.pop())
        with process:
            try:
                attend(process, read_ends, stream)
            except AskerGone:
                process.signal(SIGKILL)
                process.wait()
                raise
            status = process.wait()
        for descriptor in read_ends:
            os.set_blocking(descriptor, False)  # something that it started may hold the other end
        with suppress(BlockingIOError):
            drain(read_ends, stream)
    return {"status": status}


@contextmanager
def ended_with_asker(stream: Stream) -> Iterator[None]:
    """A container that was removed under the cell's feet is nobody's error, if nobody waits for it."""
    try:
        yield
    except HullError:
        if stream.is_abandoned():
            raise AskerGone from None
        raise


@contextmanager
def pipes() -> Iterator[tuple[dict[int, str], list[int]]]:
    """Pipes for standard output and error: ends to read from with their names, and ends to write to, which whoever
    takes them out of the list closes."""
    read_ends: dict[int, str] = {}
    write_ends: list[int] = []
    try:
        for name in ("stdout", "stderr"):
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            read_ends[read_end] = name
            write_ends.append(write_end)
        yield read_ends, write_ends
    finally:
        for descriptor in (*read_ends, *write_ends):
            os.close(descriptor)


def hand_in(folder: str, files: Mapping[str, str]) -> None:
    """Write a cell's files where its container sees them; no process has run there yet. Whoever it runs as may read
    them, and write to OUT: outside, the folders above are the user's alone."""
    os.chmod(folder, 0o711)
    for name, content in files.items():
        with open(f"{folder}/{name}", "x", encoding="utf-8", errors="surrogatepass") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
    os.mkdir(f"{folder}/{OUT}")
    os.chmod(f"{folder}/{OUT}", 0o777)


def start(engine: Engine, container: str, folder: str, cell: Cell, write_ends: list[int]) -> Process:
    """Start the cell's command. Raises CommandNotFound, and what `spawn` raises."""
    shell = "/bin/bash" if "bash" in engine.listdir(container, "/bin") else "/bin/sh"
    words = [shell if word == SHELL else word.replace(FOLDER, folder) for word in cell.command]
    argv = engine.command(container, words, cell.entrypoint) or (shell,)
    spec = ProcessSpec(
        argv,
        env={name: text.replace(FOLDER, folder) for name, text in cell.env.items()},
        cwd=cell.cwd,
        user=cell.user,
    )
    with open(os.devnull, "rb") as null:
        try:
            return engine.spawn(container, spec, (null.fileno(), *write_ends))
        except CommandNotFound as error:
            raise CommandNotFound(
                f"the image {cell.image} has no program {argv[0]!r}",
                "choose one that it has with --interpreter, or another image",
            ) from error
        finally:
            while write_ends:
                os.close(write_ends.pop())


def attend(process: Process, read_ends: dict[int, str], stream: Stream) -> None:
    """Hand on what the process writes until it has ended. Raises AskerGone."""
    waiter = select.poll()
    waiter.register(process.fileno(), select.POLLIN)
    waiter.register(stream.fileno(), select.POLLRDHUP)
    for descriptor in read_ends:
        waiter.register(descriptor, select.POLLIN)
    while True:
        ready = dict(waiter.poll())
        if stream.fileno() in ready:
            raise AskerGone
        for descriptor in read_ends.keys() & ready.keys():
            if not hand_on(descriptor, read_ends, stream):
                waiter.unregister(descriptor)
        if process.fileno() in ready:
            return


def drain(read_ends: dict[int, str], stream: Stream) -> None:
    """Hand on what is left when all processes have ended."""
    for descriptor in read_ends:
        while hand_on(descriptor, read_ends, stream):
            pass


def hand_on(descriptor: int, read_ends: dict[int, str], stream: Stream) -> bool:
    """Hand one piece on; false at the end."""
    data = os.read(descriptor, CHUNK)
    if data:
        stream.output(read_ends[descriptor], data)
    return bool(data)


def handed_back(engine: Engine, container: str, folder: str, wanted: tuple[str, ...]) -> dict[str, str]:
    """The files that the cell has left, of those that are wanted. Raises InvalidInput if they are too large."""
    files: dict[str, str] = {}
    left = LARGEST
    for name in wanted:
        try:
            data = engine.read(container, f"{folder}/{OUT}/{name}", limit=left)
        except NotFound:
            continue  # it has no such variable
        except InvalidInput as error:
            raise InvalidInput(
                f"what the cell hands back is larger than {LARGEST >> 20} MiB, or no file: {error.message}",
                "write large data to a file in the notebook's folder, which both see",
            ) from error
        left -= len(data)
        files[name] = data.decode("utf-8", "surrogateescape")
    return files


def said(status: int, events: Mapping[str, int], spec: ContainerSpec) -> list[tuple[str, str]]:
    """Why it ended as it did, and which limits were met, as messages with hints."""
    if status < 0:
        return [ends.explain_end(status, events, spec.limits, "the cell", "what it wrote is above")]
    return ends.explain_limits(events, spec.limits)
