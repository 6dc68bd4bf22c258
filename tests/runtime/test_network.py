"""Containers with a network of their own: real traffic to servers outside, and what must not be reached."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Conflict
from nbhull.runtime.model import ContainerSpec, Port, ProcessSpec
from nbhull.runtime.running import is_running, sweep_ended
from support import outside
from support.boxes import Box
from support.waiting import eventually

pytestmark = [pytest.mark.requires("nat")]

ENVIRONMENT = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}

SWITCH = Path("/proc/sys/net/ipv4/ip_forward")


@pytest.fixture(scope="session")
def there() -> Iterator[str]:
    """The address of the outside's servers."""
    if os.getuid() != 0:
        yield os.environ[outside.VARIABLE]
        return
    with outside.outside() as (address, _):
        yield address


def ask(box: Box, address: str, port: int, *kind: str) -> str:
    """What a container's client is told by a server."""
    return box.out(f"python3 -c '{outside.CONNECT}' {address} {port} {' '.join(kind)}", env=ENVIRONMENT)

SERVE = (
    "import http.server as h, sys; h.HTTPServer(('', int(sys.argv[1])), h.SimpleHTTPRequestHandler).serve_forever()"
)


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def listener(address: str) -> Iterator[int]:
    """A server of the machine's that greets whoever connects; its port."""
    with socket.create_server((address, 0)) as server:

        def greet() -> None:
            while True:
                try:
                    channel, _ = server.accept()
                except OSError:
                    return
                channel.sendall(b"from the machine")
                channel.close()

        threading.Thread(target=greet, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def machine_of(there: str) -> str:
    """The machine's own address towards the outside."""
    network, _, number = there.rpartition(".")
    return f"{network}.{int(number) - 1}"


def interfaces() -> set[str]:
    return {name for name in os.listdir("/sys/class/net") if name.startswith("nbh")}


def helpers() -> set[str]:
    """The processes of this user that connect containers."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "comm").read_text()
            if name.startswith(("pasta", "passt", "slirp4netns")) and owner(folder) == os.getuid():
                found.add(folder.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def owner(process: Path) -> int:
    lines = (process / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Uid:")).split()[1])


def tables() -> set[str]:
    """Our tables of nftables, which only root can list."""
    if os.getuid() != 0:
        return set()
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return {line for line in listed.splitlines() if "nbhull" in line}


def traces() -> set[str]:
    """What connects containers now, of this and of other sessions."""
    return interfaces() | helpers() | tables()


@pytest.mark.nosubuid
def test_the_first_packet_already_finds_the_way_out(make_box: Callable[..., Box], there: str) -> None:
    box = make_box()
    assert ask(box, there, outside.WEB).startswith("hello 198.51.100.")
    assert ask(box, there, outside.ECHO, "udp") == ""  # the request itself, whose last line is empty


def test_its_interfaces_are_its_own(make_box: Callable[..., Box]) -> None:
    box = make_box()
    assert box.out("ls /sys/class/net") == "eth0\nlo"
    assert box.run("ip link set eth0 down", env=ENVIRONMENT).returncode != 0


def test_nothing_of_the_machine_is_reached_on_its_loopback(make_box: Callable[..., Box]) -> None:
    box = make_box()
    gateway = box.out("ip -4 route show default | cut -d' ' -f3", env=ENVIRONMENT)
    with listener("127.0.0.1") as port:
        assert ask(box, "127.0.0.1", port).startswith("failed: [Errno 111]")
        if os.getuid() == 0:  # a user's gateway is the machine's own, and no host of ours
            assert ask(box, gateway, port).startswith("failed:")


@pytest.mark.requires("root")
def test_nothing_of_the_machine_is_reached_at_all(make_box: Callable[..., Box], there: str) -> None:
    box = make_box()
    with listener("") as port:
        assert ask(box, machine_of(there), port).startswith("failed: [Errno 113]")


def test_abstract_sockets_of_the_machine_are_not_there(make_box: Callable[..., Box]) -> None:
    name = f"nbhull-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        code = f"import socket; socket.socket(socket.AF_UNIX).connect(chr(0) + {name!r})"
        refused = make_box().run(f'python3 -c "{code}"', env=ENVIRONMENT)
        assert "ConnectionRefusedError" in refused.stderr
        make_box(network="host").out(f'python3 -c "{code}"', env=ENVIRONMENT)


def test_link_local_addresses_at_which_clouds_tell_secrets_are_not_reached(make_box: Callable[..., Box]) -> None:
    box = make_box()
    for address in ("169.254.169.254", "169.254.170.2", "fd00:ec2::254"):
        assert ask(box, address, 80).startswith("failed: [Errno 113]"), address


def test_containers_do_not_reach_each_other(make_box: Callable[..., Box]) -> None:
    one, two = make_box(), make_box()
    server = one.engine.spawn(one.id, ProcessSpec(("python3", "-c", SERVE, "8000"), env=ENVIRONMENT))
    eventually(lambda: not ask(one, "127.0.0.1", 8000).startswith("failed"), "the server in the container")
    address = one.out("ip -4 -o address show eth0 | awk '{print $4}' | cut -d/ -f1", env=ENVIRONMENT)
    assert ask(two, address, 8000).startswith("failed:")
    if os.getuid() == 0:
        assert ask(two, address, 8000).startswith("failed: [Errno 113]")
    server.close()


# -- names -------------------------------------------------------------------------------------


def resolve(box: Box, name: str) -> str:
    return box.run(f"getent ahostsv4 {name} | head -1 | cut -d' ' -f1", env=ENVIRONMENT).stdout.strip()


def test_another_name_server(make_box: Callable[..., Box], there: str) -> None:
    box = make_box(dns=(there,))
    assert f"nameserver {there}" in box.out("cat /etc/resolv.conf").splitlines()
    assert resolve(box, outside.NAME) == outside.ANSWER["outside"]


def test_a_name_in_hosts(make_box: Callable[..., Box]) -> None:
    assert resolve(make_box(hosts=(("far.nbhull.test", "198.51.100.9"),)), "far.nbhull.test") == "198.51.100.9"


@pytest.mark.requires("user")
def test_a_resolver_on_the_machines_loopback_is_asked(make_box: Callable[..., Box]) -> None:
    assert host_resolver().startswith("127.")
    box = make_box()
    assert "127." not in box.out("cat /etc/resolv.conf")
    assert resolve(box, outside.NAME) == outside.ANSWER["loopback"]


def host_resolver() -> str:
    lines = Path("/etc/resolv.conf").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("nameserver"))


@pytest.mark.requires("root")
def test_roots_containers_ask_a_resolver_on_the_machines_loopback_too(there: str, store: Path) -> None:
    nbhull = Path(sys.executable).with_name("nbhull")
    command = [str(nbhull), "run", "--rm", "host", "getent", "ahostsv4", outside.NAME]
    done = subprocess.run(
        [*outside.machine(outside.loopback_resolver()), *command], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith(outside.ANSWER["loopback"]), done


# -- published ports ---------------------------------------------------------------------------


def fetch(port: int) -> str:
    """What a published web server answers; empty while it does not."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=3) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_published_port_leads_in(make_box: Callable[..., Box], there: str) -> None:
    port = free_port()
    box = make_box(publish=(Port(port, 80),))
    with box.engine.spawn(box.id, ProcessSpec(("python3", "-c", SERVE, "80"), env=ENVIRONMENT, cwd="/opt")):
        assert "Directory listing" in eventually(lambda: fetch(port), "the published server")
    assert ask(box, there, outside.WEB).startswith("hello")
    box.engine.stop(box.id, 0)
    assert fetch(port) == ""
    with socket.create_server(("127.0.0.1", port)):
        pass  # it is free again


def test_a_published_udp_port_leads_in(make_box: Callable[..., Box], there: str) -> None:
    machine = machine_of(there)
    port = free_port(socket.SOCK_DGRAM)
    box = make_box(publish=(Port(port, 5000, "udp", machine),))
    code = """import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 5000))
while True:
    data, whom = s.recvfrom(100); s.sendto(b"got " + data, whom)"""
    with (
        box.engine.spawn(box.id, ProcessSpec(("python3", "-c", code), env=ENVIRONMENT)),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(0.2)

        def answer() -> bytes:
            client.sendto(b"it", (machine, port))
            try:
                return client.recv(100)
            except OSError:
                return b""

        assert eventually(answer, "an answer by UDP") == b"got it"


def test_a_port_in_use_is_refused_and_leaves_nothing(shared_engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        container = shared_engine.create(ContainerSpec(publish=(Port(port, 80, "tcp", "127.0.0.1"),)))
        with pytest.raises(Conflict, match=rf"127\.0\.0\.1:{port}/tcp of this machine cannot be published"):
            shared_engine.start(container.id)
        assert shared_engine.container(container.id).state == "created"
    shared_engine.remove(container.id, force=True)


# -- many, and what is left --------------------------------------------------------------------


def test_twenty_at_once_and_nothing_is_left(store: Path, there: str) -> None:
    others = traces()
    engine = Engine(store)
    boxes = [engine.create(ContainerSpec()) for _ in range(20)]
    answers: list[str] = []

    def use(identity: str) -> None:
        engine.start(identity)
        box = Box.__new__(Box)
        box.engine, box.container = engine, engine.container(identity)
        answers.append(ask(box, there, outside.WEB))

    threads = [threading.Thread(target=use, args=(box.id,)) for box in boxes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([answer for answer in answers if answer.startswith("hello")]) == 20, answers
    ours = traces() - others
    assert len(ours) >= 20
    for box in boxes:
        engine.remove(box.id, force=True)
    engine.close()
    eventually(lambda: not ours & traces(), "the end of what connected them")


def test_a_killed_launcher_leaves_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    others, before = traces(), SWITCH.read_text()
    container = engine.create(ContainerSpec())
    engine.start(container.id)
    engine.spawn(container.id, ProcessSpec(("true",))).wait(10)
    launcher = engine.launcher()
    ours = traces() - others
    assert ours
    os.kill(launcher.pid, signal.SIGKILL)
    eventually(lambda: not ours & traces(), "the end of what connected them")
    eventually(lambda: not is_running(launcher.folder), "the end of the launcher")
    monkeypatch.setattr("nbhull.runtime.running.YOUNG", 0.0)
    sweep_ended()
    if not interfaces():  # of other sessions
        assert SWITCH.read_text() == before


@pytest.mark.requires("root")
def test_forwarding_ends_with_the_last_container_that_needs_it(store: Path) -> None:
    engine = Engine(store)
    before = SWITCH.read_text()
    first, second = engine.create(ContainerSpec()), engine.create(ContainerSpec())
    engine.start(first.id)
    with Engine(engine.store.home) as other:
        other.start(second.id)
        other.spawn(second.id, ProcessSpec(("true",))).wait(10)
        engine.close()
        assert SWITCH.read_text() == "1\n"
        for container in (first, second):
            other.remove(container.id, force=True)
    if not interfaces():  # of other sessions
        assert SWITCH.read_text() == before


# -- other means, and none ---------------------------------------------------------------------


def run_where(prepare: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb in a mount namespace that a script has changed."""
    nbhull = Path(sys.executable).with_name("nbhull")
    script = f'set -e\n{prepare}\nexec "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(nbhull), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


WITHOUT_NET_ADMIN = "exec setpriv --bounding-set=-net_admin --inh-caps=-net_admin \"$@\""
OPEN_TUN = "mount -t tmpfs -o mode=0755 tmpfs /dev/net; mknod -m 0666 /dev/net/tun c 10 200"
NO_TUN = "mount -t tmpfs tmpfs /dev/net"


@pytest.mark.requires("root", "slirp4netns")
def test_slirp4netns_is_the_second_choice(there: str, store: Path) -> None:
    client = ["/usr/bin/python3", "-c", outside.CONNECT, there, str(outside.WEB)]
    done = run_where(f"{OPEN_TUN}\n{WITHOUT_NET_ADMIN}", "run", "--rm", "host", *client)
    assert (done.stdout[:5], done.stderr) == ("hello", ""), done
    listed = run_where(f"{OPEN_TUN}\n{WITHOUT_NET_ADMIN}", "run", "--rm", "host", "cat", "/etc/resolv.conf")
    assert listed.stdout == "nameserver 10.0.2.3\n"
    refused = run_where(f"{OPEN_TUN}\n{WITHOUT_NET_ADMIN}", "run", "--rm", "-p", "8080:80", "host", "true")
    assert "slirp4netns publishes no ports" in refused.stderr


@pytest.mark.requires("root", "slirp4netns")
def test_where_it_cannot_be_had_the_start_says_what_it_used_instead(store: Path) -> None:
    blocked = f"{NO_TUN}\n{WITHOUT_NET_ADMIN}"
    done = run_where(blocked, "run", "--rm", "host", "readlink", "/proc/self/ns/net")
    assert done.stdout.strip() == os.readlink("/proc/self/ns/net")
    assert done.stderr.startswith(
        "nbhull: The container has this machine's own network, since one of its own cannot be had: there is no "
        "/dev/net/tun. To mend it: modprobe tun"
    )
    refused = run_where(blocked, "run", "--rm", "--network", "nat", "host", "true")
    assert refused.returncode == 125
    message, hint = refused.stderr.splitlines()
    assert message == "nbhull: a network of its own cannot be had: there is no /dev/net/tun"
    assert hint.startswith("  hint: modprobe tun")
