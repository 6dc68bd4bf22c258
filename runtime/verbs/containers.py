"""The verbs of containers."""

from __future__ import annotations

from time import time

from nbhull.runtime.errors import HullError, InvalidInput, NotFound
from nbhull.runtime.verbs.results import Exit, Names, Result, container_fields, container_table, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import ContainerSpec


def run(engine: Engine, values: dict[str, Any]) -> Result:
    """`run`: create, start, run one command in the foreground, end the rest of the container.

    A container whose command could not be started is removed: nothing happened in it.
    """
    from nbhull.runtime.verbs.foreground import Signals, Terminal

    with Terminal(values["interactive"], values["tty"]) as terminal, Signals() as signals:
        container = engine.create(container_spec(values))
        keep = False
        try:
            engine.start(container.id)
            command = values["command"] or default_command(engine, container.id)
            spec = process_spec(engine, container.id, values, command)
            signals.collect()
            process = engine.spawn(container.id, spec, terminal.stdio)
            keep = not values["rm"]
            status = terminal.attend(process, signals)
            if keep:
                engine.stop(container.id, timeout=0)
        finally:
            if not keep:
                engine.remove(container.id, force=True)
        # what other processes of the container had written to the terminal before they ended
        terminal.drain()
    return Exit(status)


def execute(engine: Engine, values: dict[str, Any]) -> Result:
    """`exec`: run one command in the foreground, in a container that runs."""
    from nbhull.runtime.verbs.foreground import Signals, Terminal

    container = engine.container(values["container"])
    spec = process_spec(engine, container.id, values, values["command"])
    with Terminal(values["interactive"], values["tty"]) as terminal, Signals() as signals:
        signals.collect()
        process = engine.spawn(container.id, spec, terminal.stdio)
        return Exit(terminal.attend(process, signals))


def ps(engine: Engine, values: dict[str, Any]) -> Result:
    """`ps`: the running containers, or all."""
    found = [c for c in engine.containers() if values["all"] or c.state == "running"]
    if values.get("quiet"):
        return Names([short_id(c.id) for c in found])
    return container_table(found, time())


def stop(engine: Engine, values: dict[str, Any]) -> Result:
    """`stop`: end the processes of containers."""
    return _each(values["container"], lambda ref: engine.stop(ref, values["time"]))


def remove(engine: Engine, values: dict[str, Any]) -> Result:
    """`rm`: delete containers and their files."""
    return _each(values["container"], lambda ref: engine.remove(ref, force=values["force"]))


def info(engine: Engine, values: dict[str, Any]) -> Result:
    """`info`: one container and what it uses now."""
    container = engine.container(values["container"])
    return container_fields(container, engine.usage(container.id), time())


def container_spec(values: dict[str, Any]) -> ContainerSpec:
    """The container that the values of `run` describe."""
    from nbhull.runtime.model import ContainerSpec, Limits

    return ContainerSpec(
        image=values["image"],
        name=values["name"],
        hostname=values["hostname"],
        limits=Limits(values["memory"], values["cpus"], values["pids_limit"]),
        network=values["network"] or "host",
        mounts=values["volume"],
    )


def process_spec(engine: Engine, ref: str, values: dict[str, Any], command: tuple[str, ...]) -> Any:
    """The process that the values of `run` and `exec` describe."""
    from nbhull.runtime.model import ProcessSpec

    env = dict(variable for variable in values["env"] if variable is not None)
    if values["tty"]:
        # what the other end of the terminal understands is known only here
        import os

        env.setdefault("TERM", os.environ.get("TERM", "xterm"))
    user = values["user"]
    return ProcessSpec(
        argv=command,
        env=env,
        cwd=values["workdir"],
        user=None if user is None else numeric_user(engine, ref, user),
        tty=values["tty"],
    )


def default_command(engine: Engine, ref: str) -> tuple[str, ...]:
    """The shell to run where no command is given."""
    return ("/bin/bash",) if "bash" in engine.listdir(ref, "/bin") else ("/bin/sh",)


def numeric_user(engine: Engine, ref: str, text: str) -> str:
    """`uid:gid` from `USER[:GROUP]`, looked up in the container's /etc/passwd and /etc/group.

    As with Docker, the group of a known user is the user's own, that of an unknown number is 0.
    """
    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise InvalidInput(
            f"user {text!r} is not of the form USER[:GROUP]", "write it like 1000, 1000:100 or nobody"
        )
    uid, gid = user, "0"
    for entry in _database(engine, ref, "/etc/passwd"):
        if len(entry) > 3 and (entry[0] == user or entry[2] == user):
            uid, gid = entry[2], entry[3]
            break
    else:
        if not user.isdecimal():
            raise NotFound(f"the container has no user {user!r}", "give its number, such as 1000")
    if colon:
        gid = group
        if not group.isdecimal():
            numbers = [e[2] for e in _database(engine, ref, "/etc/group") if len(e) > 2 and e[0] == group]
            if not numbers:
                raise NotFound(f"the container has no group {group!r}", "give its number, such as 1000")
            gid = numbers[0]
    return f"{uid}:{gid}"


def _database(engine: Engine, ref: str, path: str) -> list[list[str]]:
    try:
        content = engine.read(ref, path)
    except NotFound:
        return []  # an image without the file knows no names, which the caller tells
    return [line.split(":") for line in content.decode("utf-8", "replace").splitlines()]


def _each(refs: tuple[str, ...], act: Callable[[str], None]) -> Names:
    """Act on each of `refs`; one that fails does not keep the others from being done."""
    done: list[str] = []
    failures: list[HullError] = []
    for ref in refs:
        try:
            act(ref)
        except HullError as error:
            failures.append(error)
        else:
            done.append(ref)
    return Names(done, failures)
