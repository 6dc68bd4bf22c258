"""Attacks on process 1, which is the host's Python, on the host's processes and files, and on other containers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from support.attacks import Tried
from support.boxes import Box

pytestmark = pytest.mark.nosubuid

PROCESS_1 = [
    *(f"read /proc/1/{name}" for name in ("environ", "maps", "mem", "auxv", "syscall", "stack", "io")),
    *(f"link /proc/1/{name}" for name in ("exe", "root", "cwd", "ns/mnt", "ns/user", "ns/net")),
    *(f"list /proc/1/{name}" for name in ("fd", "map_files", "fdinfo")),
    "overwrite_the_program_of_process_1",
    "walk_through_the_root_of_process_1",
    "enter_the_namespaces_of_process_1",
]


@pytest.mark.parametrize("attempt", PROCESS_1)
def test_process_1_is_shut(tried: Tried, attempt: str) -> None:
    """Not dumpable, and its memory belongs to the host's user namespace: no capability of a container's opens it."""
    for configuration in ("usual", "unfiltered", "capable", "privileged"):
        assert tried(configuration)[attempt] == "EACCES"


@pytest.mark.parametrize("attempt", ["trace_process_1", "read_the_memory_of_process_1"])
def test_process_1_cannot_be_traced(tried: Tried, attempt: str) -> None:
    for configuration in ("usual", "unfiltered", "capable", "privileged"):
        assert tried(configuration)[attempt] == "EPERM"
        # while the call itself works on what is one's own
        assert tried(configuration)["trace_a_process_of_our_own"].startswith("ok")


def test_process_1_cannot_be_killed(tried: Tried) -> None:
    assert tried()["kill_process_1"] == tried("privileged")["kill_process_1"] == "EALREADY"


@pytest.mark.parametrize(
    "attempt",
    ["overwrite_our_own_program", "write_a_system_program", "write_to_the_systems_folders", "leave_by_a_second_chroot",
     "leave_by_dots", "leave_by_descriptors", "leave_by_the_parents_working_folder", "see_other_processes",
     "signal_a_process_of_the_host"],
)  # fmt: skip
def test_the_host_is_not_reached(tried: Tried, attempt: str) -> None:
    for configuration in ("usual", "unfiltered", "capable", "privileged"):
        assert tried(configuration)[attempt] in ("EACCES", "EROFS", "ETXTBSY", "EXDEV", "ENOENT", "ESRCH", "EPERM")


@pytest.mark.parametrize("attempt", ["reach_the_hosts_abstract_socket", "reach_the_hosts_loopback"])
def test_a_network_of_its_own_reaches_nothing_of_the_hosts(tried: Tried, attempt: str) -> None:
    assert tried("alone")[attempt] == tried("privileged")[attempt] == "ECONNREFUSED"
    assert tried("usual")[attempt] == "ok connected"  # the host's network, as it was asked for


@pytest.fixture(scope="module")
def neighbours(shared_engine: Engine) -> Iterator[tuple[Box, Box]]:
    """Two containers of the same launcher."""
    boxes = Box(shared_engine, ContainerSpec()), Box(shared_engine, ContainerSpec())
    yield boxes
    for box in boxes:
        shared_engine.remove(box.id, force=True)


def test_a_container_sees_nothing_of_its_neighbour(neighbours: tuple[Box, Box]) -> None:
    one, other = neighbours
    memory = "python3 -c 'import ctypes; print(ctypes.CDLL(None).shmget(77, 4096, {}))'"
    path = {"PATH": "/usr/bin:/bin"}
    assert int(one.out(memory.format("0o1666"), env=path)) >= 0
    assert int(one.out(memory.format("0"), env=path)) >= 0
    assert other.out(memory.format("0"), env=path) == "-1"
    one.out("touch /tmp/mine /dev/shm/mine")
    assert other.run("ls /tmp/mine").returncode != 0
    assert other.run("ls /dev/shm/mine").returncode != 0
    assert other.run(f"ls {one.container.socket_folder}").returncode != 0
    assert other.out(f"ls {other.container.socket_folder}") == ""
    # the launcher's own socket is beside that folder, where the container has nothing
    assert set(other.out(f"ls -A {other.container.socket_folder}/..").split()) == {other.id}


def test_killing_everything_kills_ones_own(neighbours: tuple[Box, Box]) -> None:
    one, other = neighbours
    sleep = ProcessSpec(("sleep", "100"))
    with one.engine.spawn(one.id, sleep) as kept, other.engine.spawn(other.id, sleep) as killed:
        other.run("kill -9 -1")
        assert killed.wait(10) == -9
        assert kept.poll() is None
        assert other.out("echo still here") == "still here"
        kept.signal(9)
        assert kept.wait(10) == -9
