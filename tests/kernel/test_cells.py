"""Cells that run in another container: from a kernel in a container, and from an ordinary one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from nbhull.kernel.cells.siblings import CELL_OF
from support.jupyter import (
    PATIENCE,
    Outcome,
    Place,
    Running,
    Start,
    ask_from_inside,
    execute,
    install_spec,
    kernels_by_name,
    value,
)
from support.waiting import eventually

GIB = 1 << 30


@pytest.fixture(scope="module")
def kernels(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    """Kernels that all tests of this module use, by their kernelspecs' names, each in a folder of its own."""
    install_spec("bounded", place.prefix, mounts=["/usr/share:/data:ro", "of-cells:/vol"], network="none")
    install_spec("limited-cells", place.prefix, memory="256m", cpus=1, pids=200, network="none")

    def start(name: str, manager: KernelManager) -> None:
        manager.start_kernel(cwd=str(tmp_path_factory.mktemp("cells")))

    with kernels_by_name(start) as get:
        yield get


@pytest.fixture(params=["nbhull", "python3"])
def both(request: pytest.FixtureRequest, kernels: Callable[[str], Running]) -> Running:
    """A kernel in a container, and one that is in none."""
    return kernels(request.param)


@pytest.fixture
def bounded(kernels: Callable[[str], Running]) -> Running:
    return kernels("bounded")


@pytest.fixture
def limited(kernels: Callable[[str], Running]) -> Running:
    return kernels("limited-cells")


LIMITED = pytest.mark.requires("cgroup-memory", "cgroup-cpu", "cgroup-pids")


def cells_of(place: Place) -> list[str]:
    """The containers of cells that there are, of any engine of this store."""
    return [c.name for c in place.engine.containers() if not c.name.startswith("kernel-") or "-cell-" in c.name]


def run(client: BlockingKernelClient, options: str, code: str) -> Outcome:
    return execute(client, f"%%container run {options}\n{code}")


# -- what it gives ---------------------------------------------------------------------------------


def test_a_cell_of_shell(both: Running, place: Place) -> None:
    _, client = both
    outcome = run(client, "host", "echo to-output; echo to-errors >&2; hostname; echo written > from-the-cell; id -u")
    assert outcome.status == "ok", outcome.errors
    lines = outcome.text.split()
    assert lines[0] == "to-output"
    assert lines[1] != socket.gethostname()
    assert lines[1] != value(client, "__import__('socket').gethostname()")
    assert lines[2] == "0"
    assert outcome.errors.strip() == "to-errors"
    assert value(client, "open('from-the-cell').read()") == "written"
    assert value(client, "__import__('os').stat('from-the-cell').st_uid == __import__('os').getuid()") == "True"
    assert cells_of(place) == []


def test_a_cell_of_python(both: Running) -> None:
    _, client = both
    code = "import sys, os\nprint(sys.argv[1:], __name__, os.getpid() < 20)\n6 * 7"
    outcome = run(client, "--python host one two", code)
    assert outcome.text.splitlines() == ["['one', 'two'] __main__ True", "42"]
    failed = run(client, "--python host", "def f():\n    return 1 / 0\nf()")
    assert failed.status == "error"
    assert '"<cell>", line 3, in <module>' in failed.errors
    assert "run.py" not in failed.errors
    assert "ended with status 1" in failed.evalue


def test_variables_of_python(both: Running) -> None:
    _, client = both
    assert execute(client, "a, same, text = [1, float('inf')], {'k': (1, b'2')}, 'ünï\\n'; first = same").status == "ok"
    outcome = run(
        client,
        "--python -v a -v same -v text -v new host",
        "assert same == {'k': (1, b'2')}, same\na.append(text)\nnew = {1: {2, 3}, 'c': 1j}\ndel text",
    )
    assert outcome.status == "ok", outcome.errors
    assert value(client, "(a, new)") == "([1, inf, 'ünï\\n'], {1: {2, 3}, 'c': 1j})"
    assert value(client, "(same is first, text == 'ünï\\n')") == "(True, True)"


def test_variables_of_shells_and_others(both: Running) -> None:
    _, client = both
    execute(client, "n, text = 5, \"it's $HOME\\n\"")
    outcome = run(client, "-v n -v text -v out host", 'set -eu\nprintf %s "$text"; out="$text+$n"; (exit 3)')
    assert outcome.text == "it's $HOME\n"
    assert "status 3" in outcome.evalue
    assert value(client, "(n, text, out)") == "(5, \"it's $HOME\\n\", \"it's $HOME\\n+5\")"
    outcome = run(client, "--interpreter 'sh -e' -v n host", 'echo "[$n]" >"$NBHULL_OUT/n"')
    assert outcome.status == "ok", outcome.errors
    assert value(client, "n") == "[5]"


def test_arrays_and_data_frames(both: Running) -> None:
    _, client = both
    code = """import numpy as np, pandas as pd
a = np.arange(6.0).reshape(2, 3)[:, ::2]
frame = pd.DataFrame({"n": [1, 2], "s": ["x", None], "t": pd.to_datetime(["2020-01-01", None])}, index=["r", "q"])
series, odd = pd.Series([1.5, None], name="s"), pd.Series(["a"], dtype="category")
before = frame.copy()"""
    assert execute(client, code).status == "ok"
    code = "a *= 2\nframe.loc['q', 'n'] = 7\nseries = series.fillna(0)\nnew = frame.dtypes.astype(str).tolist()"
    outcome = run(client, "--python -v a -v frame -v series -v new host", code)
    assert outcome.status == "ok", outcome.errors
    before = "before.loc['q', 'n'] = 7; pd.testing.assert_frame_equal(frame, before)"
    assert execute(client, before).status == "ok"
    assert value(client, "(a.tolist(), series.tolist(), series.name)") == "([[0.0, 4.0], [6.0, 10.0]], [1.5, 0.0], 's')"
    assert value(client, "new == before.dtypes.astype(str).tolist()") == "True"
    assert "odd cannot be handed in: its column None has the type category" in run(client, "-v odd host", "true").evalue


@pytest.mark.requires("Rscript")
def test_a_cell_of_r(both: Running) -> None:
    _, client = both
    code = """import numpy as np, pandas as pd
m, numbers, table, text, nothing = np.arange(6).reshape(2, 3), [1, 2, None], {"x": 1, "y": ["a"]}, 'a "q"\\\\ ü', None
frame = pd.DataFrame({"n": [1, 2], "s": ["x", None]})"""
    assert execute(client, code).status == "ok"
    code = """stopifnot(identical(dim(m), c(2L, 3L)), m[2, 1] == 3, is.na(numbers[3]), table$y == "a", is.null(nothing))
stopifnot(identical(frame$n, c(1L, 2L)), is.na(frame$s[2]))
numbers <- sum(numbers, na.rm = TRUE)
frame$f <- factor(c("u", "v"))
back <- list(v = c(TRUE, FALSE), inf = -Inf, none = NULL, text = text)
m + 1L"""
    names = "".join(f"-v {name} " for name in ("m", "numbers", "table", "text", "nothing", "frame", "back"))
    outcome = run(client, f"--r {names} host one", code)
    assert outcome.status == "ok", outcome.errors
    assert "[2,]    4    5    6" in outcome.text
    assert value(client, "(numbers, frame['f'].tolist())") == "(3, ['u', 'v'])"
    assert value(client, "back") == str({"v": [True, False], "inf": float("-inf"), "none": None, "text": 'a "q"\\ ü'})
    failed = run(client, "--r -v numbers host", "numbers <- 4\nwarning('careful')\nstop('not good')")
    assert "Warning: careful" in failed.errors
    assert "Error: not good" in failed.errors
    assert "status 1" in failed.evalue
    assert value(client, "numbers") == "4"


def test_what_cannot_travel_is_named(both: Running) -> None:
    _, client = both
    execute(client, "thing, kept = open('/dev/null'), 1")
    outcome = run(client, "--python -v thing host", "print('ran')")
    assert "the variable thing cannot be handed in: a TextIOWrapper" in outcome.evalue
    assert outcome.text == ""
    outcome = run(client, "--python -v kept -v bad host", "bad = print\nkept = 2")
    assert "the variable bad was not handed back: a builtin_function_or_method" in outcome.evalue
    assert value(client, "(kept, 'bad' in globals())") == "(2, False)"
    outcome = run(client, "--python -v kept host", "kept = 'x' * (9 << 20)")
    assert "larger than 8 MiB" in outcome.evalue
    assert value(client, "kept") == "2"


def test_values_are_on_no_command_line(both: Running) -> None:
    _, client = both
    execute(client, "secret = 'open-' + 'sesame'")
    for options in ("", "--python"):
        python = "import glob\n[open(p).read() for p in glob.glob('/proc/[0-9]*/cmdline')]"
        code = python if options else "cat /proc/[0-9]*/cmdline"
        outcome = run(client, f"{options} -v secret host", code)
        assert outcome.status == "ok"
        assert "sesame" not in outcome.text
        assert "run." in outcome.text


def test_lines_and_mistakes(both: Running, place: Place) -> None:
    _, client = both
    assert execute(client, "%container run host echo from a line").text == "from a line\n"
    for line, message in {
        "%container run --python host x": "--python needs a cell",
        "%%container run --python --r host\n1": "exclude each other",
        "%%container run no-such-image\n1": "there is no image 'no-such-image'",
        "%%container run --interpreter nothing host\n1": "the image host has no program 'nothing'",
        "%%container run -v 1x host\n1": "'1x' is not a variable's name",
        "%%container run -v x --entrypoint y host\n1": "--entrypoint is for commands",
        "%%container images\n1": "`images` takes no cell",
    }.items():
        outcome = execute(client, line)
        assert outcome.status == "error"
        assert message in outcome.evalue
    outcome = run(client, "host", "kill -SEGV $$")
    assert "the cell crashed" in outcome.evalue
    assert cells_of(place) == []


def test_completion(both: Running) -> None:
    _, client = both

    def completed(line: str) -> list[str]:
        return list(client.complete(line, reply=True, timeout=PATIENCE)["content"]["matches"])

    assert "--python" in completed("%%container run --py")
    assert "host" in completed("%%container run ho")


# -- live, and interrupted -------------------------------------------------------------------------


def run_until_seen(client: BlockingKernelClient, code: str, word: str) -> str:
    """Begin a cell, and wait until its output has a word; gives the request's id."""
    request: str = client.execute(code, allow_stdin=False)
    text = ""
    while word not in text:
        message = client.get_iopub_msg(timeout=PATIENCE)
        if message["parent_header"].get("msg_id") == request and message["msg_type"] == "stream":
            text += message["content"]["text"]
    return request


def reply_to(client: BlockingKernelClient, request: str) -> dict[str, Any]:
    while True:
        reply: dict[str, Any] = client.get_shell_msg(timeout=PATIENCE)
        if reply["parent_header"]["msg_id"] == request:
            content: dict[str, Any] = reply["content"]
            return content


@pytest.mark.parametrize(
    "code",
    [
        "%%container run host\necho seen; exec sleep 1000",
        "%%container run host\ntrap '' INT TERM; echo seen; while true; do echo more; done",
        "import asyncio\nawait asyncio.sleep(0)\n%container run host sh -c 'echo seen; sleep 1000'",
    ],
)
def test_output_is_live_and_an_interrupt_leaves_nothing(both: Running, place: Place, code: str) -> None:
    manager, client = both
    request = run_until_seen(client, code, "seen")
    manager.interrupt_kernel()
    reply = reply_to(client, request)
    assert cells_of(place) == [], "its container is there when the cell has ended"
    assert reply["ename"] == "CellInterrupted"
    assert execute(client, "print('goes on')").text == "goes on\n"


def test_cells_end_with_their_kernel(start: Start, place: Place) -> None:
    manager, client = start()
    run_until_seen(client, "%%container run host\necho seen; exec sleep 1000", "seen")
    assert execute_ps(place, manager) == 1
    manager.restart_kernel(now=True)
    eventually(lambda: cells_of(place) == [], "the cell's container goes with the kernel that asked for it")
    client.wait_for_ready(timeout=PATIENCE)
    run_until_seen(client, "%%container run host\necho seen; exec sleep 1000", "seen")
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    assert cells_of(place) == []


def execute_ps(place: Place, manager: KernelManager) -> int:
    name = manager.provisioner.contained.name
    return sum(c.spec.labels.get(CELL_OF) == name for c in place.engine.containers())


# -- never wider than the kernel -------------------------------------------------------------------


def test_a_cell_has_what_its_kernel_has(bounded: Running) -> None:
    _, client = bounded
    outcome = run(client, "host", "ls /sys/class/net; touch /data/x; cat /proc/self/status | grep CapEff")
    assert "lo" in outcome.text
    assert "eth0" not in outcome.text
    assert "Read-only" in outcome.errors


@LIMITED
def test_a_cell_meets_its_kernel_s_limit(limited: Running) -> None:
    outcome = run(limited[1], "--python host", "x = bytearray(400 << 20)")
    assert "memory limit of 256 MiB" in outcome.evalue, outcome


def ask(client: BlockingKernelClient, **params: Any) -> dict[str, Any]:
    """The reply to a request to run a cell that no magic has made."""
    return ask_from_inside(client, "run", {"image": "host", "command": ["true"]} | params)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"network": "host"}, "its kernelspec allows 'none' at most"),
        ({"network": "nat"}, "its kernelspec allows 'none' at most"),
        ({"mounts": ["/etc:/host-etc"]}, "the folder '/etc', which is none of those that its kernel was given"),
        ({"mounts": ["/data/..:/x"]}, "not an absolute path"),
        ({"mounts": ["/data/dict:/x"]}, "none of those that its kernel was given"),
        ({"mounts": ["other:/x"]}, "the volume 'other', which is none of those that its kernel was given"),
        ({"privileged": True}, "privileged, which only a kernelspec may set"),
        ({"cap_add": ["SYS_ADMIN"]}, "cap_add, which only"),
        ({"security_opt": ["seccomp=/etc/shadow"]}, "security_opt, which only"),
        ({"devices": ["/dev/sda"]}, "devices, which only"),
        ({"prefix": "/root"}, "prefix, which only"),
        ({"memory_swap": -1}, "memory_swap, which only"),
        ({"control": "none"}, "control, which only"),
        ({"no-such": 1}, "no-such, which only"),
    ],
)
def test_wider_than_the_kernel_is_refused(bounded: Running, place: Place, settings: dict[str, Any], told: str) -> None:
    reply = ask(bounded[1], settings=settings)
    assert told in reply["error"]["message"]
    assert reply["error"]["data"]["hint"]
    assert cells_of(place) == []


@LIMITED
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"memory": GIB}, "memory 1.0 GiB, but its kernel has memory 256 MiB"),
        ({"cpus": 2}, "cpus 2, but its kernel has cpus 1"),
        ({"pids": 201}, "pids 201, but its kernel has pids 200"),
    ],
)
def test_more_than_the_kernel_is_refused(limited: Running, place: Place, settings: dict[str, Any], told: str) -> None:
    reply = ask(limited[1], settings=settings)
    assert told in reply["error"]["message"]
    assert cells_of(place) == []


def test_a_mount_stays_read_only(bounded: Running) -> None:
    outcome = run(bounded[1], "--volume /data:/more host", "ls /more/dict >/dev/null 2>&1; touch /more/x")
    assert "Read-only" in outcome.errors


@pytest.mark.parametrize(
    "params",
    [
        {"image": "../x"},
        {"image": 5},
        {"command": "true"},
        {"command": ["tr\0ue"]},
        {"files": {"../x": ""}},
        {"files": {"out": ""}},
        {"files": {"a/b": ""}},
        {"files": [1]},
        {"files": {"x": 5}},
        {"wanted": ["../cell"]},
        {"wanted": ["x"] * 1000},
        {"env": {"A=B": "x"}},
        {"env": [1]},
        {"cwd": "relative"},
        {"user": 5},
        {"settings": 5},
        {"with_folder": 5},
        {"pull": "perhaps"},
    ],
)
def test_malformed_requests(bounded: Running, place: Place, params: dict[str, Any]) -> None:
    assert ask(bounded[1], **params)["error"]["data"]["kind"] in ("InvalidInput", "NotFound")
    assert cells_of(place) == []


@LIMITED
def test_cells_together_have_what_the_kernel_has(limited: Running, place: Place) -> None:
    code = """import json, os, socket
def begin(memory):
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(os.environ["NBHULL_CONTROL"])
    params = {"image": "host", "command": ["sh", "-c", "echo begun; exec sleep 1000"],
              "settings": {"memory": memory << 20, "cpus": 0.3, "pids": 50}}
    channel.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "run", "params": params}).encode() + b"\\n")
    return channel, channel.makefile("rb").readline().decode()
first = begin(156)
assert '"output"' in first[1], first
second = begin(101)
print(second[1])
first[0].close()"""
    outcome = execute(limited[1], code)
    assert outcome.status == "ok", outcome.errors
    assert "cells that run use memory 156 MiB of the 256 MiB that they have together" in outcome.text
    execute(limited[1], "del first")
    eventually(lambda: cells_of(place) == [], "a cell ends when its connection is closed")


@pytest.mark.parametrize("trap", ["ln -s {outside} v", "mkfifo v", "mkdir v", "ln -s . ../out/v"])
def test_what_it_leaves_may_be_a_trap(bounded: Running, tmp_path: Path, trap: str) -> None:
    """Links to the host's files, FIFOs and folders in place of what is handed back."""
    outside = tmp_path / "outside"
    outside.write_text("of the host")
    command = f"cd $OUT && {trap.format(outside=outside)}"
    reply = ask(bounded[1], command=["sh", "-c", command], env={"OUT": "{folder}/out"}, wanted=["v"])
    if "result" in reply:
        assert (reply["result"]["status"], reply["result"]["files"]) == (0, {})
    else:
        assert reply["error"]["data"]["kind"] == "InvalidInput"


def test_the_rules_may_forbid_it(
    kernels: Callable[[str], Running], place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client = kernels("nbhull")
    (tmp_path / "nbhull").mkdir()
    rules = tmp_path / "nbhull/config.toml"
    rules.write_text("[kernels]\nsiblings = false\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    outcome = run(client, "host", "echo ran")
    assert "not allowed by" in outcome.evalue
    assert "kernels.siblings = false" in outcome.evalue
    rules.write_text('[limits]\nmemory = { max = "1g" }\n[images]\nallowed = ["other"]\n')
    assert "images.allowed" in run(client, "host", "echo ran").evalue


def test_a_kernelspec_may_forbid_it(start: Start, place: Place) -> None:
    _, client = start(install_spec("itself-alone", place.prefix, control="self"))
    assert execute(client, "%container").status == "ok"
    outcome = run(client, "host", "echo ran")
    assert "its own container alone" in outcome.evalue
    assert '"control": "siblings"' in outcome.evalue
