"""What root alone can show: attacks by another user of the machine, and groups that are root's to give."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from support.attacks import CLIENT, PYTHON, as_nobody
from support.boxes import Box, run

pytestmark = pytest.mark.requires("root")

NBHULL = Path(sys.executable).with_name("nbhull")


@pytest.fixture
def box(engine: Engine) -> Box:
    return Box(engine, ContainerSpec())


def test_groups_of_who_starts_a_container_stay_outside(store: Path) -> None:
    """CVE-2022-36109."""
    program = "import os, sys; os.setgroups([4, 27, 998]); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, NBHULL, "run", "--rm", "host", "id", "-G"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "0\n"


def test_another_user_reads_nothing_of_the_store(box: Box) -> None:
    store = box.engine.store.home
    parents = [p for p in Path(store).parents if p.stat().st_mode & 0o001 == 0]
    modes = {p: p.stat().st_mode for p in parents}
    try:
        for parent in parents:  # pytest's own folders must not be what stops it
            parent.chmod(0o755)
        for path in ("", "/index.db", "/containers", "/layers"):
            assert as_nobody(partial(os.open, f"{store}{path}", os.O_RDONLY)) == "Permission denied"
    finally:
        for parent, mode in modes.items():
            parent.chmod(stat.S_IMODE(mode))


def test_another_user_asks_the_launcher_nothing(box: Box) -> None:
    """Even where the folder and its socket are opened to all, the peer's credentials are looked at."""
    folder = Path(box.container.socket_folder).parent
    base = folder.parent

    def ask() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
            channel.connect(str(folder / "launcher.sock"))
            channel.settimeout(10)
            if not channel.recv(1):
                raise EOFError

    assert as_nobody(ask) == "Permission denied"
    opened = [p for p in (folder / "launcher.sock", folder, base, *base.parents) if not p.stat().st_mode & 0o001]
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in opened}
    try:
        for path in opened:
            path.chmod(0o777)
        (folder / "launcher.sock").chmod(0o777)
        assert as_nobody(ask) in ("hung up", "Connection reset by peer")
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert box.out("echo on") == "on"


def test_another_user_is_hung_up_on(served: Box) -> None:
    """CVE-2021-41091: though the folder and the socket are open to all, the peer's credentials are looked at."""
    path = Path(served.container.socket_folder, "control.sock")

    def ask() -> None:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(path))
            channel.settimeout(20)
            channel.sendall(b'{"jsonrpc": "2.0", "id": 1, "method": "ps"}\n')
            if not channel.recv(1):
                raise EOFError

    assert as_nobody(ask) == "Permission denied"
    opened = [path, *(parent for parent in path.parents if not parent.stat().st_mode & 0o001)]
    modes = {each: each.stat().st_mode & 0o7777 for each in opened}
    try:
        for each in opened:
            each.chmod(0o777)
        assert as_nobody(ask) in ("hung up", "Broken pipe", "Connection reset by peer")
        # it is the credentials alone that stop it: a user of the container's comes through where the modes let it
        assert run_as_daemon(served, path)
    finally:
        for each, mode in modes.items():
            each.chmod(mode)


def run_as_daemon(box: Box, path: Path) -> bool:
    script = CLIENT.format(path=str(path), script='print("result" in ask(connect(), request("ps")))')
    done = run(box.engine, box.id, ProcessSpec((PYTHON, "-c", script), user="daemon"))
    return done.stdout.strip() == "True"
