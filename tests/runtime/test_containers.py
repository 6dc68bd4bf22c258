"""What a process finds in a container, and what it does not."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import (
    CommandNotExecutable,
    CommandNotFound,
    Conflict,
    HostUnable,
    InvalidInput,
    NotFound,
    ProcessFailed,
)
from nbhull.runtime.model import ContainerSpec, Limits, Mount, ProcessSpec
from support.boxes import Box

pytestmark = pytest.mark.nosubuid
NAMESPACES = ("user", "mnt", "pid", "ipc", "uts", "cgroup")


def test_every_namespace_is_its_own(box: Box) -> None:
    for name in NAMESPACES:
        assert box.out(f"readlink /proc/self/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), name


def test_two_containers_share_no_namespace(make_box: Callable[..., Box]) -> None:
    one, two = make_box(), make_box()
    for name in NAMESPACES:
        assert one.out(f"readlink /proc/self/ns/{name}") != two.out(f"readlink /proc/self/ns/{name}"), name


def test_root_of_a_container_is_not_root_of_the_host(box: Box) -> None:
    assert box.out("id -u") == "0"
    _, outside, _ = box.out("head -1 /proc/self/uid_map").split()
    holder_first = int(outside)
    # Seen from the container, its ids are the holder's; the holder's are the host's, as the test's own view tells.
    box.out("touch /tmp/mine")
    process = box.engine.spawn(box.id, ProcessSpec(("sleep", "60")))
    children = [p for p in Path("/proc").glob("[0-9]*") if is_sleep_in(p, box.out("readlink /proc/self/ns/pid"))]
    assert children
    owner = children[0].stat().st_uid
    assert owner != 0
    assert holder_first == 0
    process.signal(signal.SIGKILL)
    assert process.wait(10) == -9


def is_sleep_in(folder: Path, namespace: str) -> bool:
    """Whether a process of the host's is a `sleep` in that process namespace."""
    try:
        same = os.readlink(folder / "ns/pid") == namespace
        return same and (folder / "comm").read_text() == "sleep\n"
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return False


def test_the_host_is_not_there(box: Box, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    home = Path.home()
    (found,) = {box.run(f"test -e {path}").returncode for path in (secret, home / ".ssh", "/boot", "/var/lib/dpkg")}
    assert found == 1
    # All processes there are: init and the shell, which looks before it starts anything.
    assert len(box.out("echo /proc/[0-9]*").split()) == 2
    assert box.out("ls -A /home /root /mnt /tmp").replace("\n", " ").count(":") == 4


def test_only_what_everyone_may_read_is_read_from_etc(box: Box) -> None:
    assert box.run("cat /etc/passwd").returncode == 0
    assert box.run("cat /etc/shadow").returncode != 0


def test_the_system_cannot_be_changed(box: Box) -> None:
    for path in ("/usr/bin/sh", "/usr/evil", "/etc/passwd"):
        assert box.run(f"echo x >> {path}").returncode != 0
        assert b"\nx\n" not in Path(path).read_bytes() if Path(path).exists() else True


def test_its_own_files_can_be_changed(box: Box) -> None:
    assert box.out("echo 1 > /etc/new; mkdir /opt/a; echo 2 > /opt/a/b; cat /etc/new /opt/a/b") == "1\n2"
    assert not Path("/etc/new").exists()


def test_abilities_are_dropped_for_good(box: Box) -> None:
    status = dict(
        line.split(":\t") for line in box.out("cat /proc/self/status").splitlines() if "Cap" in line or "NoNew" in line
    )
    assert status["CapBnd"] == status["CapPrm"] == "00000000a80425fb"
    assert status["CapAmb"] == status["CapInh"] == "0" * 16
    assert status["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /mnt", "umount /proc", "mount -o remount,rw /usr", "chroot / mount -t proc none /mnt",
        "echo b > /proc/sysrq-trigger", "echo 1 > /proc/sys/kernel/panic", "cat /proc/1/environ", "cat /proc/kcore",
        "ls /proc/1/root/", "ls /proc/1/fd/", "kill -9 1 && ! kill -0 1", "mknod /tmp/disk b 8 0", "date -s 2000-01-01",
        "hostname other", "nice -n -5 true 2>&1 | grep -qv denied",
    ],
)  # fmt: skip
def test_what_a_container_must_not_do_fails(box: Box, attempt: str) -> None:
    assert box.run(attempt).returncode != 0


def test_masked_files_are_empty(box: Box) -> None:
    assert box.out("cat /proc/keys /proc/timer_list /proc/interrupts; ls /sys/firmware") == ""


def test_the_usual_devices_and_file_systems_are_there(box: Box) -> None:
    assert box.out("test -d /dev/mqueue; : > /dev/shm/a; test -e /dev/fd/0; echo x > /dev/null") == ""
    assert box.out("head -c 4 /dev/zero | wc -c; ls /dev/pts") == "4\nptmx"
    assert "4" in box.out(
        "python3 -c 'import multiprocessing as m; print(m.Value(\"i\", 4).value)'", env={"PATH": "/usr/bin:/bin"}
    )


def test_a_pseudo_terminal_can_be_opened(box: Box) -> None:
    assert (
        box.out("python3 -c 'import os; print(os.ttyname(os.openpty()[1]))'", env={"PATH": "/usr/bin:/bin"})
        == "/dev/pts/0"
    )


def test_identity_files(make_box: Callable[..., Box]) -> None:
    box = make_box(name="boxed", hostname="lab-7")
    assert box.out("hostname; cat /etc/hostname") == "lab-7\nlab-7"
    assert box.out(
        "python3 -c 'import socket; print(socket.gethostbyname(\"lab-7\"))'", env={"PATH": "/usr/bin"}
    ).startswith("127.")
    machine = box.out("cat /etc/machine-id")
    assert len(machine) == 32
    assert machine != Path("/etc/machine-id").read_text().strip() if Path("/etc/machine-id").exists() else True
    assert (
        box.out("date +%Z")
        == subprocess.run(["date", "+%Z"], capture_output=True, text=True, check=True).stdout.strip()
    )


def test_the_python_environment_is_there_and_writable(box: Box) -> None:
    if sys.prefix == sys.base_prefix:
        pytest.skip("the tests do not run in a virtual environment")
    assert box.out("python -c 'import sys; print(sys.prefix)'") == sys.prefix
    assert box.out("python -c 'import jupyter_client; print(jupyter_client.__file__)'").startswith(sys.prefix)
    box.out(
        f"echo 'x = 1' > {sys.prefix}/lib/python3.11/site-packages/nbhull_probe.py; python -c 'import nbhull_probe'"
    )
    assert not list(Path(sys.prefix).glob("lib/*/site-packages/nbhull_probe.py"))


def test_without_network_only_loopback_is_there(make_box: Callable[..., Box]) -> None:
    box = make_box(network="none")
    assert box.out("ls /sys/class/net") == "lo"
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    assert (
        box.run(
            f"exec 3<>/dev/tcp/127.0.0.1/{port}",
        ).returncode
        != 0
    )
    connect = (
        "import socket; s=socket.create_server(('127.0.0.1',0)); socket.create_connection(s.getsockname()); print('ok')"
    )
    assert box.out(f'python3 -c "{connect}"', env={"PATH": "/usr/bin"}) == "ok"
    server.close()


def test_folders_are_handed_in_and_files_come_out_as_the_users(make_box: Callable[..., Box], tmp_path: Path) -> None:
    shared, frozen = tmp_path / "shared", tmp_path / "frozen"
    shared.mkdir()
    frozen.mkdir()
    (shared / "in").write_text("hello\n")
    (shared / "in").chmod(0o600)
    box = make_box(mounts=(Mount(str(shared), str(shared)), Mount(str(frozen), "/data", read_only=True)))
    assert box.out(f"cat {shared}/in; echo out > {shared}/out; ls -ln {shared}/in | cut -d' ' -f3") == "hello\n0"
    status = (shared / "out").stat()
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert box.run("touch /data/x").returncode != 0
    assert list(frozen.iterdir()) == []


def test_a_mounted_file(make_box: Callable[..., Box], tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("a=1")
    assert (
        make_box(mounts=(Mount(str(file), "/srv/app/settings", read_only=True),)).out("cat /srv/app/settings") == "a=1"
    )


def test_links_in_the_container_do_not_lead_a_mount_out(engine: Engine, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    first = Box(engine, ContainerSpec())
    first.out("ln -s /../../../../../../tmp/escape /srv/link; ln -s ../../../../../../../../.. /srv/up")
    engine.snapshot(first.id, "links")
    second = Box(
        engine,
        ContainerSpec(image="links", mounts=(Mount(str(outside), "/srv/link/in"), Mount(str(outside), "/srv/up/etc2"))),
    )
    assert second.out("ls -d /tmp/escape/in /etc2") == "/etc2\n/tmp/escape/in"
    assert not Path("/tmp/escape").exists()
    assert not Path("/etc2").exists()


def test_exit_statuses_and_signals(box: Box) -> None:
    assert box.run("exit 3").returncode == 3
    assert box.run("kill -TERM $$").returncode == -15
    process = box.engine.spawn(box.id, ProcessSpec(("sh", "-c", "sleep 100 & wait")))
    assert process.poll() is None
    process.signal(signal.SIGTERM)
    assert process.wait(10) == -15
    process.signal(signal.SIGTERM)  # it has ended: no error


def test_a_signal_reaches_the_process_group(box: Box) -> None:
    process = box.engine.spawn(
        box.id,
        ProcessSpec(("sh", "-c", "trap : INT; sh -c 'trap \"exit 7\" INT; while :; do sleep 0.05; done'; exit $?")),
    )
    while "sleep" not in box.out("cat /proc/[0-9]*/comm"):
        pass
    process.signal(signal.SIGINT)
    assert process.wait(10) == 7


def test_what_cannot_be_executed_says_so_at_once(box: Box) -> None:
    with pytest.raises(CommandNotFound, match="cannot execute 'no-such-program'"):
        box.engine.spawn(box.id, ProcessSpec(("no-such-program",)))
    with pytest.raises(CommandNotExecutable, match="cannot execute '/etc/passwd'"):
        box.engine.spawn(box.id, ProcessSpec(("/etc/passwd",)))
    with pytest.raises(ProcessFailed, match="cannot enter the folder /nowhere"):
        box.engine.spawn(box.id, ProcessSpec(("true",), cwd="/nowhere"))


def test_processes_do_not_inherit_descriptors(box: Box) -> None:
    assert box.out("ls -l /proc/self/fd | grep -c -- '->'") == "4"  # three and the folder that ls reads


def test_a_large_environment_and_command_arrive_whole(box: Box) -> None:
    long = "x" * 100_000
    assert box.run('printf %s "$LONG" | wc -c', env={"LONG": long}).stdout.strip() == "100000"


def test_orphans_are_reaped(box: Box) -> None:
    box.out("for i in 1 2 3 4 5; do sh -c 'sleep 0.01 &' ; done")
    while any("sleep" in line for line in box.run("cat /proc/[0-9]*/comm").stdout.splitlines()):
        pass
    assert "Z" not in box.out("cat /proc/[0-9]*/stat | cut -d' ' -f3")


@pytest.mark.requires("subuid")
def test_processes_run_as_the_user_asked_for(box: Box) -> None:
    assert box.out("id -u; id -g; grep -c CapEff:.0000000000000000 /proc/self/status", user="1234:99") == "1234\n99\n1"
    assert box.out("id -un; id -gn", user="daemon:sys") == "daemon\nsys"
    with pytest.raises(NotFound, match="no user 'nobody-such'"):
        box.run("true", user="nobody-such")


@pytest.mark.requires("nosubuid")
def test_another_user_is_refused_where_there_are_no_other_ids(box: Box) -> None:
    with pytest.raises(ProcessFailed, match="cannot become user 1234:0"):
        box.run("true", user="1234")


def test_reading_stays_inside(box: Box) -> None:
    box.out("ln -s /../../../etc/hostname /tmp/link; mkfifo /tmp/fifo; mkdir /tmp/folder; : > /tmp/folder/x")
    assert box.engine.read(box.id, "/tmp/link") == box.engine.read(box.id, "/etc/hostname")
    assert box.engine.listdir(box.id, "/tmp/folder") == ["x"]
    assert box.engine.listdir(box.id, "/nowhere") == []
    for path in ("/nowhere", "/proc/self/exe"):  # who reads is no process of the container's
        with pytest.raises(NotFound):
            box.engine.read(box.id, path)
    for path in ("/tmp/fifo", "/dev/zero", "/tmp/folder"):
        with pytest.raises(InvalidInput):
            box.engine.read(box.id, path)
    box.out("head -c 3000000 /dev/zero > /tmp/large")
    with pytest.raises(InvalidInput, match="larger than"):
        box.engine.read(box.id, "/tmp/large")


@pytest.mark.requires("cgroup-memory", "cgroup-pids", "cgroup-cpu")
def test_limits_hold(make_box: Callable[..., Box]) -> None:
    box = make_box(limits=Limits(memory=64 << 20, cpus=0.5, pids=20))
    assert box.run("python3 -c 'bytearray(200 << 20)'", env={"PATH": "/usr/bin"}).returncode in (-9, 137)
    usage = box.engine.usage(box.id)
    assert usage.memory_limit == 64 << 20
    assert usage.pids_limit == 20
    assert usage.oom_kills
    forks = """import os, time
try:
    while os.fork(): pass
    os.closerange(0, 3)
    time.sleep(60)
except OSError:
    print("stopped")"""
    done = box.run('timeout -s KILL 20 python3 -c "$FORKS"', env={"PATH": "/usr/bin", "FORKS": forks})
    assert "stopped" in done.stdout


@pytest.mark.requires("user")
def test_a_limit_that_cannot_be_enforced_is_refused(engine: Engine) -> None:
    container = engine.create(ContainerSpec(limits=Limits(memory=1 << 26)))
    if os.access("/sys/fs/cgroup/memory", os.W_OK):
        pytest.skip("this user may set limits")
    with pytest.raises(HostUnable, match="memory limit cannot be enforced"):
        engine.start(container.id)
    assert engine.container(container.id).state == "created"


def test_bad_input_is_refused_and_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    cases: list[tuple[type[Exception], ContainerSpec]] = [
        (NotFound, ContainerSpec(image="no-such-image")),
        (InvalidInput, ContainerSpec(name="../evil")),
        (InvalidInput, ContainerSpec(hostname="a b")),
        (InvalidInput, ContainerSpec(network="bridge")),  # type: ignore[arg-type]
        (NotFound, ContainerSpec(mounts=(Mount("/no/such/folder", "/x"),))),
        (InvalidInput, ContainerSpec(mounts=(Mount("relative/folder", "/x"),))),
        (InvalidInput, ContainerSpec(mounts=(Mount(str(tmp_path), "/proc/self"),))),
        (InvalidInput, ContainerSpec(mounts=(Mount(str(tmp_path), "/"),))),
        (NotFound, ContainerSpec(environment="/no/such/environment")),
        (InvalidInput, ContainerSpec(environment=str(Path.home()))),
    ]
    for error, spec in cases:
        with pytest.raises(error):
            engine.create(spec)
    assert engine.containers() == []
    assert os.listdir(Path(engine.store.home) / "containers") == []


def test_names_are_unique_and_ids_can_be_shortened(engine: Engine) -> None:
    one = engine.create(ContainerSpec(name="one"))
    with pytest.raises(Conflict):
        engine.create(ContainerSpec(name="one"))
    assert engine.container(one.id[:6]).id == engine.container("one").id == one.id
    with pytest.raises(NotFound):
        engine.container("two")


def test_stop_start_remove(engine: Engine) -> None:
    box = Box(engine, ContainerSpec(name="life"))
    box.out("echo kept > /root/file")
    process = engine.spawn(
        "life", ProcessSpec(("sh", "-c", "trap 'echo bye > /root/bye; exit 0' TERM; while :; do sleep 0.05; done"))
    )
    with pytest.raises(Conflict, match="already running"):
        engine.start("life")
    with pytest.raises(Conflict, match="is running"):
        engine.remove("life")
    while "sleep" not in box.out("cat /proc/[0-9]*/comm"):
        pass
    engine.stop("life")
    engine.stop("life")
    assert process.wait(5) == 0
    assert engine.container("life").state == "stopped"
    with pytest.raises(Conflict, match="not running"):
        engine.spawn("life", ProcessSpec(("true",)))
    engine.start("life")
    assert box.out("cat /root/file /root/bye") == "kept\nbye"
    engine.remove("life", force=True)
    with pytest.raises(NotFound):
        engine.container("life")
    assert os.listdir(Path(engine.store.home) / "containers") == []


def test_a_second_engine_reaches_the_containers_of_the_first(engine: Engine) -> None:
    Box(engine, ContainerSpec(name="shared"))
    with Engine(engine.store.home) as other:
        assert other.container("shared").state == "running"
        assert other.spawn("shared", ProcessSpec(("sh", "-c", "exit 5"))).wait(10) == 5
        other.stop("shared", 0)
    assert engine.container("shared").state == "stopped"


def test_two_may_remove_a_container_at_the_same_time(engine: Engine) -> None:
    """One does, and the other finds it gone; neither trips over the other's deleting."""
    for _ in range(5):
        box = Box(engine, ContainerSpec())
        start = threading.Barrier(4)

        def remove(box: Box = box, start: threading.Barrier = start) -> str:
            start.wait()
            try:
                engine.remove(box.id, force=True)
            except NotFound:
                return "gone"
            return "removed"

        with ThreadPoolExecutor(4) as pool:
            outcomes = [future.result() for future in [pool.submit(remove) for _ in range(4)]]
        assert sorted(outcomes) == ["gone", "gone", "gone", "removed"]
