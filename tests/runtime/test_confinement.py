"""The options that tighten and open a container, in real ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime import confinement_options as options
from nbhull.runtime import devices
from nbhull.runtime.confinement import Confinement, Device, Tmpfs, Ulimit, capabilities
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import HostUnable, InvalidInput, NotFound, ProcessFailed
from nbhull.runtime.linux.process import CAPABILITIES, DEFAULT_CAPABILITIES, capability_mask, get_rlimit
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from support.boxes import Box

NOFILE = 7

Make = Callable[..., Box]


@pytest.fixture
def make(engine: Engine) -> Make:
    """Start a container with these settings."""
    return lambda **settings: Box(engine, ContainerSpec(confinement=Confinement(**settings)))


def bounding(box: Box) -> int:
    return int(box.out("grep CapBnd /proc/self/status").split()[1], 16)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), DEFAULT_CAPABILITIES),
        (("NET_ADMIN",), ("KILL", "MKNOD"), DEFAULT_CAPABILITIES - {"KILL", "MKNOD"} | {"NET_ADMIN"}),
        (("CHOWN",), ("ALL",), {"CHOWN"}),
        (("ALL",), ("SYS_ADMIN",), set(CAPABILITIES) - {"SYS_ADMIN"}),
        (("ALL",), (), set(CAPABILITIES)),
        ((), ("ALL",), set()),
    ],
)
def test_added_and_dropped_capabilities(add: tuple[str, ...], drop: tuple[str, ...], expected: set[str]) -> None:
    assert capabilities(Confinement(cap_add=add, cap_drop=drop)) == expected


def test_capabilities_of_processes(make: Make) -> None:
    box = make(cap_add=("NET_ADMIN",), cap_drop=("CHOWN", "KILL", "SETUID"))
    expected = capability_mask(DEFAULT_CAPABILITIES - {"CHOWN", "KILL", "SETUID"} | {"NET_ADMIN"})
    assert bounding(box) == expected
    assert int(box.out("grep CapEff /proc/self/status").split()[1], 16) == expected
    # Init signals and makes processes all the same.
    process = box.engine.spawn(box.id, ProcessSpec(("sleep", "60")))
    process.signal(15)
    assert process.wait(10) == -15


@pytest.mark.requires("subuid")
def test_a_user_of_the_container_has_no_capabilities(make: Make) -> None:
    box = make(user="daemon", cap_drop=("ALL",))
    assert box.out("id -un; grep -c 'Cap[^B].*\t0000000000000000' /proc/self/status") == "daemon\n4"
    assert box.out("id -un", user="root") == "root"
    everything = make(user="daemon", cap_add=("ALL",))
    assert everything.out("grep CapEff /proc/self/status").split()[1] == "0" * 16


@pytest.mark.requires("subuid")
def test_groups(make: Make) -> None:
    box = make(groups=("audio", "1234"))
    assert box.out("id -G") == "0 29 1234"
    assert box.out("id -G", user="daemon:daemon") == "1 29 1234"


@pytest.mark.requires("nosubuid")
def test_groups_without_ids_are_refused(make: Make) -> None:
    with pytest.raises(ProcessFailed, match="cannot take the supplementary groups 29"):
        make(groups=("audio",)).run("true")


@pytest.mark.requires("user")
def test_groups_can_be_kept(make: Make) -> None:
    """All are the overflow group inside."""
    assert make(groups=("keep-groups",)).out("id -G").count("65534") == len(set(os.getgroups()) - {os.getgid()})


def test_a_read_only_container_keeps_its_files(make: Make) -> None:
    tmpfs = (options.parse_tmpfs("/scratch:size=1m,exec,mode=0750"), options.parse_tmpfs("/run"))
    box = make(read_only=True, tmpfs=tmpfs)
    for path in ("/new", "/etc/new", "/tmp/new", "/root/new", f"{os.path.realpath('/usr')}/new"):
        assert "Read-only file system" in box.run(f"touch {path}").stderr
    box.out("cp /bin/true /scratch/true; /scratch/true; touch /run/new; echo x > /dev/shm/x")
    assert box.out("stat -c %a:%F:%u /scratch") == "750:directory:0"
    assert "No space left" in box.run("head -c 2000000 /dev/zero > /scratch/large").stderr
    assert box.run("cp /bin/true /run/true; /run/true").returncode == 126


def test_a_device_is_handed_in(make: Make) -> None:
    box = make(devices=(Device("/dev/full", "/dev/mine"), Device("/dev/zero", "/dev/deep/er")))
    assert box.out("head -c 3 /dev/mine | wc -c; head -c 3 /dev/deep/er | wc -c") == "3\n3"
    assert "No space left" in box.run("head -c 1 /dev/zero > /dev/mine").stderr
    before = os.stat("/dev/full").st_mode
    assert box.run("chmod 777 /dev/mine").returncode != 0
    assert os.stat("/dev/full").st_mode == before


@pytest.mark.requires("root")
def test_a_device_gives_only_what_was_asked_for(make: Make) -> None:
    box = make(devices=(Device("/dev/zero", "/dev/readable", "r"), Device("/dev/null", "/dev/writable", "w")))
    assert box.out("head -c 3 /dev/readable | wc -c; echo x > /dev/writable") == "3"
    for script in ("echo x > /dev/readable", "cat /dev/writable", "chmod 666 /dev/readable", "chown 0 /dev/readable"):
        assert box.run(script).returncode != 0, script


@pytest.mark.requires("user")
def test_a_device_that_cannot_be_given_so_is_refused(make: Make) -> None:
    with pytest.raises(InvalidInput, match="cannot be handed in for 'r' only"):
        make(devices=(Device("/dev/zero", "/dev/z", "r"),))
    with pytest.raises(InvalidInput, match="may not open the device '/dev/console'"):
        make(devices=(Device("/dev/console", "/dev/c"),))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("/dev/no-such", NotFound, "No such file"),
        ("/etc/passwd", InvalidInput, "is no device"),
        ("/etc/apt", InvalidInput, "has no devices"),
    ],
)
def test_what_is_no_device_is_refused(engine: Engine, source: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        engine.create(ContainerSpec(confinement=Confinement(devices=(Device(source, "/dev/x"),))))
    assert engine.containers() == []


def test_gpus_are_refused_where_there_are_none(engine: Engine) -> None:
    if Path("/dev/nvidia0").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    with pytest.raises(HostUnable, match="no NVIDIA GPU can be handed in: there is no /dev/nvidia0"):
        engine.create(ContainerSpec(confinement=Confinement(gpus="all")))


def test_the_nodes_of_gpus(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null", "nvidia-caps/nvidia-cap1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(wanted: str) -> list[str]:
        found = [d.target for d in devices.gpu_devices(wanted, str(tmp_path))]
        assert found[-3:] == ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-caps/nvidia-cap1"]
        return found[:-3]

    assert names("all") == ["/dev/nvidia0", "/dev/nvidia1", "/dev/nvidia10"]
    assert names("2") == ["/dev/nvidia0", "/dev/nvidia1"]
    assert names("device=10,0") == ["/dev/nvidia10", "/dev/nvidia0"]
    with pytest.raises(NotFound, match="there is no GPU 2"):
        devices.gpu_devices("device=2", str(tmp_path))
    with pytest.raises(NotFound, match="4 GPUs are asked for, and 3 are here"):
        devices.gpu_devices("4", str(tmp_path))


@pytest.mark.parametrize(
    "name", ["libcuda.so.1", "libcuda.so.535.1", "libnvidia-ml.so.1", "libnvcuvid.so", "libcudadebugger.so.1"]
)
def test_libraries_of_the_driver(name: str) -> None:
    assert devices.LIBRARY.fullmatch(name)


def test_other_libraries_are_not_the_drivers() -> None:
    assert not any(devices.LIBRARY.fullmatch(name) for name in ("libc.so.6", "libnvme.so.1", "libcudart.txt"))


def test_resource_limits(make: Make, engine: Engine) -> None:
    box = make(ulimits=(Ulimit("nofile", 50, 60), Ulimit("core", 0, 0)))
    assert box.out("ulimit -Sn; ulimit -Hn; ulimit -c") == "50\n60\n0"
    assert box.run("ulimit -n 61").returncode != 0
    hard = get_rlimit(NOFILE)[1]
    with pytest.raises(HostUnable, match=f"nofile cannot be raised to .*: here it is at most {hard}"):
        engine.create(ContainerSpec(confinement=Confinement(ulimits=(Ulimit("nofile", hard + 1, hard + 1),))))


def test_a_profile_of_the_users_own(make: Make, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["sethostname", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    box = make(**dict([options.parse_security_opt(f"seccomp={path}")]))
    assert "No space left" in box.run("mkdir /tmp/a").stderr
    assert box.out("touch /tmp/b; ls /tmp/b; grep Seccomp: /proc/self/status") == "/tmp/b\nSeccomp:\t2"


def test_a_profile_that_nothing_can_live_with_says_so(make: Make) -> None:
    rule = {"names": ["write", "seccomp"], "action": "SCMP_ACT_ALLOW"}
    nothing = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})
    with pytest.raises(ProcessFailed, match="cannot execute 'sh': Operation not permitted"):
        make(seccomp=nothing).run("true")


def test_privileged_is_all_of_ones_own(make: Make) -> None:
    box = make(privileged=True)
    assert bounding(box) == capability_mask(frozenset(CAPABILITIES))
    assert box.out("grep -c 'Seccomp:.0' /proc/self/status") == "1"
    inner = "mount -t tmpfs none /mnt && mount -t proc none /mnt && ls /mnt | grep -c uptime"
    assert box.out(f"unshare -m sh -c '{inner}'") == "1"
    # and nothing of the host's
    for script in ("mknod /tmp/sda b 8 0", "echo 1 > /proc/sysrq-trigger", "cat /proc/1/environ", "date -s 2000-01-01"):
        assert box.run(script).returncode != 0, script


BAD = [
    (options.parse_capability, "SYS_ADMN", "no capability.*did you mean SYS_ADMIN"),
    (options.parse_capability, "", "no capability"),
    (options.parse_security_opt, "seccomp", "no security option"),
    (options.parse_security_opt, "apparmor=unconfined", "no security option"),
    (options.parse_security_opt, "no-new-privileges=maybe", "no security option"),
    (options.parse_security_opt, "seccomp=/no/such", "cannot be read"),
    (options.parse_security_opt, "seccomp=/bin/true", "is no text"),
    (options.parse_security_opt, "seccomp=/etc/passwd", "not valid JSON"),
    (options.parse_tmpfs, "scratch", "not a plain absolute path"),
    (options.parse_tmpfs, "/a/../b", "not a plain absolute path"),
    (options.parse_tmpfs, "/a:size=0", "not positive"),
    (options.parse_tmpfs, "/a:mode=9", "mode '9' is not valid"),
    (options.parse_tmpfs, "/a:suid", "option 'suid' is not known"),
    (options.parse_tmpfs, "/a:context=x", "option 'context=x' is not known"),
    (options.parse_device, "fuse", "not a plain absolute path"),
    (options.parse_device, "/dev/fuse:x", "not of the form"),
    (options.parse_device, "/dev/fuse:/etc/x", "not in /dev"),
    (options.parse_device, "/dev/fuse:/dev/../x", "not a plain absolute path"),
    (options.parse_device, "/dev/fuse:/dev/a:/dev/b", "not of the form"),
    (options.parse_device, "/dev/fuse:m", "not of the form"),
    (options.parse_ulimit, "nofiles=1", "no resource limit"),
    (options.parse_ulimit, "nofile", "not of the form"),
    (options.parse_ulimit, "nofile=-2", "not of the form"),
    (options.parse_ulimit, "nofile=20:10", "above the hard one"),
    (options.parse_ulimit, "nofile=-1:10", "above the hard one"),
    (options.parse_group, "a b", "not valid"),
    (options.parse_gpus, "some", "not valid"),
    (options.parse_gpus, "0", "not valid"),
]  # fmt: skip


@pytest.mark.parametrize(("parse", "text", "message"), BAD)
def test_a_wrong_option_is_told_by_what_is_wrong(parse: Callable[[str], object], text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert re.search(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("target", ["/", "/etc", "/proc/self", "/sys/fs", "/dev/shm", "/usr"])
def test_nothing_of_every_containers_own_is_covered(engine: Engine, target: str) -> None:
    tmpfs = Tmpfs(target)
    with pytest.raises(InvalidInput, match="nothing can be mounted on"):
        engine.create(ContainerSpec(confinement=Confinement(tmpfs=(tmpfs,))))


GPU_MACHINE = """
import gzip, os, subprocess, sys
from nbhull.runtime.confinement import Confinement
from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec
from support.boxes import Box
from support.tars import pieces, small_root

def shell(line):
    subprocess.run(line, shell=True, check=True)

libraries, made = sys.argv[2:]
shell(f"mount --make-rprivate / && mount -t tmpfs none {made} && cd {made} && mkdir -p dev/pts dev/shm upper work &&"
    "for at in 'null 1 3' 'zero 1 5' 'full 1 7' 'random 1 8' 'urandom 1 9' 'tty 5 0' 'nvidia0 1 5' 'nvidia1 1 7' "
    "'nvidiactl 1 3'; do set -- $at; mknod -m 666 dev/$1 c $2 $3; done; ln -s /proc/self/fd dev/fd;"
    "echo driver > upper/libcuda.so.535; ln -s libcuda.so.535 upper/libcuda.so.1;"
    f"mount -t overlay none -o lowerdir={libraries},upperdir=upper,workdir=work {libraries};"
    "mount --bind /dev/pts dev/pts; mount --bind /dev/shm dev/shm; mount --rbind dev /dev")
look = "ls /dev | grep nvidia; head -c 2 /dev/nvidia0 | wc -c; : > /dev/nvidiactl; cat {}/libcuda.so.1"
with Engine(sys.argv[1]) as engine:
    engine.catalog.import_root(pieces(gzip.compress(small_root(), 1)), ["small"], {"Env": ["PATH=/bin"]})
    for image, gpus in (("host", "all"), ("small", "all"), ("small", "device=1")):
        box = Box(engine, ContainerSpec(image=image, confinement=Confinement(gpus=gpus)))
        print(box.run(look.replace("{}", libraries)).stdout.split())
        engine.remove(box.id, force=True)
"""


@pytest.mark.requires("root", "busybox", "unshare")
def test_gpus_are_handed_in_with_their_driver(tmp_path: Path) -> None:
    """In a mount namespace whose machine seems to have two: nodes of those names, and a library of the driver's."""
    libraries = next(folder for folder in devices.LIBRARY_FOLDERS if Path(folder).is_dir())
    made = tmp_path / "made"
    made.mkdir()
    command = ["unshare", "--mount", sys.executable, "-c", GPU_MACHINE, str(tmp_path / "store"), libraries, str(made)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    both = "['nvidia0', 'nvidia1', 'nvidiactl', '2', 'driver']"
    assert done.stdout.splitlines() == [both, both, "['nvidia1', 'nvidiactl', '0', 'driver']"]
