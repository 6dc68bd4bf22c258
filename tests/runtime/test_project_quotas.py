"""Quotas that the file system keeps: where NBHULL_TEST_QUOTAS names a folder with them, as in the virtual machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbhull.runtime import projects
from nbhull.runtime.engine import Engine
from nbhull.runtime.limits import Limits
from nbhull.runtime.linux import quota
from nbhull.runtime.model import ContainerSpec
from support.abilities import QUOTAS
from support.boxes import Box
from support.stores import delete_tree
from support.waiting import eventually

pytestmark = pytest.mark.requires("project-quotas")

MEGABYTE = 1 << 20
FILL = "dd if=/dev/zero of=/root/{name} bs=1M count={count} 2>&1"
RELABEL = """
import fcntl, os, struct
os.mkdir("/root/new")
fd = os.open("/root/new", os.O_RDONLY)
layout = struct.Struct("=5I8x")
flags, *sizes, project, last = layout.unpack(fcntl.ioctl(fd, 0x801C581F, bytes(28)))
print(project)
for changed in ((flags, *sizes, 0, last), (flags & ~0x200, *sizes, project, last)):
    try:
        fcntl.ioctl(fd, 0x401C5820, layout.pack(*changed))
        print("changed")
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """An engine whose store lies on a file system with project quotas."""
    home = Path(os.environ[QUOTAS]) / f"store-{os.getpid()}"
    with Engine(home) as made:
        yield made
        for container in made.containers():
            made.remove(container.id, force=True)
    delete_tree(home)


@pytest.fixture
def limited(engine: Engine) -> Callable[..., Box]:
    """Makes a container with limits."""
    return lambda **limits: Box(engine, ContainerSpec(limits=Limits(**limits)))


def project_of(box: Box) -> int:
    """The number of a container's project."""
    return projects.usage(box.engine.store.path("containers", box.id))[0]


def allowed(engine: Engine, project: int) -> tuple[int, int]:
    """What a project may have."""
    with projects.Folder(engine.store.home) as fd:
        return quota.limits(fd, project)


@pytest.mark.requires("root")
def test_what_is_too_much_is_refused_and_told(limited: Callable[..., Box]) -> None:
    box = limited(disk=20 * MEGABYTE)
    assert "Disk quota exceeded" in box.run(FILL.format(name="large", count=60)).stdout
    # the kernel in a container finds it in its socket folder, without anybody's asking
    told = Path(box.container.socket_folder) / "events"
    eventually(lambda: told.exists() and "disk_hits=1" in told.read_text(), "it is told")
    used = box.engine.usage(box.id)
    assert 19 * MEGABYTE < (used.disk or 0) <= 20 * MEGABYTE
    assert used.disk_project == project_of(box)
    assert (used.disk_limit, used.disk_hits) == (20 * MEGABYTE, 1)
    box.out("rm /root/large")
    assert "Disk quota exceeded" not in box.out(FILL.format(name="small", count=5))


@pytest.mark.requires("root")
def test_files_are_counted_too_and_containers_apart(limited: Callable[..., Box]) -> None:
    first, second = limited(inodes=300), limited(inodes=300, disk=20 * MEGABYTE)
    assert project_of(first) != project_of(second)
    many = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); : > /root/$i || exit 1; done 2>&1"
    assert "Disk quota exceeded" in first.run(many).stdout
    assert first.engine.usage(first.id).disk_hits == 1
    second.out(": > /root/one; " + FILL.format(name="two", count=2))


@pytest.mark.requires("root")
def test_nothing_inside_gets_out_of_its_project(limited: Callable[..., Box]) -> None:
    box = limited(disk=20 * MEGABYTE)
    project, *tried = box.out('python3 -c "$CODE"', env={"PATH": "/usr/bin", "CODE": RELABEL}).splitlines()
    assert int(project) == project_of(box)
    assert tried == ["Invalid argument", "Invalid argument"]


@pytest.mark.requires("root")
def test_snapshots_count_until_a_reset_and_what_is_removed_is_freed(limited: Callable[..., Box]) -> None:
    box = limited(disk=20 * MEGABYTE)
    engine = box.engine
    box.out(FILL.format(name="kept", count=14))
    # a file that is being written across the snapshot
    writing = box.out("(exec 3>>/root/log; echo begun >&3; sleep 3600) >/dev/null 2>&1 & echo $!")
    first = project_of(box)
    assert engine.snapshot(box.id, "counted").road == "moved"
    assert "Disk quota exceeded" in box.run(FILL.format(name="more", count=14)).stdout
    box.out(f"kill {writing}")
    engine.reset(box.id, "counted")
    second = project_of(box)
    assert second != first
    assert allowed(engine, first) == (0, 0)
    assert allowed(engine, second) == (20 * MEGABYTE, 0)
    box.out("cat /root/log; " + FILL.format(name="more", count=14))
    assert "Disk quota exceeded" in box.run(FILL.format(name="most", count=14)).stdout
    engine.remove(box.id, force=True)
    assert allowed(engine, second) == (0, 0)
    with projects.Folder(engine.store.home) as fd:
        eventually(lambda: quota.usage(fd, second) == (0, 0), "the project is free again")


@pytest.mark.requires("user")
def test_a_user_cannot_set_one_and_has_it_measured(limited: Callable[..., Box]) -> None:
    box = limited(disk=20 * MEGABYTE)
    assert projects.refusal(box.engine.store.home) == "only the host's root may set project quotas"
    done = box.run(FILL.format(name="large", count=900))
    assert "File size limit exceeded" in done.stdout + done.stderr
    assert box.engine.usage(box.id).disk_project is None
