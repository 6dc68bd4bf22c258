"""Talking to kernels as Jupyter's own programs do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec, ProcessSpec

PATIENCE = 60.0
"""seconds for a kernel that starts beside many others on a small machine"""

Running = tuple[KernelManager, BlockingKernelClient]
Start = Callable[..., Running]
"""starts a kernel with the blocking manager: `start(kernelspec, cwd=…, env=…)`"""


@dataclass(frozen=True)
class Place:
    """Where Jupyter and nbhull keep what they have, for a test session."""

    prefix: Path
    """kernelspecs are installed below"""
    engine: Engine


@dataclass
class Outcome:
    """What one cell gave."""

    status: str = ""
    text: str = ""
    """standard output"""
    errors: str = ""
    """standard error, and tracebacks"""
    data: list[dict[str, Any]] = field(default_factory=list)
    ename: str = ""
    evalue: str = ""


def execute(client: BlockingKernelClient, code: str, timeout: float = PATIENCE) -> Outcome:
    """Execute a cell, and wait for its reply and the end of its output."""
    outcome = Outcome()

    def take(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            if content["name"] == "stdout":
                outcome.text += content["text"]
            else:
                outcome.errors += content["text"]
        elif message["msg_type"] == "error":
            outcome.errors += "\n".join(content["traceback"])
            outcome.ename, outcome.evalue = content["ename"], content["evalue"]
        elif "data" in content:
            outcome.data.append(content["data"])

    reply = client.execute_interactive(code, output_hook=take, allow_stdin=False, timeout=timeout)
    outcome.status = reply["content"]["status"]
    return outcome


def value(client: BlockingKernelClient, expression: str) -> str:
    """What `print(expression)` prints; the cell must succeed."""
    outcome = execute(client, f"print({expression})")
    assert outcome.status == "ok", outcome.errors
    return outcome.text.strip()


def connect(manager: KernelManager) -> BlockingKernelClient:
    """A client of a started kernel, once the kernel answers."""
    client: BlockingKernelClient = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
    except RuntimeError:
        client.stop_channels()
        raise
    return client


@contextmanager
def kernels_by_name(start: Callable[[str, KernelManager], None]) -> Iterator[Callable[[str], Running]]:
    """Kernels that several tests use, each started (`start`) when it is first asked for by its kernelspec's name; the
    ordinary kernel `python3` gets the magics."""
    running: dict[str, Running] = {}

    def get(name: str) -> Running:
        if name not in running:
            manager = KernelManager(kernel_name=name)
            start(name, manager)
            running[name] = manager, connect(manager)
            if name == "python3":
                assert execute(running[name][1], "%load_ext nbhull").status == "ok"
        return running[name]

    yield get
    for manager, client in running.values():
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy(linger=0)


def ask_from_inside(client: BlockingKernelClient, method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Ask the control socket as no magic would, from inside the kernel's container; the last line of its reply."""
    line = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    code = f"""import os, socket
with socket.socket(socket.AF_UNIX) as channel:
    channel.connect(os.environ["NBHULL_CONTROL"])
    channel.sendall({line!r}.encode() + b"\\n")
    print(channel.makefile("rb").read().splitlines()[-1].decode())"""
    outcome = execute(client, code)
    assert outcome.status == "ok", outcome.errors
    reply: dict[str, Any] = json.loads(outcome.text)
    return reply


def install_spec(name: str, below: Path, **config: Any) -> str:
    """Write a kernelspec with exactly this config, right or wrong."""
    folder = below / "share/jupyter/kernels" / name
    folder.mkdir(parents=True)
    stanza = {"provisioner_name": "container-provisioner", "config": config}
    spec = {
        "argv": ["container-provisioner", "{connection_file}"],
        "display_name": name,
        "language": "python",
        "metadata": {"kernel_provisioner": stanza},
    }
    (folder / "kernel.json").write_text(json.dumps(spec))
    return name


def runtime_entries() -> set[str]:
    """What lies in the session's runtime folder: a folder for each launcher, with its containers'."""
    folder = Path(os.environ["XDG_RUNTIME_DIR"], "nbhull")
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} if folder.is_dir() else set()


def container_entries() -> set[str]:
    """What lies in the runtime folder for containers alone."""
    return {entry for entry in runtime_entries() if re.match(r"[0-9a-f]+/[0-9a-f]{12}", entry)}


def make_image(place: Place, name: str, *commands: str) -> str:
    """A snapshot of a container of the image `host` in which these commands ran; gives its name."""
    container = place.engine.create(ContainerSpec())
    try:
        place.engine.start(container.id)
        for command in commands:
            process = place.engine.spawn(container.id, ProcessSpec(("/bin/sh", "-c", command)))
            assert process.wait(60) == 0, command
            process.close()
        return place.engine.snapshot(container.id, name).name
    finally:
        place.engine.remove(container.id, force=True)
