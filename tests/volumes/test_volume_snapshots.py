"""Snapshots of volumes and resets to them: one moment for all who have them, alone and with a container's files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Conflict, HullError, NotFound
from nbhull.runtime.launcher import copying
from nbhull.runtime.model import ContainerSpec, Mount, ProcessSpec
from support.boxes import Box
from support.trees import of_folder as describe
from support.waiting import eventually

pytestmark = pytest.mark.nosubuid

COUNT = """
n=0; while :; do n=$((n+1)); echo $n > {first}/next; mv {first}/next {first}/n; echo $n > {second}/next; \
mv {second}/next {second}/n; done
"""
"""counts in two folders, the first one ahead by at most one"""


def spec(volume: str, **fields: object) -> dict[str, object]:
    return {"mounts": (Mount(volume, "/data"),), **fields}


def content(engine: Engine, image: str, path: str = "") -> str:
    """What a file of a volume's snapshot holds."""
    row = engine.store.find_image(image)
    return Path(engine.store.path("layers", row["id"], "data", path)).read_text().strip()


def test_files_and_volumes_are_kept_as_one_moment(make_box: Callable[..., Box], shared_engine: Engine) -> None:
    box = make_box(**spec("moment"))
    script = COUNT.format(first="/data", second="/root")
    with Engine(shared_engine.store.home) as other:
        watcher = Box(other, ContainerSpec(**spec("moment")))  # type: ignore[arg-type]
        ahead = COUNT.format(first="/data/w", second="/data/v")
        watcher.out("mkdir /data/w /data/v")
        with (
            shared_engine.spawn(box.id, ProcessSpec(("sh", "-c", script))),
            other.spawn(watcher.id, ProcessSpec(("sh", "-c", ahead))),
        ):
            eventually(lambda: box.run("test -e /root/n -a -e /data/v/n").returncode == 0, "both count")
            for number in range(3):
                name = f"moment-{number}"
                image = shared_engine.snapshot(box.id, name, volumes=True)
                assert (image.road, image.reason) == ("moved", "")
                files = make_box(image=name)
                mine, data = int(files.out("cat /root/n")), int(content(shared_engine, f"{name}-moment", "n"))
                assert data - mine in (0, 1)
                w, v = (int(content(shared_engine, f"{name}-moment", f"{x}/n")) for x in "wv")
                assert w - v in (0, 1)
            assert int(box.out("cat /root/n")) > mine, "it goes on"
        other.remove(watcher.id, force=True)


def test_a_reset_and_undo_bring_files_and_volumes_back(make_box: Callable[..., Box], shared_engine: Engine) -> None:
    box = make_box(**spec("both"))
    box.out("echo 1 > /root/f; mkdir -m 711 /data/d; echo 1 > /data/d/f; ln -s d /data/l; touch -d @86400 /data")
    before = box.out("cd /data; stat -c '%n %a %u %s %Y' . d d/f l; cat /root/f d/f")
    shared_engine.snapshot(box.id, "both-good", volumes=True)
    box.out("echo 2 > /root/f; rm -r /data/d; echo 2 > /data/e")
    after = box.out("ls -A /data; cat /root/f /data/e")
    shared_engine.reset(box.id, "both-good", volumes=True)
    assert box.out("cd /data; stat -c '%n %a %u %s %Y' . d d/f l; cat /root/f d/f") == before
    shared_engine.undo(box.id)
    assert box.out("ls -A /data; cat /root/f /data/e") == after
    shared_engine.undo(box.id)
    assert box.out("cat /root/f /data/d/f") == "1\n1"
    shared_engine.reset(box.id, "both-good")
    assert box.out("cat /data/d/f") == "1", "without being asked, a reset leaves volumes alone"


def test_a_volume_alone_goes_back_under_running_processes(make_box: Callable[..., Box], shared_engine: Engine) -> None:
    one, two = make_box(**spec("alone")), make_box(**spec("alone"))
    one.out("echo good > /data/f; mkdir /data/d")
    shared_engine.volumes.snapshot("alone", "alone-good", note="as it should be", pinned=True)
    one.out("echo bad > /data/f; rmdir /data/d; echo log > /data/log")
    writer = "exec 3>>/data/log; while :; do echo more >&3; : > /root/beat; done"
    with shared_engine.spawn(one.id, ProcessSpec(("sh", "-c", writer))):
        eventually(lambda: one.run("test -e /root/beat").returncode == 0, "it writes")
        shared_engine.volumes.reset("alone", "alone-good")
        kept = content(shared_engine, next(i.id for i in shared_engine.images() if i.name.startswith("alone-before-")),
                       "log")  # fmt: skip
        assert [box.out("cat /data/f; ls /data") for box in (one, two)] == ["good\nd\nf"] * 2
        one.out("rm /root/beat; until test -e /root/beat; do :; done")
        found = next(i.id for i in shared_engine.images() if i.name.startswith("alone-before-"))
        assert content(shared_engine, found, "log") == kept, "nothing is written to what a reset threw away"
    assert shared_engine.volumes.undo("alone").name == "alone"
    assert two.out("cat /data/f").startswith("bad")
    tree = [(node.image.name, node.containers) for node in shared_engine.volumes.snapshots("alone")]
    assert tree[0] == ("alone-good", ())
    assert sum("alone" in containers for _, containers in tree) == 1
    changes = {(change.path, change.what) for change in shared_engine.diff("alone-good", "alone").changes}
    assert {("/f", "changed"), ("/d", "deleted"), ("/log", "added")} <= changes


def test_what_cannot_be_is_refused_and_nothing_has_changed(make_box: Callable[..., Box], shared_engine: Engine) -> None:
    volumes = shared_engine.volumes
    box = make_box(**spec("refusing"))
    box.out("echo 1 > /data/f")
    with pytest.raises(Conflict, match="no snapshot"):
        volumes.reset("refusing")
    with pytest.raises(NotFound, match="never reset"):
        volumes.undo("refusing")
    shared_engine.snapshot(box.id, "refusing-files")
    for act in (  # type: Callable[[], object]
        lambda: volumes.reset("refusing", "refusing-files"),
        lambda: shared_engine.reset(box.id, "refusing-files", volumes=True),
        lambda: shared_engine.snapshot(make_box().id, volumes=True),
        lambda: volumes.snapshot("refusing", "refusing-files"),
    ):
        with pytest.raises(Conflict):
            act()
    volumes.snapshot("refusing", "refusing-data")
    for other_act in (  # type: Callable[[], object]
        lambda: shared_engine.reset(box.id, "refusing-data"),
        lambda: shared_engine.create(ContainerSpec(image="refusing-data")),
        lambda: shared_engine.diff(box.id, "refusing-data"),
    ):
        with pytest.raises(Conflict):
            other_act()
    nested = make_box(mounts=(Mount("refusing", "/srv/v"), Mount("refusing-inner", "/srv/v/inner")))
    with pytest.raises(Conflict, match="/srv/v/inner is mounted inside"):
        volumes.reset("refusing", "refusing-data")
    assert nested.out("cat /srv/v/f") == box.out("cat /data/f") == "1"


@pytest.mark.parametrize("copy", [False, True])
def test_an_exchange_that_is_cut_short_anywhere_is_done_by_the_next(copy: bool, tmp_path: Path) -> None:
    """`copying.exchange` on plain folders; `die` after each of its system calls that change something."""

    def make(base: Path) -> tuple[str, str, str]:
        for folder in ("place/a/b", "place/c", "new/a", "new/z"):
            (base / folder).mkdir(parents=True)
        (base / "place/a/f").write_text("old")
        (base / "place/g").write_text("old")
        (base / "new/a/f").write_text("new")
        (base / "new").chmod(0o751)
        return str(base / "place"), str(base / "kept"), str(base / "new")

    whole = tmp_path / "whole"
    place, kept, new = make(whole)
    old, wanted = describe(place), describe(new)
    copying.exchange(place, kept, new, copy=copy)
    assert (describe(f"{kept}/data"), describe(place)) == (old, wanted)
    for number in range(40):
        place, kept, new = make(tmp_path / str(number))
        old, wanted = describe(place), describe(new)
        left = number

        def mortal(real: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **kwargs: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    raise KeyboardInterrupt
                return real(*args, **kwargs)

            return call

        with pytest.MonkeyPatch.context() as patch:
            for name in ("rename", "mkdir", "unlink", "rmdir", "utime"):
                patch.setattr(os, name, mortal(getattr(os, name)))
            try:
                copying.exchange(place, kept, new, copy=copy)
            except KeyboardInterrupt:
                pass
        copying.exchange(place, kept, new, copy=copy)
        assert describe(f"{kept}/data") == old, number
        assert describe(place) == wanted, number
        assert sorted(os.listdir(tmp_path / str(number))) == ["kept", "place"], number
        if left > 0:
            return
    raise AssertionError("there are more steps than were tried")


VICTIM = """
import os, signal, sys
from nbhull.runtime.engine import Engine
from nbhull.runtime.images.workshop import Workshop
from nbhull.runtime.launcher import client
from nbhull.runtime.snapshots import journal, volumes
from nbhull.runtime.store import Store

act, step, when, home, box, name = sys.argv[1:]
owner, method = step.partition(":")[0], step.partition(":")[2]
places = {"client": (client.Client, "request"), "worker": (Workshop, "ask"), "volumes": (volumes, method),
          "journal": (journal, method), "store": (Store, method), "keeping": (volumes.Keeping, method)}
place, attribute = places[owner]
real = getattr(place, attribute)
def mortal(*args, **kwargs):
    if owner in ("client", "worker") and args[1] != method:
        return real(*args, **kwargs)
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        return real(*args, **kwargs)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
setattr(place, attribute, mortal)
with Engine(home) as engine:
    if act == "snapshot":
        engine.snapshot(box, name, volumes=True)
    else:
        engine.reset(box, "base", volumes=True)
"""
STEPS = {
    "snapshot": ("client:move", "keeping:keep", "journal:note", "store:add_image", "journal:finish"),
    "reset": ("client:copy", "client:kill", "store:add_image", "journal:finish", "worker:exchange", "volumes:finish"),
}


def revive(engine: Engine, box: Box) -> None:
    """Start the container if it was ended, which shows as soon as its launcher has noticed who is gone."""
    try:
        box.out("true")
    except HullError:
        eventually(lambda: engine.container("box").state != "running", "the container is seen to have ended")
        engine.start("box")


@pytest.mark.parametrize("act", STEPS)
@pytest.mark.requires("root")
def test_the_engine_is_killed_at_each_step(act: str, engine: Engine) -> None:
    """Files and volume are on one side or the other, together."""
    box = Box(engine, ContainerSpec(name="box", **spec("joint")))  # type: ignore[arg-type]
    box.out("echo base > /root/word; echo base > /data/word")
    engine.snapshot("box", "base", volumes=True)
    for number, step in enumerate(STEPS[act]):
        for when in ("before", "after"):
            word = f"{number}-{when}"
            box.out(f"echo {word} > /root/word; echo {word} > /data/word")
            victim = subprocess.run(
                [sys.executable, "-c", VICTIM, act, step, when, engine.store.home, "box", word],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert victim.returncode == -signal.SIGKILL, (step, when, victim)
            revive(engine, box)
            files, data = box.out("cat /root/word"), box.out("cat /data/word")
            assert files == data, (step, when)
            assert files in ([word] if act == "snapshot" else [word, "base"]), (step, when)
            if files != word:
                engine.undo("box")
                assert box.out("cat /root/word /data/word") == f"{word}\n{word}", (step, when)
            names = {image.name for image in engine.images()}
            assert (word in names) == (f"{word}-joint" in names), (step, when)
            if word in names:
                assert content(engine, f"{word}-joint", "word") == word
                assert Box(engine, ContainerSpec(image=word)).out("cat /root/word") == word
    engine.volumes.snapshot("joint", "last")  # what was left lying about goes when the volume is next used
    rows = engine.store.query("select top from images")
    layers = {row["top"] for row in rows}
    assert {name for name in os.listdir(engine.store.path("layers")) if ".part" not in name} >= layers
    assert os.listdir(engine.store.path("volumes", engine.volumes.get("joint").id)) == ["data"]
