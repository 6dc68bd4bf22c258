"""`nbhull run` and `nbhull exec`, in real containers: statuses, streams, options, signals, terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from support.waiting import eventually

NBHULL = [sys.executable, "-m", "nbhull.runtime.cli"]
READY_UNTIL_TRAPPED = "trap 'echo got; exit 3' {}; echo ready; while :; do sleep 0.05; done"


@pytest.fixture(autouse=True)
def _clean_store(engine: Engine) -> None:
    """Each test has a store of its own, emptied at its end."""


def nbhull(*words: str, stdin: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run([*NBHULL, *words], capture_output=True, text=True, check=False, cwd=cwd, **source)


def started(*words: str) -> subprocess.Popen[str]:
    """nbhull in the background, once its command has printed a line."""
    process = subprocess.Popen([*NBHULL, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.nosubuid
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("true", 0),
        ("sh -c 'exit 42'", 42),
        ("sh -c 'kill -9 $$'", 137),
        ("sh -c 'kill -TERM $$'", 143),
        ("no-such-program", 127),
        ("/no/such/program", 127),
        ("/etc/passwd", 126),
        ("/usr", 126),
    ],
)
def test_exit_statuses_are_the_commands_own(command: str, status: int, engine: Engine) -> None:
    import shlex

    done = nbhull("run", "--rm", "host", *shlex.split(command))
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == (2 if status in (126, 127) else 0)
    assert engine.containers() == []


@pytest.mark.parametrize(
    ("words", "status", "message", "hint"),
    [
        (["run", "no-such-image", "true"], 125, "no-such-image", "nbhull images"),
        (["run", "-m", "12 elephants", "host", "true"], 125, "memory limit '12 elephants' is not a size", "512m"),
        (["run", "-v", "/no/such/folder:/data", "host", "true"], 125, "/no/such/folder", ""),
        (["run", "-w", "/no/such/folder", "host", "true"], 126, "/no/such/folder", ""),
        (["run", "-u", "nobdy", "host", "true"], 125, "nobdy", "number"),
        (["run", "-it", "host", "true"], 125, "standard input is not a terminal", "leave out '-t', or '-i'"),
        (["exec", "no-such-container", "true"], 125, "no-such-container", "nbhull ps -a"),
        (["stop", "no-such-container"], 1, "no-such-container", "nbhull ps -a"),
        (["rnu"], 2, "unknown verb 'rnu'", "did you mean 'run'?"),
        (["ps", "--josn"], 2, "unknown option '--josn'", "did you mean '--json'?"),
    ],
)
def test_failures_are_one_line_and_a_hint(
    words: list[str], status: int, message: str, hint: str, engine: Engine
) -> None:
    done = nbhull(*words)
    assert (done.returncode, done.stdout) == (status, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("nbhull: ")
    assert message in first
    assert second.startswith("  hint: ")
    assert hint in second
    assert engine.containers() == []


def test_streams_are_our_own_and_standard_input_only_if_asked_for() -> None:
    script = "cat; echo out; echo err >&2"
    done = nbhull("run", "--rm", "-i", "host", "sh", "-c", script, stdin="typed\n")
    assert (done.stdout, done.stderr) == ("typed\nout\n", "err\n")
    done = nbhull("run", "--rm", "host", "sh", "-c", script, stdin="typed\n")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


@pytest.mark.requires("subuid")
def test_options_reach_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_HERE", "here")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("content\n")
    options = (
        "-e A=1 --env=FROM_HERE -w /usr -u nobody --hostname box -v ./data:/data -v ./data:/fixed:ro --network none"
    )
    script = (
        "echo $A $FROM_HERE $PWD $(id -un) $(hostname); cat /data/file; ls /sys/class/net; "
        "touch /fixed/new 2>/dev/null || echo read-only"
    )
    done = nbhull("run", "--rm", *options.split(), "host", "sh", "-c", script, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout == "1 here /usr nobody box\ncontent\nlo\nread-only\n"


@pytest.mark.requires("cgroup-memory")
def test_the_memory_limit_holds() -> None:
    done = nbhull("run", "--rm", "-m", "64m", "host", "python3", "-c", "len(bytearray(1 << 28))")
    assert done.returncode == 137


def test_a_container_stays_unless_it_is_to_be_removed(engine: Engine) -> None:
    nbhull("run", "--rm", "--name", "gone", "host", "true")
    nbhull("run", "--name", "kept", "host", "sh", "-c", "echo kept > /srv/file; sleep 1000 &")
    assert [(c.name, c.state) for c in engine.containers()] == [("kept", "stopped")]
    assert nbhull("snapshot", "kept", "keepsake").stdout == "keepsake\n"
    assert nbhull("run", "--rm", "keepsake", "cat", "/srv/file").stdout == "kept\n"


def test_without_a_command_a_shell_runs() -> None:
    assert nbhull("run", "--rm", "-i", "host", stdin="echo $((6 * 7))\n").stdout == "42\n"


# -- signals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"])
def test_signals_are_forwarded(name: str) -> None:
    process = started("run", "--rm", "host", "sh", "-c", READY_UNTIL_TRAPPED.format(name))
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.communicate(timeout=30)[0] == "got\n"
    assert process.returncode == 3


def test_a_signal_that_the_command_does_not_catch_ends_it(engine: Engine) -> None:
    process = started("run", "--rm", "host", "sh", "-c", "echo ready; exec sleep 1000")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    process.communicate()
    assert engine.containers() == []


def test_signals_reach_what_exec_started(engine: Engine) -> None:
    outer = started("run", "--name", "box", "host", "sh", "-c", "echo ready; exec sleep 1000")
    inner = started("exec", "box", "sh", "-c", READY_UNTIL_TRAPPED.format("INT"))
    inner.send_signal(signal.SIGINT)
    assert inner.communicate(timeout=30)[0] == "got\n"
    assert inner.returncode == 3
    assert engine.container("box").state == "running"
    assert nbhull("stop", "-t", "0", "box").stdout == "box\n"
    outer.communicate(timeout=30)
    assert outer.returncode == 137


# -- terminals ---------------------------------------------------------------------------------


class TerminalSession:
    """nbhull with a terminal of its own as standard streams, which the test types on and reads from."""

    def __init__(self, *words: str) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (11, 77))
        self.settings = termios.tcgetattr(self.slave)
        self.seen = b""
        self.process = subprocess.Popen(
            [*NBHULL, *words],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def read_until(self, text: bytes) -> bytes:
        while text not in self.seen:
            self.seen += os.read(self.master, 65536)
        return self.seen

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def end(self) -> int:
        """Read all that is left; the exit status, once our terminal has its settings back."""
        status = None
        os.set_blocking(self.master, False)
        while status is None:
            status = self.process.poll()
            try:
                while data := os.read(self.master, 65536):
                    self.seen += data
            except BlockingIOError:
                os.sched_yield()
        assert termios.tcgetattr(self.slave) == self.settings
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def sessions() -> Iterator[list[TerminalSession]]:
    opened: list[TerminalSession] = []
    yield opened
    for session in opened:
        session.close()


def on_terminal(sessions: list[TerminalSession], *words: str) -> TerminalSession:
    sessions.append(TerminalSession(*words))
    return sessions[-1]


@pytest.mark.nosubuid
def test_a_terminal_has_our_size_and_follows_it(sessions: list[TerminalSession]) -> None:
    script = "stty size; trap 'stty size; exit 5' WINCH; echo ready; while :; do sleep 0.05; done"
    session = on_terminal(sessions, "run", "--rm", "-it", "host", "sh", "-c", script)
    session.read_until(b"ready\r\n")
    termios.tcsetwinsize(session.master, (22, 99))
    assert session.end() == 5
    assert session.seen == b"11 77\r\nready\r\n22 99\r\n"


def test_control_c_goes_to_what_runs_in_the_terminal(sessions: list[TerminalSession]) -> None:
    session = on_terminal(sessions, "run", "--rm", "-it", "host", "sh", "-c", READY_UNTIL_TRAPPED.format("INT"))
    session.read_until(b"ready")
    session.type(b"\x03")
    assert session.end() == 3
    assert session.seen.endswith(b"got\r\n")


def test_a_shell_in_a_terminal(sessions: list[TerminalSession]) -> None:
    session = on_terminal(sessions, "run", "--rm", "-it", "-e", "PS1=% ", "host", "/bin/sh")
    session.read_until(b"% ")
    session.type(b"test -t 0 && test -t 1 && echo $TERM-$((6 * 7))\r")
    session.read_until(b"-42\r\n")
    session.type(b"\x04")
    assert session.end() == 0


def test_no_output_is_lost_at_the_end(sessions: list[TerminalSession]) -> None:
    session = on_terminal(
        sessions, "run", "--rm", "-it", "host", "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo end"
    )
    assert session.end() == 0
    assert session.seen == b"x" * 1_000_000 + b"end\r\n"


def test_typing_much_while_nobody_reads_does_not_block(sessions: list[TerminalSession]) -> None:
    # by the time that it has read one byte we are typing, and it writes far more than any buffer holds
    write, read = "head -c 3000000 /dev/zero | tr '\\0' x", "head -c 199999 | wc -c"
    script = f"stty raw -echo; echo ready; head -c 1 > /dev/null; {write}; {read}"
    session = on_terminal(sessions, "run", "--rm", "-it", "host", "sh", "-c", script)
    session.read_until(b"ready")
    typed = b"y" * 200_000
    os.set_blocking(session.master, False)
    while typed:
        try:
            typed = typed[os.write(session.master, typed) :]
        except BlockingIOError:
            try:
                session.seen += os.read(session.master, 65536)
            except BlockingIOError:
                os.sched_yield()
    assert session.end() == 0
    assert session.seen.count(b"x") == 3_000_000
    assert session.seen.endswith(b"199999\n")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_our_terminal_is_restored_when_a_signal_ends_us(sessions: list[TerminalSession], sent: int) -> None:
    session = on_terminal(sessions, "run", "--rm", "-it", "host", "sh", "-c", "echo ready; exec sleep 1000")
    session.read_until(b"ready")
    session.process.send_signal(sent)
    assert session.end() == 128 + sent


def test_our_terminal_is_restored_when_the_command_cannot_start(sessions: list[TerminalSession]) -> None:
    session = on_terminal(sessions, "run", "--rm", "-it", "host", "no-such-program")
    assert session.end() == 127
    assert session.seen.startswith(b"nbhull: cannot execute 'no-such-program'")


def test_a_terminal_without_standard_input() -> None:
    done = nbhull("run", "--rm", "-t", "host", "sh", "-c", "test -t 1 && echo yes")
    assert (done.stdout, done.returncode) == ("yes\n", 0)


def test_exec_gives_a_terminal_too_and_what_was_written_at_the_end_still_comes(
    sessions: list[TerminalSession], engine: Engine
) -> None:
    outer = started("run", "--rm", "--name", "box", "host", "sh", "-c", "echo ready; exec sleep 1000")
    script = "stty size; head -c 20000 /dev/zero | tr '\\0' x; touch /srv/done"
    session = on_terminal(sessions, "exec", "-it", "box", "sh", "-c", script)
    # nobody reads until the command has ended, so nbhull still has most of it to copy then
    eventually(lambda: engine.listdir("box", "/srv"), "the command's end")
    assert session.end() == 0
    assert session.seen == b"11 77\r\n" + b"x" * 20_000
    outer.terminate()
    outer.communicate(timeout=30)
