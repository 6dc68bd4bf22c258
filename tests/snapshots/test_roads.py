"""What running processes hold of their files comes along when a snapshot is taken, or is a reason to copy."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nbhull.runtime.model import ProcessSpec
from support.boxes import Box

pytestmark = pytest.mark.nosubuid

BEGIN = """
import fcntl, mmap, os, select, socket, sqlite3, subprocess, sys, threading, time
os.makedirs("/srv/work", exist_ok=True)
os.chdir("/srv/work")
def ready():
    print("ready", flush=True)
    sys.stdin.readline()
"""


class Program:
    """A Python program in a container that says `ready`, and goes on when it is told."""

    def __init__(self, box: Box, code: str) -> None:
        self.input, theirs_in = os.pipe()
        theirs_in, self.input = self.input, theirs_in
        self.output, theirs_out = os.pipe()
        spec = ProcessSpec(("python3", "-c", BEGIN + code))
        self.process = box.engine.spawn(box.id, spec, (theirs_in, theirs_out, theirs_out))
        os.close(theirs_in)
        os.close(theirs_out)
        self.read_until("ready")

    def read_until(self, word: str) -> None:
        text = ""
        while word not in text:
            piece = os.read(self.output, 4096).decode()
            assert piece, text
            text += piece

    def finish(self) -> str:
        """Let it go on to its end: what it says."""
        os.write(self.input, b"\n")
        with os.fdopen(self.output) as output:
            text = output.read()
        status = self.process.wait(30)
        assert status == 0, text
        return text.strip()

    def close(self) -> None:
        os.close(self.input)
        self.process.close()


@contextmanager
def running(box: Box, code: str) -> Iterator[Program]:
    program = Program(box, code)
    try:
        yield program
    finally:
        program.close()


MOVED = {
    "a working folder": ("ready(); open('here', 'w').write('new')", "new", "cat /srv/work/here"),
    "appending": (
        "f = open('log', 'a'); f.write('one\\n'); f.flush(); ready(); f.write('two\\n'); f.close()",
        "one\ntwo", "cat /srv/work/log",
    ),
    "a position": (
        "f = open('file', 'w+'); f.write('abcdef'); f.flush(); f.seek(2); ready(); f.write('XY'); f.close()",
        "abXYef", "cat /srv/work/file",
    ),
    "a shared mapping": (
        "f = open('map', 'w+b'); f.write(bytes(8192)); f.flush(); m = mmap.mmap(f.fileno(), 8192); f.close()\n"
        "ready(); m[:3] = b'new'; m[8189:] = b'end'",
        "new\nend", "head -c 3 /srv/work/map; echo; tail -c 3 /srv/work/map",
    ),
    "a mapping whose descriptor is closed": (
        "import ctypes; c = ctypes.CDLL(None); c.mmap.restype = ctypes.c_void_p\n"
        "f = open('map', 'w+b'); f.write(bytes(8192)); f.flush()\n"
        "a = c.mmap(None, 8192, 3, 1, f.fileno(), 0); f.close(); ctypes.memmove(a, b'old', 3); ready()\n"
        "ctypes.memmove(a, b'new', 3); ctypes.memmove(a + 8189, b'end', 3)",
        "new\nend", "head -c 3 /srv/work/map; echo; tail -c 3 /srv/work/map",
    ),
    "a deleted file": (
        "f = open('gone', 'w+'); os.unlink('gone'); f.write('1'); ready(); f.write('2'); f.seek(0)\n"
        "open('result', 'w').write(f.read())",
        "12\nresult", "cat /srv/work/result; echo; ls /srv/work",
    ),
    "a renamed file": (
        "f = open('old', 'w'); f.write('1'); f.flush(); os.rename('old', 'new'); ready(); f.write('2'); f.close()",
        "12\nnew", "cat /srv/work/new; echo; ls /srv/work",
    ),
    "a rename after it": (
        "f = open('old', 'w'); f.write('1'); f.flush(); ready(); os.rename('old', 'new'); f.write('2'); f.close()",
        "12\nnew", "cat /srv/work/new; echo; ls /srv/work",
    ),
    "a folder's descriptor": (
        "d = os.open('.', os.O_RDONLY); ready(); os.write(os.open('in', os.O_CREAT | os.O_WRONLY, dir_fd=d), b'x')",
        "x", "cat /srv/work/in",
    ),
    "one file open in two processes": (
        "f = open('log', 'w'); f.write('parent\\n'); f.flush()\n"
        "child = subprocess.Popen(['sh', '-c', 'read line; echo child'], stdin=subprocess.PIPE, stdout=f)\n"
        "ready(); child.communicate(b'go\\n'); f.write('again\\n'); f.close()",
        "parent\nchild\nagain", "cat /srv/work/log",
    ),
    "reading on": (
        "open('log', 'w').write('one\\n'); f = open('log'); f.read(); ready()\n"
        "open('log', 'a').write('two\\n'); open('seen', 'w').write(f.read())",
        "two", "cat /srv/work/seen",
    ),
    "a duplicate": (
        "f = open('dup', 'w'); fd = os.dup(f.fileno()); os.write(fd, b'1'); ready()\n"
        "f.write('2'); f.flush(); os.write(fd, b'3')",
        "123", "cat /srv/work/dup",
    ),
    "a file of another part": (
        "f = open('/etc/mine', 'w'); os.chdir('/etc'); ready(); f.write('1'); f.close(); open('also', 'w').write('2')",
        "1\n2", "cat /etc/mine; echo; cat /etc/also",
    ),
    "a thread in a call": (
        "r, w = os.pipe(); got = []\n"
        "t = threading.Thread(target=lambda: got.append(os.read(r, 9))); t.start()\n"
        "begin = time.monotonic(); s = threading.Thread(target=time.sleep, args=(0.3,)); s.start(); ready()\n"
        "os.write(w, b'through'); t.join(); s.join(); slept = time.monotonic() - begin >= 0.3\n"
        "open('got', 'w').write(f'{got[0].decode()} {slept}')",
        "through True", "cat /srv/work/got",
    ),
    "a lock taken after it": (
        "f = open('lock', 'w'); ready(); fcntl.flock(f, fcntl.LOCK_EX)\n"
        "done = subprocess.run(['flock', '-n', 'lock', 'true']); open('got', 'w').write(str(done.returncode))",
        "1", "cat /srv/work/got",
    ),
    "a socket elsewhere": (
        "s = socket.socket(socket.AF_UNIX); s.bind('/run/sock'); s.listen(); ready()\n"
        "c = socket.socket(socket.AF_UNIX); c.connect('/run/sock'); open('got', 'w').write('connected')",
        "connected", "cat /srv/work/got",
    ),
    "a deep tree": (
        "os.makedirs('/srv/' + 'd/' * 100); os.chdir('/srv/' + 'd/' * 100); f = open('f', 'w'); ready()\n"
        "f.write('deep'); f.close(); os.rename('f', '/srv/f')",
        "deep", "cat /srv/f",
    ),
}  # fmt: skip

COPIED = {
    "a lock": ("f = open('lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX)", "holds a lock on /srv/work/lock"),
    "a listening socket": (
        "s = socket.socket(socket.AF_UNIX); s.bind('/srv/work/s'); s.listen()", "socket at /srv/work/s"
    ),
    "a relative socket": ("s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen()", "has a socket at s"),
    "a FIFO": ("os.mkfifo('fifo'); f = os.open('fifo', os.O_RDWR)", "has /srv/work/fifo open"),
    "SQLite": (
        "d = sqlite3.connect('data'); d.execute('create table t (x)'); d.commit()", "SQLite database /srv/work/data"
    ),
    "two names": (
        "f = open('one', 'w'); f.write('1'); f.flush(); os.link('one', 'two')",
        "/srv/work/one, which has more than one name",
    ),
    "a temporary file": ("f = os.open('.', os.O_TMPFILE | os.O_RDWR)", "a temporary file that may be given a name"),
    "a listing": ("i = os.scandir('/srv'); os.makedirs('/srv/more'); next(i)", "is listing /srv"),
    "another root": (
        "os.makedirs('/srv/root'); child = os.fork()\nif child == 0: os.chroot('/srv/root'); time.sleep(60)\n"
        "while os.readlink(f'/proc/{child}/root') == '/': pass",
        "has another root folder",
    ),
    "a watched folder": (
        "import ctypes; c = ctypes.CDLL(None); assert c.inotify_add_watch(c.inotify_init(), b'/srv', 256) > 0",
        "watches files (inotify)",
    ),
    "a tracer": (
        "import ctypes; r, w = os.pipe(); child = os.fork()\n"
        "if child == 0: ctypes.CDLL(None).ptrace(0, 0, 0, 0); os.write(w, b'1'); time.sleep(60)\n"
        "os.read(r, 1)",
        "may not be traced",
    ),
    "a descriptor under way": (
        "a, b = socket.socketpair(); f = open('sent', 'w'); socket.send_fds(a, [b'x'], [f.fileno()]); f.close()",
        "descriptors under way",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MOVED)
def test_what_is_held_comes_along(what: str, make_box: Callable[..., Box], layer_of: Callable[[str], Path]) -> None:
    code, expected, look = MOVED[what]
    box = make_box()
    with running(box, code) as program:
        first = box.engine.snapshot(box.id)
        assert (first.road, first.reason) == ("moved", "")
        before = tree(layer_of(first.id))
        second = box.engine.snapshot(box.id)  # what was moved once can be moved again
        assert (second.road, second.reason) == ("moved", "")
        again = tree(layer_of(second.id))
        program.finish()
    assert box.out(look) == expected
    assert (tree(layer_of(first.id)), tree(layer_of(second.id))) == (before, again)
    third = make_box(image=first.id)
    assert third.run(look).stdout.strip() != expected


@pytest.mark.parametrize("what", COPIED)
def test_what_cannot_come_along_is_a_reason_to_copy(what: str, make_box: Callable[..., Box]) -> None:
    code, reason = COPIED[what]
    box = make_box()
    after = "ready(); open('after', 'w').write('1')\nif 'child' in dir(): os.kill(child, 9)"
    with running(box, f"{code}\n{after}") as program:
        image = box.engine.snapshot(box.id)
        assert image.road == "copied"
        assert reason in image.reason
        program.finish()
    assert box.out("cat /srv/work/after") == "1"
    assert make_box(image=image.id).run("test -e /srv/work/after").returncode == 1
    # the reason gone, the next one is quick
    assert box.engine.snapshot(box.id).road == "moved"


def test_mounts_stay_where_they_are(make_box: Callable[..., Box], tmp_path: Path) -> None:
    from nbhull.runtime.model import Mount

    (tmp_path / "outer/inner").mkdir(parents=True)
    mounts = (Mount(str(tmp_path / "outer"), "/srv/outer"), Mount(str(tmp_path), "/srv/outer/inner", read_only=True))
    box = make_box(mounts=mounts)
    look = "cut -d' ' -f5- /proc/self/mountinfo | grep -v ' overlay ' | sort; cat /etc/hostname; ls /dev/pts"
    before = box.out(look)
    for _ in range(3):
        assert box.engine.snapshot(box.id).road == "moved"
    assert box.out(look) == before
    box.out("echo through > /srv/outer/file")
    assert (tmp_path / "outer/file").read_text() == "through\n"
    assert box.run("echo no > /srv/outer/inner/file").returncode != 0


def tree(folder: Path) -> str:
    """All that is in a folder, with contents."""
    script = "find . -printf '%p %y %m %s %T@ %n %l\\n' | sort; find . -type f -exec sha256sum {} + | sort"
    return subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True, check=False).stdout
