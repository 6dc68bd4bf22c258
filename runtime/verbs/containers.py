"""The verbs of containers."""

from __future__ import annotations

import sys
from time import time

from nbhull.runtime.errors import HullError
from nbhull.runtime.verbs.results import Exit, Names, Result, container_fields, container_table, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import Container, ContainerSpec, ProcessSpec


CONFINING = (
    "cap_add", "cap_drop", "security_opt", "privileged", "read_only", "tmpfs", "device", "gpus", "group_add", "ulimit",
    "user",
)  # fmt: skip
"""options that make a Confinement other than the usual one"""


def run(engine: Engine, values: dict[str, Any]) -> Result:
    """`run`: create, start, run one command in the foreground, end the rest of the container.

    A container whose command could not be started is removed: nothing happened in it.
    """
    from nbhull.runtime.verbs.foreground import Signals, Terminal

    provide(engine, values["image"], values["pull"])
    with Terminal(values["interactive"], values["tty"]) as terminal, Signals() as signals:
        container = engine.create(container_spec(values))
        keep = False
        said: list[HullError] = []
        try:
            for notice in engine.start(container.id).notices:
                print(f"nbhull: {notice}", file=sys.stderr)
            command = engine.command(container.id, values["command"], values["entrypoint"])
            command = command or default_command(engine, container.id)
            signals.collect()
            process = engine.spawn(container.id, process_spec(values, command), terminal.stdio)
            keep = not values["rm"]
            status = terminal.attend(process, signals)
            said = tell_limits(engine, container, process.status or 0)
            if keep:
                engine.note_status(container.id, process.status or 0)
                engine.stop(container.id, timeout=0)
        finally:
            if not keep:
                engine.remove(container.id, force=True)
        # what other processes of the container had written to the terminal before they ended
        terminal.drain()
    return Exit(status, said)


def tell_limits(engine: Engine, container: Container, status: int) -> list[HullError]:
    """Which limits a container has met, as `run` says behind what the command said."""
    limits = container.spec.limits
    if status == 0 and not limits.given():
        return []
    from nbhull.runtime.ends import explain_limits

    return [HullError(message, hint) for message, hint in explain_limits(engine.events(container.id), limits)]


def provide(engine: Engine, image: str, when: str) -> None:
    """See to it that the image is here, with progress where it has to be got."""
    if "/" in image and when != "never":  # else it is not a registry's
        from nbhull.runtime.verbs.progress import shown

        with shown() as progress:
            engine.provide(image, when, progress)


def execute(engine: Engine, values: dict[str, Any]) -> Result:
    """`exec`: run one command in the foreground, in a container that runs."""
    from nbhull.runtime.verbs.foreground import Signals, Terminal

    container = engine.container(values["container"])
    spec = process_spec(values, values["command"])
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
    from nbhull.runtime.confinement import USUAL
    from nbhull.runtime.limits import from_values
    from nbhull.runtime.model import ContainerSpec

    confinement = USUAL
    if any(values[key] for key in CONFINING):
        from nbhull.runtime.confinement_options import from_options

        confinement = from_options(values)
    return ContainerSpec(
        image=values["image"],
        name=values["name"],
        hostname=values["hostname"],
        limits=from_values(values),
        network=values["network"],
        publish=values["publish"],
        dns=values["dns"],
        hosts=values["add_host"],
        mounts=values["volume"],
        host_settings=not values["no_host_settings"],
        confinement=confinement,
        transient=values["rm"],
    )


def process_spec(values: dict[str, Any], command: tuple[str, ...]) -> ProcessSpec:
    """The process that the values of `run` and `exec` describe."""
    from nbhull.runtime.model import ProcessSpec

    env = dict(variable for variable in values["env"] if variable is not None)
    if values["tty"]:
        # what the other end of the terminal understands is known only here
        import os

        env.setdefault("TERM", os.environ.get("TERM", "xterm"))
    return ProcessSpec(
        argv=command,
        env=env,
        cwd=values["workdir"],
        user=values["user"],
        tty=values["tty"],
    )


def default_command(engine: Engine, ref: str) -> tuple[str, ...]:
    """The shell to run where no command is given."""
    return ("/bin/bash",) if "bash" in engine.listdir(ref, "/bin") else ("/bin/sh",)


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
