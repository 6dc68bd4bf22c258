"""Attacks on how a container is set up: descriptors, mount targets, terminals, keys, users, sockets, the store."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import stat
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nbhull.runtime.confinement import Confinement
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import HullError, InvalidInput, NotFound, ProcessFailed
from nbhull.runtime.model import ContainerSpec, Mount, ProcessSpec
from support.attacks import PYTHON, Outside, attack
from support.boxes import Box, run

pytestmark = pytest.mark.nosubuid

NBHULL = Path(sys.executable).with_name("nbhull")
TIOCSTI, TIOCSCTTY, TIOCNOTTY = 0x5412, 0x540E, 0x5422


@pytest.fixture(scope="module")
def box(shared_engine: Engine) -> Iterator[Box]:
    made = Box(shared_engine, ContainerSpec())
    yield made
    shared_engine.remove(made.id, force=True)


@pytest.fixture
def make(shared_engine: Engine) -> Iterator[Callable[..., Box]]:
    made: list[Box] = []

    def start(**fields: object) -> Box:
        made.append(Box(shared_engine, ContainerSpec(**fields)))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for one in made:
        shared_engine.remove(one.id, force=True)


# -- descriptors and folders -------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder", ["/proc/self/cwd", "/proc/1/cwd", "/proc/1/root", *(f"/proc/self/fd/{n}" for n in range(13))]
)
def test_no_working_folder_lies_outside(box: Box, outside: Outside, folder: str) -> None:
    """CVE-2024-21626: a descriptor of the host's that is still open when the working folder is entered."""
    try:
        done = box.run(f"cat ./{outside.secret} ../../../../../..{outside.secret}; pwd -P; ls", cwd=folder)
    except ProcessFailed as error:
        refusal = error.message
    else:
        assert "secret" not in done.stdout
        refusal = "" if done.stdout.startswith("/") else "it has no path in the container"
    assert not refusal or refusal.startswith("cannot enter the folder")


def test_open_files_of_the_engine_do_not_come_along(engine: Engine, outside: Outside) -> None:
    """Nor those that whoever started it has left open for children."""
    folder = os.open(outside.secret.parent.parent, os.O_RDONLY)
    os.set_inheritable(folder, True)
    try:
        one = Box(engine, ContainerSpec())
        assert one.out("ls /proc/self/fd | wc -l") == "4"  # three and the folder that ls reads
        assert attack(engine, one.id, outside, "leave_by_descriptors")["leave_by_descriptors"] == "ENOENT"
    finally:
        os.close(folder)


def test_each_process_leads_a_session_of_its_own(box: Box) -> None:
    script = "import os; print(os.getsid(0) == os.getpid(), os.getppid(), oct(os.umask(0)))"
    assert run(box.engine, box.id, ProcessSpec((PYTHON, "-c", script))).stdout == "True 1 0o22\n"


# -- mount targets -----------------------------------------------------------------------------


def linked_image(engine: Engine, name: str, *links: tuple[str, str]) -> str:
    """A snapshot with links in it."""
    one = Box(engine, ContainerSpec())
    for path, target in links:
        one.out(f"ln -s {target} {path}")
    engine.snapshot(one.id, name)
    return name


@pytest.mark.parametrize("target", ["/srv/kernel/sys/net", "/srv/kernel/self/attr", "/srv/devices/kernel"])
def test_nothing_is_mounted_over_the_kernels_files(engine: Engine, tmp_path: Path, target: str) -> None:
    """CVE-2019-16884, 2021-30465: a link in the image that leads a volume into /proc or /sys."""
    image = linked_image(engine, "links", ("/srv/kernel", "/proc"), ("/srv/devices", "../../sys"))
    container = engine.create(ContainerSpec(image=image, mounts=(Mount(str(tmp_path), target),)))
    with pytest.raises(InvalidInput, match="leads into /proc or /sys"):
        engine.start(container.id)
    assert engine.container(container.id).state == "created"


def test_a_layer_with_links_for_the_kernels_folders(engine: Engine, outside: Outside) -> None:
    """An image that has a link where /proc, /sys and /dev are to be, and a file where the null device is to be."""
    one = Box(engine, ContainerSpec())
    one.out("mkdir -p /srv/fake/sys /srv/own; echo fake > /srv/fake/keys; echo fake > /srv/own/null")
    engine.snapshot(one.id, "fakes")
    (layer,) = (Path(engine.store.home) / "layers").glob("*/root")
    for name, target in (("proc", "srv/fake"), ("dev", "/srv/own"), ("sys", "../../../../../../srv/nowhere")):
        (layer / name).symlink_to(target)
    try:
        two = Box(engine, ContainerSpec(image="fakes"))
    except HullError:
        return  # refused, which is as good
    assert two.out("cat /proc/keys /proc/interrupts") == ""
    assert two.out("stat -c %t:%T /dev/null; stat -f -c %T /proc") == "1:3\nproc"
    assert attack(engine, two.id, outside)["state"]["writable"] == []


# -- terminals ---------------------------------------------------------------------------------


def test_nothing_is_typed_into_the_hosts_terminal(box: Box) -> None:
    """CVE-2017-5226: a terminal handed in as a stream is not the container's to control."""
    script = f"""
import fcntl, os
for request, argument in (({TIOCSTI}, b'x'), ({TIOCSCTTY}, 0), ({TIOCSCTTY}, 1)):
    try:
        fcntl.ioctl(0, request, argument)
        print('ok')
    except OSError as error:
        print(os.strerror(error.errno))
"""
    controller, terminal = pty.openpty()
    holder = os.fork()
    if holder == 0:  # a session that has it as its controlling terminal, as the user's shell has
        os.setsid()
        fcntl.ioctl(terminal, TIOCSCTTY, 0)
        os.write(controller, b"held\n")
        while True:
            signal.pause()
    assert os.read(terminal, 5) == b"held\n"
    reader, writer = os.pipe()
    try:
        with box.engine.spawn(box.id, ProcessSpec((PYTHON, "-c", script)), (terminal, writer, writer)) as process:
            os.close(writer)
            assert process.wait(20) == 0
        with os.fdopen(reader) as output:
            assert set(output.read().splitlines()) <= {"Operation not permitted", "Input/output error"}
        termios.tcflush(terminal, termios.TCOFLUSH)
        os.set_blocking(terminal, False)
        with pytest.raises(BlockingIOError):
            os.read(terminal, 10)
    finally:
        os.kill(holder, 9)
        os.waitpid(holder, 0)
        os.close(controller)
        os.close(terminal)


# -- keys, users, groups -------------------------------------------------------------------------


KEYS = """
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall({keyctl}, 1, None) > 0
assert libc.syscall({add_key}, b"user", b"nbhull-secret", b"hunter2", 7, -3) > 0
found = libc.syscall({request_key}, b"user", b"nbhull-secret", None, 0)
assert found > 0, "the test itself must have the key"
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""
ASK = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
found = libc.syscall({request_key}, b"user", b"nbhull-secret", None, 0)
print("found" if found > 0 else os.strerror(ctypes.get_errno()))
"""
NUMBERS = {
    "x86_64": {"keyctl": 250, "add_key": 248, "request_key": 249},
    "aarch64": {"keyctl": 219, "add_key": 217, "request_key": 218},
}


def test_keys_of_who_starts_a_container_stay_outside(store: Path) -> None:
    """Its session keyring is a new one: shown without the filter, which refuses the calls anyway."""
    numbers = NUMBERS[os.uname().machine]
    command: list[str | Path] = [NBHULL, "run", "--rm", "--security-opt", "seccomp=unconfined", "host"]
    command += [PYTHON, "-c", ASK.format(**numbers)]
    done = subprocess.run(
        [sys.executable, "-c", KEYS.format(**numbers), *command], capture_output=True, text=True, check=False
    )
    if "must have the key" in done.stderr or "AssertionError" in done.stderr:
        pytest.skip("this kernel has no keys")
    assert done.stdout == "Required key not available\n", done


@pytest.mark.parametrize(
    "user", ["4294967295", "4294967296", "-1", "65536", "0x0", "root:4294967295", "٠", " 0", "1e3"]
)
def test_odd_users_are_refused(box: Box, user: str) -> None:
    """CVE-2024-40635: an id that wraps around to root's."""
    with pytest.raises((InvalidInput, NotFound)):
        box.run("id -u", user=user)


def test_a_user_named_as_a_number_is_that_number(engine: Engine) -> None:
    one = Box(engine, ContainerSpec())
    one.out("cp /etc/passwd /tmp/p; echo '1234:x:0:0::/:/bin/sh' >> /tmp/p; rm /etc/passwd; mv /tmp/p /etc/passwd")
    try:
        became = one.out("id -u", user="1234")
    except ProcessFailed as error:
        became = error.message
    assert became == "1234" or became.startswith("cannot become user 1234:0")  # in a container with one id


SETUID = "cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id; chmod 1777 /tmp"


@pytest.mark.requires("subuid")
def test_set_user_id_programs_give_nothing(make: Callable[..., Box]) -> None:
    for held, expected in ((True, "1"), (False, "0")):
        one = make(confinement=Confinement(no_new_privileges=held))
        one.out(SETUID)
        assert one.out("/tmp/id -u", user="daemon") == expected


CAPABLE_FILE = """
import os, struct, shutil
shutil.copy('/bin/cat', '/tmp/cat')
os.setxattr('/tmp/cat', 'security.capability', struct.pack('=5I', 0x02000001, 0xfb, 0, 0, 0))
"""


@pytest.mark.requires("subuid")
def test_capabilities_of_files_give_nothing(make: Callable[..., Box]) -> None:
    for held, expected in ((True, "0" * 16), (False, "00000000000000fb")):
        one = make(confinement=Confinement(no_new_privileges=held))
        assert run(one.engine, one.id, ProcessSpec((PYTHON, "-c", CAPABLE_FILE))).returncode == 0
        shown = one.run("/tmp/cat /proc/self/status", user="daemon")
        effective = [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("CapEff")]
        assert effective == [expected], shown


# -- other users of the machine ------------------------------------------------------------------


def test_the_store_and_the_sockets_are_the_users_alone(box: Box) -> None:
    """CVE-2021-41091."""
    for folder in (box.engine.store.home, Path(box.container.socket_folder), Path(box.container.socket_folder).parent):
        status = os.stat(folder)
        assert stat.S_IMODE(status.st_mode) == 0o700, folder
        assert status.st_uid == os.getuid()
