"""The outside that tests of networks talk to: a network namespace with servers in it, made by root.

It has a web server that tells who asks, a UDP echo and a name server, at an address that is on no wire. A second
name server listens on the machine's loopback alone, as systemd-resolved does. Standard library only; also run as a
program, which is the servers.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "NBHULL_TEST_OUTSIDE"
"""the address of the outside, for tests that an ordinary user runs"""
WEB, ECHO = 8000, 8001
NAME = "answer.nbhull.test"
"""the one name that the name servers know"""
ANSWER = {"outside": "198.51.100.77", "loopback": "198.51.100.78"}
"""what each of them says that it means"""


CONNECT = """import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[3:] == ["udp"] else socket.SOCK_STREAM
channel = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, kind)
channel.settimeout(3)
try:
    channel.connect((sys.argv[1], int(sys.argv[2])))
    channel.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
    parts = [channel.recv(4096)]
    while kind == socket.SOCK_STREAM and parts[-1]:
        parts.append(channel.recv(4096))
    print(b"".join(parts).decode().rpartition("\\n")[2])
except OSError as error:
    print("failed:", error)
"""
"""run in a container: what a server answers, or `failed:` and why"""


class Web(http.server.BaseHTTPRequestHandler):
    """Answers with the address of who asks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"hello {self.client_address[0]}".encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


class Echo(socketserver.BaseRequestHandler):
    """Sends back what came."""

    def handle(self) -> None:
        data, channel = self.request
        channel.sendto(data, self.client_address)


def names(answer: str) -> type[socketserver.BaseRequestHandler]:
    """A name server (RFC 1035) that knows NAME; others it fails, so that who asks goes on to the next server."""

    class Names(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query, channel = self.request
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1 : at + 1 + query[at]].decode())
                at += 1 + query[at]
            question = query[12 : at + 5]
            kind = struct.unpack_from(">H", query, at + 1)[0]
            known = ".".join(labels) == NAME
            is_found = known and kind == 1
            header = query[:2] + struct.pack(">HHHHH", 0x8180 if known else 0x8182, 1, int(is_found), 0, 0)
            record = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(answer)
            channel.sendto(header + question + (record if is_found else b""), self.client_address)

    return Names


def serve(address: str) -> None:
    """Run as the servers until standard input ends; says `ready` once all listen."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    if address.startswith("127."):
        servers: list[socketserver.BaseServer] = [
            socketserver.ThreadingUDPServer((address, 53), names(ANSWER["loopback"]))
        ]
    else:
        servers = [
            http.server.ThreadingHTTPServer((address, WEB), Web),
            socketserver.ThreadingUDPServer((address, ECHO), Echo),
            socketserver.ThreadingUDPServer((address, 53), names(ANSWER["outside"])),
        ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


@contextlib.contextmanager
def running(address: str, *prefix: str) -> Iterator[None]:
    """The servers at an address, until the block ends."""
    command = [*prefix, "/usr/bin/python3", __file__, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            assert process.stdin
            process.stdin.close()


def loopback_resolver() -> str:
    """A loopback address of this process's own for a name server."""
    return f"127.0.53.{os.getpid() % 250 + 2}"


@contextlib.contextmanager
def outside() -> Iterator[tuple[str, str]]:
    """As root: the outside, for as long as the block runs; its address, and the loopback resolver's."""
    name = f"outside{os.getpid()}"
    routes = subprocess.run(["ip", "-4", "route"], check=True, capture_output=True, text=True).stdout
    free = [number for number in range(0, 256, 4) if f"198.51.100.{number}/30 " not in routes]
    base = free[os.getpid() % len(free)]  # sessions at the same time seldom choose alike
    host, there = f"198.51.100.{base + 1}", f"198.51.100.{base + 2}"
    link = f"out{os.getpid()}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("address", "add", f"{host}/30", "dev", link)
        ip("link", "set", link, "up")
        ip("-n", name, "address", "add", f"{there}/30", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        with running(there, "ip", "netns", "exec", name), running(loopback_resolver()):
            yield there, loopback_resolver()
    finally:
        ip("netns", "delete", name)


WRAPPER = """
mount --make-rslave /
mount -t tmpfs -o mode=0755 tmpfs /dev/net
mknod -m 0666 /dev/net/tun c 10 200
cp -a /etc /dev/net/etc
{ echo "nameserver $1"; cat /etc/resolv.conf; } > /dev/net/etc/resolv.conf
mount --bind /dev/net/etc /etc  # whole: an overlay over /etc cannot be made where something is mounted in it
shift
exec "$@"
"""


def machine(resolver: str) -> list[str]:
    """A command's beginning that runs it where the tun device is open to all, as on every distribution, and where
    resolv.conf names a resolver of the loopback first; in a mount namespace of its own."""
    assert Path("/etc/resolv.conf").exists()
    return ["unshare", "--mount", "sh", "-ec", WRAPPER, "sh", resolver]


if __name__ == "__main__":
    serve(sys.argv[1])
