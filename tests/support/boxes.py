"""A running container to try things in."""

from __future__ import annotations

import os
import subprocess

from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec, ProcessSpec


class Box:
    """A container with a shell in it."""

    def __init__(self, engine: Engine, spec: ContainerSpec) -> None:
        self.engine = engine
        self.container = engine.start(engine.create(spec).id)

    @property
    def id(self) -> str:
        return self.container.id

    def run(self, script: str, **fields: object) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the container and collect what it writes."""
        return run(self.engine, self.id, ProcessSpec(("sh", "-c", script), **fields))  # type: ignore[arg-type]

    def out(self, script: str, **fields: object) -> str:
        """What a script that must succeed writes, stripped."""
        done = self.run(script, **fields)
        assert done.returncode == 0, done
        return done.stdout.strip()


def run(engine: Engine, ref: str, spec: ProcessSpec) -> subprocess.CompletedProcess[str]:
    """Start a process, read its output to the end, and wait for it."""
    read_end, write_end = os.pipe()
    errors_read, errors_write = os.pipe()
    try:
        with open(os.devnull, 'rb') as null:
            process = engine.spawn(ref, spec, (null.fileno(), write_end, errors_write))
    finally:
        os.close(write_end)
        os.close(errors_write)
    with os.fdopen(read_end) as output, os.fdopen(errors_read) as errors:
        text, error_text = output.read(), errors.read()
    with process:
        return subprocess.CompletedProcess(spec.argv, process.wait(30), text, error_text)
