"""The tree of snapshots, resets taken back, and what differs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import NotFound
from nbhull.runtime.model import ContainerSpec
from nbhull.runtime.verbs.snapshots import snapshot_table
from support.boxes import Box

pytestmark = pytest.mark.nosubuid


def test_a_reset_is_taken_back_and_back_again(make_box: Callable[..., Box]) -> None:
    box = make_box()
    with pytest.raises(NotFound, match="was never reset"):
        box.engine.undo(box.id)
    box.out("echo work > /root/work")
    first = box.engine.snapshot(box.id)
    box.out("echo more >> /root/work")
    box.engine.reset(box.id, "host")
    assert box.run("test -e /root/work").returncode == 1
    assert box.engine.undo(box.id).state == "running"
    assert box.out("cat /root/work") == "work\nmore"
    box.engine.undo(box.id)
    assert box.run("test -e /root/work").returncode == 1
    # what nobody wrote in is no snapshot more
    count = len(box.engine.images())
    box.engine.reset(box.id, first.id)
    box.engine.undo(box.id)
    assert len(box.engine.images()) == count


def test_the_tree_shows_branches_notes_and_where_one_stands(engine: Engine) -> None:
    box = Box(engine, ContainerSpec(name="box"))
    box.out("echo 1 > /root/file")
    engine.snapshot("box", "one", note="first <b>light</b>", pinned=True)
    box.out("echo 2 > /root/file")
    engine.snapshot("box", "two")
    box.out("echo lost > /root/file")
    engine.reset("box", "one")
    box.out("echo 3 > /root/file")
    engine.snapshot("box", "three")
    drawn = [(node.line, node.image.name, node.image.auto, node.containers) for node in engine.snapshots()]
    kept = next(image.name for image in engine.images() if image.auto)
    assert drawn == [
        ("", "host", "", ()),
        ("└ ", "one", "", ()),
        ("  ├ ", "two", "", ()),
        ("  │ └ ", kept, "reset", ()),
        ("  └ ", "three", "", ("box",)),
    ]
    table = snapshot_table(engine.snapshots("box"), 2e9)
    assert table.items[1]["note"] == "first <b>light</b>"
    assert table.items[1]["pinned"] is True
    assert table.rows[1][5] == "pinned, first <b>light</b>"


CHANGE = """
mkdir -p /srv/new/deep; echo text > /srv/new/file; ln -s file /srv/new/link; mkfifo /srv/new/fifo
rm -rf /opt; rm /etc/debian_version; echo more >> /etc/hosts; chmod 700 /srv; : > "$(printf '/srv/od\\033d')"
"""


def changes(engine: Engine, *refs: str) -> dict[str, str]:
    return {change.path: change.what for change in engine.diff(*refs).changes}


def test_what_differs(make_box: Callable[..., Box]) -> None:
    box = make_box()
    engine = box.engine
    assert changes(engine, box.id) == {}
    box.out(CHANGE)
    expected = {
        "/etc/debian_version": "deleted", "/etc/hosts": "changed", "/opt": "deleted", "/srv": "changed",
        "/srv/new": "added", "/srv/new/deep": "added", "/srv/new/fifo": "added", "/srv/new/file": "added",
        "/srv/new/link": "added", "/srv/od\033d": "added",
    }  # fmt: skip
    assert changes(engine, box.id) == expected
    snapshot = engine.snapshot(box.id)
    assert changes(engine, box.id) == {}
    assert changes(engine, snapshot.id) == expected
    assert changes(engine, "host", box.id) == expected
    box.out("cd /srv/new; echo again >> file; rm link; ln -s other link; rm -rf deep; mkdir /opt")
    later = {"/opt": "added", "/srv/new/deep": "deleted", "/srv/new/file": "changed", "/srv/new/link": "changed"}
    assert changes(engine, box.id) == changes(engine, snapshot.id, box.id) == later
    back = {path: {"added": "deleted", "deleted": "added"}.get(what, what) for path, what in later.items()}
    assert changes(engine, box.id, snapshot.id) == back
    sizes = {c.path: (c.old and c.old.size, c.new and c.new.size) for c in engine.diff(box.id).changes}
    assert sizes["/srv/new/file"] == (5, 11)


def test_a_folder_that_was_replaced_hides_what_was_in_it(make_box: Callable[..., Box]) -> None:
    box = make_box()
    box.out("mkdir -p /srv/a/b; echo 1 > /srv/a/b/old; echo 1 > /srv/a/same")
    snapshot = box.engine.snapshot(box.id)
    box.out("rm -rf /srv/a; mkdir /srv/a; echo 2 > /srv/a/new")
    found = changes(box.engine, snapshot.id, box.id)
    assert found == {"/srv/a/b": "deleted", "/srv/a/new": "added", "/srv/a/same": "deleted"}


def test_lines_and_packages(make_box: Callable[..., Box]) -> None:
    box = make_box()
    box.out("cd /root; printf 'one\\ntwo\\n' > text; printf 'a\\0b' > binary; mkdir -p lib/Some_Pkg-1.0.dist-info")
    snapshot = box.engine.snapshot(box.id)
    box.out(
        "cd /root; printf 'one\\n2\\n' > text; printf 'c\\0d' > binary; ln -sf /etc/shadow link; cd lib; "
        "mv Some_Pkg-1.0.dist-info some_pkg-2.0.dist-info; mkdir other-3.dist-info"
    )
    found = box.engine.diff(snapshot.id, box.id, text=True)
    assert [text.splitlines() for text in found.texts] == [
        ["--- /root/text", "+++ /root/text", "@@ -1,2 +1,2 @@", " one", "-two", "+2"]
    ]
    assert [(package.name, package.old, package.new) for package in found.packages] == [
        ("other", None, "3"), ("some-pkg", "1.0", "2.0")
    ]  # fmt: skip


def test_the_verbs(store: Path) -> None:
    nbhull = str(Path(sys.executable).with_name("nbhull"))

    def run(*words: str) -> str:
        return subprocess.run([nbhull, *words], check=True, capture_output=True, text=True).stdout

    run("run", "--name", "box", "host", "sh", "-c", "echo 1 > /root/file; printf x > \"$(printf '/root/\\033[31m')\"")
    text = run("diff", "box")
    assert "+   /root/file" in text
    assert "\033" not in text
    assert json.loads(run("diff", "--json", "box"))[0]["change"] == "added"
    assert run("snapshot", "--note", "a note", "--pin", "box", "kept") == "kept\n"
    run("reset", "box", "host")
    assert "└ kept" in run("snapshots", "box")
    assert "pinned, a note" in run("snapshots")
    run("undo", "box")
    assert run("diff", "kept", "box") == "nothing differs\n"
    run("rm", "box")
