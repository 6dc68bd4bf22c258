"""`%%container run`: the cell goes to another container, and what it writes comes back while it runs."""

from __future__ import annotations

import base64
import codecs
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nbhull.kernel.cells.running import cell_in, run_cell, run_in
from nbhull.kernel.rpc import connect, converse
from nbhull.kernel.streams import Stream
from nbhull.magics.inputs import CELL, REFUSED, Other, Python, R, Shell
from nbhull.magics.progress import Notes, shown_in
from nbhull.runtime.errors import HullError, InvalidInput, ProcessFailed
from nbhull.runtime.limits import from_values
from nbhull.runtime.model import ContainerSpec, Mount
from nbhull.runtime.verbs.containers import CONFINING, container_spec, process_spec

HINTS = {
    126: "a program could not be executed: is it made for this machine, and executable?",
    127: "a program was not found: it may be missing in the image",
}
"""by exit status, as shells have them"""


class CellInterrupted(KeyboardInterrupt):
    """What a cell had done elsewhere was interrupted, and is gone. Shown as one line."""

    def _render_traceback_(self) -> list[str]:
        """Called by IPython in place of formatting a traceback."""
        return [f"nbhull: {self}"]


def run(shell: Any, values: dict[str, Any], body: str | None, control: str | None) -> None:
    """Run a cell, or without one the command of the line; its variables are the shell's afterwards. Raises HullError,
    also for an exit status other than 0, and CellInterrupted."""
    interpreter = interpreter_of(values, shell.user_ns, body)
    params = request(values, interpreter, body)
    try:
        with shown_in(shell) as notes, output_of(notes) as output, interruptible():
            result = ask(control, params, values, output.hear)
    except KeyboardInterrupt:
        raise CellInterrupted("the cell was interrupted, and its container is gone") from None
    take_back(shell.user_ns, interpreter, result["files"])
    tell_end(values["image"], result["status"], [(message, hint) for message, hint in result["said"]])


def interpreter_of(values: Mapping[str, Any], variables: Mapping[str, Any], body: str | None) -> Python | None:
    """What the cell is for; None for a line without a cell. Raises InvalidInput."""
    chosen = [name for name in ("python", "r", "interpreter") if values[name]]
    if body is None:
        for name in (*chosen, *(["variable"] if values["variable"] else [])):
            raise InvalidInput(f"--{name} needs a cell", "write %%container run, and the code in the lines below")
        return None
    if len(chosen) > 1:
        raise InvalidInput(f"--{chosen[0]} and --{chosen[1]} exclude each other", "leave one of them out")
    names = tuple(dict.fromkeys(values["variable"]))
    given = {name: variables[name] for name in names if name in variables}
    if values["interpreter"]:
        return Other(values["interpreter"], names, given)
    return {"python": Python, "r": R}.get("".join(chosen), Shell)(names, given)


def request(values: Mapping[str, Any], interpreter: Python | None, body: str | None) -> dict[str, Any]:
    """What is asked for, as plain data (`kernel.cells.running.Cell`)."""
    params = {
        "image": values["image"],
        "pull": values["pull"],
        "env": dict(pair for pair in values["env"] if pair is not None),
        "cwd": values["workdir"],
        "user": values["user"],
        "with_folder": not values["no_folder"],
        "settings": settings(values),
    }
    if interpreter is None:
        return params | {"command": list(values["command"]), "entrypoint": values["entrypoint"]}
    if values["entrypoint"] is not None:
        raise InvalidInput("--entrypoint is for commands, not for cells", "choose what runs the cell by --interpreter")
    names = interpreter.names
    return params | {
        "command": [*interpreter.command, *values["command"]],
        "entrypoint": "",
        "env": {**interpreter.env(), **params["env"]},
        "files": {**interpreter.files(), CELL: body},
        "wanted": [*names, *(f"{name}{REFUSED}" for name in names)],
    }


def settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """The container's settings, by their names in kernelspecs; those that no kernel gives its cells are there, too, so
    that they are refused and not lost."""
    asked: dict[str, Any] = from_values(dict(values)).given()
    asked |= {key: True for key in ("dns", *CONFINING) if key != "user" and values[key]}
    if values["network"]:
        asked["network"] = values["network"]
    if values["cap_drop"]:
        asked["cap_drop"] = list(values["cap_drop"])
    if values["volume"]:
        asked["mounts"] = [mount.to_dict() for mount in values["volume"]]
    if values["no_host_settings"]:
        asked["host_settings"] = False
    return asked


def ask(
    control: str | None, params: dict[str, Any], values: dict[str, Any], hear: Callable[[str, dict[str, Any]], None]
) -> dict[str, Any]:
    """Have it run: by the server that made this kernel's container, or in this process, where there is none."""
    if control is not None:
        result: dict[str, Any] = converse(connect(control), "run", params, hear)
        return result
    from nbhull.kernel.engines import shared_engine
    from nbhull.kernel.folder import working_folder

    engine = shared_engine()
    folder = None if values["no_folder"] else working_folder(os.getcwd())
    if folder is not None and folder.notice:
        print(f"nbhull: {folder.notice.partition(': ')[0]}.", file=sys.stderr)
    mount = folder.mount if folder is not None else None
    spec = spec_on_host(values, mount)
    cell = cell_in(params)
    if mount is not None:
        cell = cell.placed(spec.confinement.user or "0", mount.target)
    return beside(lambda stream: run_cell(engine, spec, cell, stream), hear)


def beside(work: Callable[[Stream], dict[str, Any]], hear: Callable[[str, dict[str, Any]], None]) -> dict[str, Any]:
    """Have something done in a thread of this process, and be told of it as by the server; so it can be interrupted."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs.makefile("rb") as requests:
            requests.readline()
        Stream(theirs, 1).serve(work)

    threading.Thread(target=serve, name="nbhull-cell", daemon=True).start()
    result: dict[str, Any] = converse(ours, "work", {}, hear)
    return result


def execute(values: dict[str, Any]) -> None:
    """`%container exec`, in a kernel that runs in no container. Raises HullError, also for an exit status other than 0,
    and CellInterrupted."""
    from nbhull.kernel.engines import shared_engine

    engine, absent = shared_engine(), {"interactive": False, "tty": False}
    container = engine.container(values["container"])
    spec = process_spec(values | absent, values["command"])
    try:
        with output_of(None) as output, interruptible():
            result = beside(lambda stream: run_in(engine, container.id, spec, stream), output.hear)
    except KeyboardInterrupt:
        raise CellInterrupted("the command was interrupted, and has ended") from None
    if status := result["status"]:
        raise ProcessFailed(
            f"the command ended with status {status} in the container {container.name}",
            HINTS.get(status, "what it wrote is above"),
        )


def spec_on_host(values: dict[str, Any], folder: Mount | None) -> ContainerSpec:
    """The container for a cell of a kernel that runs in none; `folder` is the notebook's."""
    from nbhull.kernel.folder import certificate_mounts

    absent = {"name": None, "hostname": None, "publish": (), "add_host": (), "rm": True}
    spec = container_spec(values | absent)
    mounts = [*([folder] if folder else []), *certificate_mounts(os.environ), *spec.mounts]
    return spec.but(mounts=tuple({mount.target: mount for mount in mounts}.values()))


class Output:
    """What is told of a cell while it runs, on this process's own standard output and error."""

    def __init__(self, notes: Notes | None) -> None:
        """`notes`: show the pull of its image; None says on standard error what is here."""
        self.notes = notes
        decoder = codecs.getincrementaldecoder("utf-8")
        self.decoders = {"stdout": decoder("replace"), "stderr": decoder("replace")}

    def hear(self, method: str, params: dict[str, Any]) -> None:
        """Called with each notice."""
        if method == "output":
            self.write(params["stream"], base64.b64decode(params["data"]))
        elif method == "notice":
            print(f"nbhull: {params['text']}", file=sys.stderr)
        elif self.notes is not None:
            self.notes.hear(method, params)
        elif method == "progress" and params.get("outcome"):
            print(f"nbhull: {params['part']}: {params['outcome']}", file=sys.stderr)

    def write(self, name: str, data: bytes, final: bool = False) -> None:
        """Characters may be cut in two between pieces."""
        if text := self.decoders[name].decode(data, final):
            file = sys.stdout if name == "stdout" else sys.stderr
            file.write(text)
            file.flush()

    def close(self) -> None:
        """Nothing more comes."""
        for name in self.decoders:
            self.write(name, b"", final=True)


@contextmanager
def output_of(notes: Notes | None) -> Iterator[Output]:
    """Hand on what a cell writes while the block runs."""
    output = Output(notes)
    try:
        yield output
    finally:
        output.close()


def take_back(space: dict[str, Any], interpreter: Python | None, files: Mapping[str, str]) -> None:
    """Set the variables that the cell has changed. Raises InvalidInput for one that cannot be read, when all others are
    set."""
    failures: list[HullError] = []
    for name in interpreter.names if interpreter is not None else ():
        assert interpreter is not None
        if name in files:
            if files[name] != interpreter.given.get(name):
                try:
                    space[name] = interpreter.read(name, files[name])
                except InvalidInput as error:
                    failures.append(error)
        elif f"{name}{REFUSED}" in files:
            reason, hint = reason_in(files[f"{name}{REFUSED}"])
            failures.append(InvalidInput(f"the variable {name} was not handed back: {reason}", hint))
        elif name not in space:
            print(f"nbhull: the cell has set no variable {name}", file=sys.stderr)
    if failures:
        raise failures[0]


def reason_in(text: str) -> tuple[str, str]:
    """Why a variable was not handed back, and what helps."""
    try:
        told = json.loads(text)
        return str(told["refused"])[:200], str(told["hint"])[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "the container gave no reason", ""


def tell_end(image: str, status: int, said: list[tuple[str, str]]) -> None:
    """Raise ProcessFailed for a cell that has not ended well; limits that it met are told either way."""
    if status == 0:
        for message, hint in said:
            print(f"nbhull: {message}\n  hint: {hint}", file=sys.stderr)
        return
    if said:
        raise ProcessFailed(*said[0])
    raise ProcessFailed(
        f"the cell ended with status {status} in a container of {image}", HINTS.get(status, "what it wrote is above")
    )


@contextmanager
def interruptible() -> Iterator[None]:
    """Have an interrupt raise KeyboardInterrupt here: in asynchronous cells ipykernel handles it otherwise."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
