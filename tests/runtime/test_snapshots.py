"""Snapshots and resets: files as they were, and the container the same."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Conflict, NotFound
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from support.boxes import Box
from support.waiting import eventually

pytestmark = pytest.mark.nosubuid

MAKE_TREE = """
mkdir -p /srv/tree/deep/er && cd /srv/tree
printf data > file; ln file hard; ln -s file soft; ln -s /nowhere dangling; mkfifo fifo
truncate -s 5M sparse; printf end >> sparse; chmod 4751 file
mkdir -m 1777 sticky; touch -d '2001-02-03 04:05:06.789' deep/er
rm -rf /opt; rm /etc/debian_version; mkdir -p /var/log/app; chmod 700 /var/log/app
"""
DESCRIBE = """
cd /; find srv/tree var/log/app -printf '%p %y %m %n %s %T@ %l\\n' | sort
find srv/tree -type f -exec sha256sum {} + | sort
test -e /opt || echo no opt; test -e /etc/debian_version || echo no version
"""


def test_a_snapshot_keeps_files_of_every_kind_and_reset_brings_them_back(engine: Engine) -> None:
    box = Box(engine, ContainerSpec())
    box.out(MAKE_TREE)
    before = box.out(DESCRIBE)
    assert "no opt" in before
    snapshot = engine.snapshot(box.id, "good")
    assert snapshot.name == "good"
    box.out("rm -rf /srv/tree /var/log; mkdir /opt; echo 13 > /etc/debian_version; mkdir /srv/tree")
    assert box.out(DESCRIBE.replace("var/log/app", "")) != before
    container = engine.reset(box.id, "good")
    assert box.out(DESCRIBE) == before
    assert (container.id, container.name, container.snapshot) == (box.id, box.container.name, snapshot.id)
    assert container.socket_folder == box.container.socket_folder
    assert Path(container.socket_folder).is_dir()


def test_a_snapshot_is_an_image(engine: Engine) -> None:
    box = Box(engine, ContainerSpec())
    box.out(MAKE_TREE)
    engine.snapshot(box.id, "base")
    engine.remove(box.id, force=True)
    copy = Box(engine, ContainerSpec(image="base"))
    assert "no opt" in copy.out(DESCRIBE)
    copy.out("echo more > /srv/tree/more")
    second = engine.snapshot(copy.id, "more")
    assert second.parent == next(image.id for image in engine.images() if image.name == "base")
    third = Box(engine, ContainerSpec(image="more"))
    assert third.out("cat /srv/tree/more /srv/tree/file") == "more\ndata"
    engine.reset(third.id, "base")
    assert third.run("test -e /srv/tree/more").returncode == 1
    engine.reset(third.id, "host")
    assert third.run("test -e /srv/tree").returncode == 1


def wait_for_file(box: Box, path: str) -> None:
    """Wait until a file has something in it."""
    eventually(lambda: box.run(f"test -s {path}").returncode == 0, path)


def test_processes_go_on_across_a_snapshot(make_box: Callable[..., Box]) -> None:
    box = make_box()
    with box.engine.spawn(
        box.id, ProcessSpec(("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i >> /srv/log; done"))
    ) as writer:
        wait_for_file(box, "/srv/log")
        for number in range(5):
            snapshot = box.engine.snapshot(box.id, f"{box.id}-{number}")
            assert next(image.size for image in box.engine.images() if image.id == snapshot.id)
            assert writer.poll() is None
        assert writer.poll() is None
    lines = box.out("cat /srv/log").splitlines()
    assert [int(line) for line in lines] == list(range(1, len(lines) + 1))


def test_nothing_written_later_is_in_a_snapshot(make_box: Callable[..., Box]) -> None:
    box = make_box()
    with box.engine.spawn(box.id, ProcessSpec(("sh", "-c", "exec 3> /srv/open; while :; do echo x >&3; done"))):
        wait_for_file(box, "/srv/open")
        box.engine.snapshot(box.id, f"{box.id}-open")
        layer = box.engine.store.find("images", f"{box.id}-open", "image")["id"]
        kept = Path(box.engine.store.path("layers", layer, "root/srv/open"))
        size = os.stat(kept).st_size
        while int(box.out("stat -c %s /srv/open")) < size + 100:
            pass
        assert os.stat(kept).st_size == size


def test_reset_ends_every_process_and_starts_from_what_it_was_made_of(make_box: Callable[..., Box]) -> None:
    box = make_box()
    process = box.engine.spawn(box.id, ProcessSpec(("sleep", "100")))
    box.out("echo 1 > /root/file")
    box.engine.reset(box.id)
    assert process.wait(10) == -9
    assert box.out("echo /proc/[0-9]*; ls /root").split() == ["/proc/1", "/proc/2"]


def test_a_stopped_container_can_be_snapshotted_and_reset(engine: Engine) -> None:
    box = Box(engine, ContainerSpec(name="still"))
    box.out("echo 1 > /root/file")
    engine.stop("still", 0)
    engine.snapshot("still", "one")
    assert engine.reset("still", "host").state == "stopped"
    engine.start("still")
    assert box.run("test -e /root/file").returncode == 1
    engine.reset("still", "one")
    assert box.out("cat /root/file") == "1"


def test_the_python_environment_comes_back(make_box: Callable[..., Box]) -> None:
    box = make_box()
    where = box.out("python -c 'import traitlets; print(traitlets.__path__[0])'")
    box.engine.snapshot(box.id, f"{box.id}-env")
    box.out(f"rm -rf {shlex.quote(where)}")
    assert box.run("python -c 'import traitlets'").returncode != 0
    box.engine.reset(box.id, f"{box.id}-env")
    assert box.out("python -c 'import traitlets; print(traitlets.__path__[0])'") == where


def test_names_of_snapshots(engine: Engine) -> None:
    box = Box(engine, ContainerSpec(name="named"))
    assert engine.snapshot("named").name.startswith("named-")
    engine.snapshot("named", "twice")
    for taken in ("twice", "host"):
        with pytest.raises(Conflict, match="is in use"):
            engine.snapshot("named", taken)
    with pytest.raises(NotFound, match="no image 'missing'"):
        engine.reset("named", "missing")
    assert box.out("echo still here") == "still here"
    assert len(os.listdir(Path(engine.store.home) / "layers")) == 2


def test_a_snapshot_of_another_environment_is_refused(engine: Engine, tmp_path: Path) -> None:
    other = tmp_path / "environment"
    other.mkdir()
    (other / "marker").write_text("here")
    box = Box(engine, ContainerSpec(environment=str(other)))
    assert box.out(f"cat {other}/marker") == "here"
    engine.snapshot(box.id, "other")
    with pytest.raises(Conflict, match="another environment"):
        engine.reset(Box(engine, ContainerSpec()).id, "other")
