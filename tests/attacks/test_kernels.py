"""Attacks from a downloaded notebook, and from inside a kernel: on the control socket, and by bombs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbhull.kernel import notebook, rpc
from nbhull.kernel.config import KernelConfig, narrow
from nbhull.kernel.control import MAX_CLIENTS
from nbhull.magics.display import Shown
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Denied, InvalidInput, NotFound
from nbhull.runtime.limits import Limits
from nbhull.runtime.model import ContainerSpec, ProcessSpec, parse_name
from nbhull.runtime.verbs.results import Fields, Names, Table
from support.attacks import CLIENT, PYTHON
from support.boxes import Box, run
from support.waiting import eventually

pytestmark = pytest.mark.nosubuid


# -- from a downloaded notebook ----------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {"mounts": ["/:/host"]}, {"mounts": [{"source": "/etc", "target": "/x"}]}, {"network": "host"},
        {"devices": ["/dev/sda"]}, {"gpus": "all"}, {"privileged": True}, {"cap_add": ["ALL"]}, {"group_add": ["0"]},
        {"security_opt": ["seccomp=unconfined"]}, {"tmpfs": ["/etc"]}, {"ulimits": ["nofile=1000000"]},
        {"environment": {"LD_PRELOAD": "/x"}}, {"prefix": "/"}, {"control": "siblings"}, {"dns": ["192.0.2.1"]},
        {"image": "/etc"}, {"image": "../../etc"}, {"image": "file:///etc"}, {"image": "a\x1b]0;owned\x07"},
        {"image": "docker-archive:/etc/passwd"}, {"memory": -1}, {"memory": "9" * 400}, {"cpus": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_a_notebook_gets_nothing_that_it_asks_for(shared_engine: Engine, asked: dict[str, Any]) -> None:
    """Refused with the reason; a reason that quotes the notebook has no control character in it."""
    bounds = KernelConfig(memory=1 << 30, pids=100, network="none")
    with pytest.raises((Denied, InvalidInput, NotFound)) as refused:
        shared_engine.create(ContainerSpec(image=narrow(bounds, asked)[0].image))
    assert refused.value.message.isprintable()


def test_a_huge_limit_is_cut_to_the_bound() -> None:
    bounds = KernelConfig(memory=1 << 30, pids=100, cpus=1.0, disk=1 << 30, inodes=1000)
    narrowed, notices = narrow(bounds, {"memory": "9t", "pids": 10**6, "cpus": 512, "disk": "9t", "inodes": 10**9})
    assert narrowed == bounds
    assert len(notices) == 5


@pytest.mark.parametrize("place", ["/dev/zero", "/etc/passwd", "/proc/self/environ"])
def test_a_notebook_that_is_something_else_is_not_read(tmp_path: Path, place: str) -> None:
    path = tmp_path / "work.ipynb"
    path.symlink_to(place)
    found = notebook.find(str(path), str(tmp_path))
    if found is None:
        return
    with pytest.raises(InvalidInput) as refused:
        notebook.container_settings(found)
    assert "root:" not in str(refused.value)


HOSTILE = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\x1b]0;owned\x07"


@pytest.mark.parametrize("shown", [Table([HOSTILE], [[HOSTILE]], [{}]), Fields([(HOSTILE, HOSTILE)], {})], ids=type)
def test_what_is_displayed_is_escaped(shown: Any) -> None:
    html = Shown(shown)._repr_html_() or ""
    assert "<script" not in html
    assert "<img" not in html


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nb", "../a", "-rf", "<b>", "a" * 129, "\u202eevil", ""])
def test_such_names_are_none(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_name(name)
    assert refused.value.message.isprintable()
    assert Names([]).names == []


# -- the control socket ------------------------------------------------------------------------


@pytest.fixture
def inside(served: Box) -> Callable[[str], str]:
    """Runs lines of Python in the container, which talk to the socket."""

    def talk(script: str, **fields: Any) -> str:
        text = CLIENT.format(path=f"{served.container.socket_folder}/control.sock", script=script)
        done = run(served.engine, served.id, ProcessSpec((PYTHON, "-c", text), **fields))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return talk


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('b"{"', rpc.PARSE_ERROR), ('b"\\xff\\0"', rpc.PARSE_ERROR), ('b"[" * 100000', rpc.PARSE_ERROR),
        ('b"[]"', rpc.INVALID_REQUEST), ('request("remove")', rpc.METHOD_NOT_FOUND),
        ('request("__init__")', rpc.METHOD_NOT_FOUND), ('request("snapshot", name="../../x")', rpc.HULL_ERROR),
        ('request("snapshot", memory=1)', rpc.HULL_ERROR), ('request("diff", a="another")', rpc.HULL_ERROR),
        ('request("reset", name="none-such")', rpc.HULL_ERROR),
    ],
)  # fmt: skip
def test_malformed_requests_are_answered(inside: Callable[[str], str], line: str, code: int) -> None:
    script = f'c = connect(); print(ask(c, {line})["error"]["code"], "result" in ask(c, request("ps")))'
    assert inside(script) == f"{code} True"


def test_huge_slow_and_many_clients_keep_nobody_waiting(inside: Callable[[str], str]) -> None:
    script = f"""
slow = [connect() for _ in range({3 * MAX_CLIENTS})]
for one in slow[-3:]: one.sendall(b'{{"jsonrpc"')
huge = connect()
try:
    for _ in range({rpc.MAX_REQUEST >> 20} + 64): huge.sendall(b" " * (1 << 20))
except OSError: pass
greedy = connect()
greedy.sendall((request("images") + b"\\n") * 100)
print("result" in ask(connect(), request("ps")))
"""
    assert inside(script) == "True"


def test_nothing_is_told_of_another_container(inside: Callable[[str], str], served: Box, shared_engine: Engine) -> None:
    other = Box(shared_engine, ContainerSpec())
    try:
        asked = "('ps', 'info', 'stats', 'snapshots', 'images')"
        seen = inside(f"print([ask(connect(), request(each, id='*', name='*')) for each in {asked}])")
        assert other.id not in seen
        assert served.id in seen
    finally:
        shared_engine.remove(other.id, force=True)


# -- bombs -------------------------------------------------------------------------------------


BOMBS = {
    "forks": ("while :; do sleep 100 & done", Limits(pids=60), "pids_hits"),
    "memory": (f"while :; do {PYTHON} -c 'bytearray(1 << 30)'; done", Limits(memory=96 << 20), "oom_kills"),
    "disk": ("while :; do head -c 1M /dev/zero >> /root/fill; sleep 0.005; done", Limits(disk=16 << 20), "disk_hits"),
    "inodes": ("i=0; while :; do i=$((i+1)); : > /root/$i; done", Limits(inodes=500), "disk_hits"),
}


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param("forks", marks=pytest.mark.requires("cgroup-pids")),
        pytest.param("memory", marks=pytest.mark.requires("cgroup-memory")),
        "disk",
        "inodes",
    ],
)
def test_a_bomb_meets_its_limit_and_no_neighbour(shared_engine: Engine, served: Box, bomb: str) -> None:
    """Which limit it was is told (in a notebook: tests/kernel/test_bombs.py, test_told.py)."""
    script, limits, event = BOMBS[bomb]
    box = Box(shared_engine, ContainerSpec(limits=limits))
    try:
        with open(os.devnull, "r+b") as null, shared_engine.spawn(
            box.id, ProcessSpec(("sh", "-c", script)), (null.fileno(),) * 3
        ):
            eventually(lambda: shared_engine.events(box.id).get(event), f"{event} is counted", timeout=60)
            assert served.out("echo on") == "on"
    finally:
        shared_engine.remove(box.id, force=True)
    assert served.out("echo on") == "on"


def test_a_flood_that_nobody_reads_stops_at_the_pipe(shared_engine: Engine, served: Box) -> None:
    reader, writer = os.pipe()
    with open(os.devnull, "rb") as null, shared_engine.spawn(
        served.id, ProcessSpec(("sh", "-c", "exec cat /dev/zero")), (null.fileno(), writer, writer)
    ) as flood:
        assert served.out("echo on") == "on"
        flood.signal(9)
        assert flood.wait(10) == -9
    os.close(writer)
    os.close(reader)
