"""Limits hold, are seen by programs, and are told when they are met; one that cannot hold is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime import cores
from nbhull.runtime.ends import explain_end, explain_limits, read_end
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import HostUnable, InvalidInput, NotFound
from nbhull.runtime.limits import THREADS, Limits
from nbhull.runtime.model import ContainerSpec
from support.boxes import Box

PATH = {"PATH": "/usr/bin:/bin"}


def nbhull(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nbhull.runtime.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# -- what programs see ---------------------------------------------------------------------------


@pytest.mark.requires("cgroup-cpu")
def test_programs_see_as_many_cores_as_they_may_use(make_box: Callable[..., Box]) -> None:
    box = make_box(limits=Limits(cpus=0.8))
    code = "import os, multiprocessing as m; print(os.cpu_count(), m.cpu_count(), len(os.sched_getaffinity(0)))"
    assert box.out(f'python3 -c "{code}"; nproc; grep -c ^processor /proc/cpuinfo', env=PATH) == "1 1 1\n1\n1"
    seen = dict(line.split("=", 1) for line in box.out("env").splitlines())
    assert {seen[name] for name in THREADS} == {"1"}
    assert box.out("echo $OMP_NUM_THREADS", env={"OMP_NUM_THREADS": "3"}) == "3"
    core = box.out("cat /sys/devices/system/cpu/online")
    assert core == box.out("grep Cpus_allowed_list /proc/self/status | cut -f2")
    assert box.run("echo 0-99 > /sys/devices/system/cpu/online").returncode != 0


@pytest.mark.requires("cgroup-cpu")
def test_containers_are_dealt_different_cores(make_box: Callable[..., Box]) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("there is one core")
    boxes = [make_box(limits=Limits(cpus=1)) for _ in range(2)]
    assert len({box.out("cat /sys/devices/system/cpu/online") for box in boxes}) == 2


def test_without_a_limit_programs_see_the_machine(box: Box) -> None:
    assert box.out("cat /sys/devices/system/cpu/online") == Path(cores.ONLINE).read_text().strip()
    assert "OMP_NUM_THREADS" not in box.out("env")


@pytest.mark.parametrize(("text", "numbers"), [("0", [0]), ("0-2,5", [0, 1, 2, 5]), ("3,1-1, 2", [1, 2, 3])])
def test_lists_of_cores(text: str, numbers: list[int]) -> None:
    assert cores.parse(text) == numbers
    assert cores.parse(cores.write(numbers)) == numbers


@pytest.mark.parametrize("text", ["", "a", "2-1", "-1", "1-", "0-99999", "1,,2"])
def test_what_is_no_list_of_cores(text: str) -> None:
    with pytest.raises(InvalidInput):
        cores.parse(text)


# -- limits that hold ----------------------------------------------------------------------------


@pytest.mark.requires("cgroup-cpuset")
def test_a_set_of_cores_cannot_be_left(make_box: Callable[..., Box]) -> None:
    box = make_box(limits=Limits(cpuset="0"))
    code = "import os; os.sched_setaffinity(0, range(64)); print(os.sched_getaffinity(0))"
    assert box.out(f'python3 -c "{code}"', env=PATH) == "{0}"


@pytest.mark.requires("cgroup-memory")
def test_memory_and_swap_are_set_together(make_box: Callable[..., Box]) -> None:
    box = make_box(limits=Limits(memory=64 << 20, memory_swap=-1, cpu_shares=512))
    assert box.engine.usage(box.id).memory_limit == 64 << 20


@pytest.mark.requires("cgroup-memory", "cgroup-pids")
def test_events_are_counted_and_outlive_the_container(make_box: Callable[..., Box]) -> None:
    box = make_box(limits=Limits(memory=64 << 20, pids=20))
    assert box.engine.events(box.id) == {}
    box.run("python3 -c 'bytearray(200 << 20)'", env=PATH)
    box.run("for i in $(seq 40); do sleep 60 > /dev/null 2>&1 & done")
    events = box.engine.events(box.id)
    assert events["oom_kills"] == 1
    assert events["pids_hits"] >= 1
    box.engine.stop(box.id, 0)
    assert box.engine.events(box.id)["oom_kills"] == 1
    box.engine.start(box.id)
    assert box.engine.events(box.id) == {}
    box.engine.stop(box.id, 0)
    assert box.engine.events(box.id) == {}


@pytest.mark.requires("cgroup-memory", "cgroup-pids")
def test_run_says_which_limit_was_met(store: Path) -> None:
    done = nbhull("run", "--rm", "-m", "64m", "host", "python3", "-c", "bytearray(200 << 20)")
    assert done.returncode == 137
    assert "the container went over its memory limit of 64 MiB: a process of it was killed" in done.stderr
    forks = "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 9 & done"
    done = nbhull("run", "--name", "forked", "--pids-limit", "10", "host", "sh", "-c", forks)
    assert "nbhull: the container is at its limit of 10 processes and threads (pids)" in done.stderr
    # and `ps -a` and `inspect` later
    assert re.search(r"stopped \d+ seconds? ago \(out of processes, status 2\)", nbhull("ps", "-a").stdout)
    (told,) = json.loads(nbhull("inspect", "forked").stdout)
    assert told["status"] == 2
    assert told["reason"].startswith("its command ended by itself with status 2; the container is at its limit of 10")
    assert 0 <= time.time() - told["ended"] < 60


@pytest.mark.parametrize(
    ("status", "events", "short", "reason"),
    [
        ("0", {}, "status 0", ""),
        ("3", {}, "status 3", "its command ended by itself with status 3"),
        ("-11", {}, "SIGSEGV", "its command crashed: a program in it was ended by the signal SIGSEGV"),
        (
            "-9",
            {"memory": 64 << 20, "memory_hits": 0, "oom_kills": 1},
            "out of memory, SIGKILL",
            "its command went over its memory limit of 64 MiB and was killed",
        ),
        (
            "0",
            {"disk": 20 << 20, "disk_hits": 2},
            "out of disk quota",
            "the container is over its disk quota of 20 MiB",
        ),
        (None, {}, "", ""),
        ("rubbish", {}, "", ""),
    ],
)
def test_what_is_said_of_an_end(
    tmp_path: Path, status: str | None, events: dict[str, int], short: str, reason: str
) -> None:
    assert read_end(str(tmp_path)) is None
    (tmp_path / "events").write_text("".join(f"{k}={v}\n" for k, v in {"ended": 1000, **events}.items()))
    if status is not None:
        (tmp_path / "status").write_text(status)
    end = read_end(str(tmp_path))
    assert end is not None
    assert (end.when, end.short, end.reason) == (1000, short, reason)


@pytest.mark.requires("root", "cgroup-cpu")
def test_realtime_scheduling_that_a_cgroup_refuses_is_told_with_what_mends_it(store: Path) -> None:
    """Where the kernel deals out realtime to groups (CONFIG_RT_GROUP_SCHED), new ones have none."""
    command = ["chrt", "-f", "1", sys.executable, "-m", "nbhull.runtime.cli", "run", "--rm", "--cpus", "1", "host"]
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        assert "entering a cgroup with realtime scheduling" in done.stderr
        assert "hint: start it with ordinary scheduling: chrt -o 0 COMMAND" in done.stderr


@pytest.mark.nosubuid
def test_a_fork_bomb_stops_by_itself(make_box: Callable[..., Box]) -> None:
    box = make_box()
    assert int(box.out("grep 'Max processes' /proc/self/limits | tr -s ' ' | cut -d' ' -f3")) <= 4096 or (
        box.engine.usage(box.id).pids_limit == 4096
    )


@pytest.mark.nosubuid
def test_a_container_is_killed_before_its_server(box: Box) -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(box.out("cat /proc/self/oom_score_adj")) == min(1000, own + 500)
    assert int(Path(f"/proc/{box.engine.launcher().pid}/oom_score_adj").read_text()) == own


# -- limits that are refused ---------------------------------------------------------------------


@pytest.mark.requires("user")
@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ({"memory": 1 << 26}, "memory"),
        ({"cpus": 1.0}, "cpus"),
        ({"cpuset": "0"}, "cpuset"),
        ({"pids": 10}, "pids"),
        ({"device_read_bps": ("/dev/vda:1000",)}, "device-read-bps"),
    ],
)
def test_where_cgroups_are_roots_alone_limits_are_refused(engine: Engine, limit: dict[str, object], name: str) -> None:
    if os.access("/sys/fs/cgroup", os.W_OK) or Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("this user may set limits")
    container = engine.create(ContainerSpec(limits=Limits(**limit)))  # type: ignore[arg-type]
    with pytest.raises(HostUnable, match=f"the {name} limit cannot be enforced: on cgroup v1 only root") as raised:
        engine.start(container.id)
    assert "systemd.unified_cgroup_hierarchy=1" in raised.value.hint
    assert engine.container(container.id).state == "created"


@pytest.mark.requires("root", "cgroup-io", "cgroup-cpuset")
def test_a_limit_that_the_kernel_refuses_leaves_nothing(engine: Engine) -> None:
    for limits, error in (
        (Limits(device_read_bps=("/dev/no-such:1000",)), NotFound),
        (Limits(device_read_bps=("/dev/null:1000",)), InvalidInput),
        (Limits(cpuset="8000"), HostUnable),
    ):
        container = engine.create(ContainerSpec(limits=limits))
        with pytest.raises(error):
            engine.start(container.id)
        assert engine.container(container.id).state == "created"


@pytest.mark.parametrize(
    "words",
    [
        "--memory-swap 1g", "-m 1g --memory-swap 512m", "--cpuset-cpus x", "--cpu-shares 1", "--blkio-weight 5",
        "--pids-limit 0", "--device-read-bps /dev/sda", "--device-write-iops sda:10", "--storage-opt size",
        "--storage-opt color=red",
    ],
)  # fmt: skip
def test_options_that_make_no_sense(store: Path, words: str) -> None:
    done = nbhull("run", *words.split(), "host", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("nbhull: ")


# -- words ---------------------------------------------------------------------------------------


def test_the_reason_of_an_end() -> None:
    limits = Limits(memory=512 << 20)
    met = {"oom_kills": 1, "memory_hits": 3}
    assert explain_end(-9, met, limits)[0] == "the kernel went over its memory limit of 512 MiB and was killed"
    alone = explain_end(-9, {"oom_kills": 1}, Limits())[0]
    assert alone == "the kernel was killed, since this machine ran out of memory"
    assert explain_end(-9, {}, limits)[0] == "the kernel was ended by the signal SIGKILL"
    assert explain_end(-6, met, limits)[0].endswith("SIGABRT")
    assert explain_limits({"pids_hits": 1}, Limits())[0][0].startswith("the container is at its limit of 4096")
    assert explain_limits({}, limits) == []
