"""What is attacked, from where, and how: shared by the tests of attacks."""


from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nbhull.runtime.confinement import Confinement
from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ProcessSpec
from nbhull.runtime.seccomp import default
from support.boxes import run

PYTHON = "/usr/bin/python3"
ABSTRACT = f"nbhull-attacks-{os.getpid()}"
MARK = 95  # EOPNOTSUPP, which nothing that is tried gives otherwise
MARKED = "ENOTSUP"

Tried = Callable[..., dict[str, Any]]
"""`tried(configuration, user)`: what became of the attempts there"""


def program() -> str:
    """The whole program: containers have no package to import its parts from."""
    parts = [(Path(__file__).parent / f"inside/{name}.py").read_text() for name in ("calls", "files")]
    lines = "\n".join(parts).splitlines()
    ours = ("from __future__", "from support.")
    return "\n".join(line for line in lines if not line.startswith(ours))


def marked_profile() -> str:
    """The default profile, but that what it refuses fails with another errno: so one sees what stopped an attempt."""
    return json.dumps(default.document() | {"defaultErrnoRet": MARK})


# With the host's network, where there is most to reach, but where they say otherwise.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "usual": {"network": "host"},
    "marked": {"network": "host", "confinement": Confinement(seccomp=marked_profile())},
    "unfiltered": {"network": "host", "confinement": Confinement(seccomp="unconfined")},
    "capable": {"network": "host", "confinement": Confinement(cap_add=("ALL",))},
    "unmasked": {"network": "host", "confinement": Confinement(system_paths=False)},
    "alone": {"network": "none"},
    "alone and capable": {"network": "none", "confinement": Confinement(cap_add=("ALL",))},
    "privileged": {"network": "none", "confinement": Confinement(privileged=True)},
}


class Outside:
    """What the host has that must not be reached: a file, a process, an abstract socket, a port."""

    def __init__(self, folder: Path) -> None:
        self.secret = folder / "secret"
        self.secret.write_text("secret")
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind("\0" + ABSTRACT)
        self.abstract.listen(64)
        self.server = socket.create_server(("127.0.0.1", 0), backlog=64)

    def arguments(self) -> list[str]:
        """As the program takes them."""
        return [str(self.secret), ABSTRACT, str(self.server.getsockname()[1]), str(os.getpid())]

    def close(self) -> None:
        self.abstract.close()
        self.server.close()


def attack(engine: Engine, ref: str, outside: Outside, *names: str, user: str | None = None) -> dict[str, Any]:
    """Make the attempts of these names (all if none is given) in a running container."""
    argv = (PYTHON, "-c", program(), *outside.arguments(), *names)
    done = run(engine, ref, ProcessSpec(argv, user=user))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def as_nobody(work: Callable[[], object]) -> str:
    """What comes of it when user 65534 does something: `ok`, or the error."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        text = "ok"
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            work()
        except OSError as error:
            text = error.strerror or ""
        except EOFError:
            text = "hung up"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return file.read()


CLIENT = """
import json, os, socket, sys
def connect():
    channel = socket.socket(socket.AF_UNIX)
    channel.connect({path!r})
    channel.settimeout(60)
    return channel
def ask(channel, line):
    channel.sendall(line + b"\\n")
    return json.loads(channel.makefile("rb").readline() or b"null")
def request(method, **params):
    return json.dumps({{"jsonrpc": "2.0", "id": 1, "method": method, "params": params}}).encode()
{script}
"""
"""what talks to a control socket from inside: `path`, and a `script` of Python that uses it"""
