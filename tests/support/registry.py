"""A real registry on loopback, and a wire in front of one that can be cut."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.waiting import eventually

USER, PASSWORD = "ada", "lovelace"


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Registry:
    """Debian's docker-registry, with TLS and a password where `secure`."""

    def __init__(self, folder: Path, *, secure: bool) -> None:
        self.port = free_port()
        self.secure = secure
        self.host = f"localhost:{self.port}"
        self.authority = folder / "ca.pem"
        http: dict[str, Any] = {"addr": f"127.0.0.1:{self.port}", "secret": "for-tests"}
        document: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
            "http": http,
        }
        if secure:
            make_certificates(folder)
            http["tls"] = {"certificate": str(folder / "server.pem"), "key": str(folder / "server.key")}
            hashed = subprocess.run(
                ["htpasswd", "-Bbn", USER, PASSWORD], check=True, capture_output=True, text=True
            ).stdout
            (folder / "htpasswd").write_text(hashed)
            document["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
        (folder / "config.yml").write_text(json.dumps(document))
        with open(folder / "log", "w") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log, cwd=folder
            )
        eventually(self.accepts, "docker-registry accepts connections")

    def accepts(self) -> bool:
        """Whether it listens."""
        assert self.process.poll() is None, "docker-registry ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)


def make_certificates(folder: Path) -> None:
    """An authority, and a certificate of it for localhost."""
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.cert_chain_pems[0].write_to_path(folder / "server.pem")
    server.private_key_pem.write_to_path(folder / "server.key")


class Wire:
    """Passes bytes between a client and a server on loopback, and cuts connections."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.host = f"localhost:{self.port}"
        self.cut_down: list[int] = []
        """bytes from the server after which a connection is cut; taken from the left, one each"""
        self.cut_up: list[int] = []
        """the same for bytes to the server"""
        self.down = 0
        """bytes that have come from the server"""
        self.cuts = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        """Until closed."""
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            for source, sink, is_down in ((client, server, False), (server, client, True)):
                threading.Thread(target=self.copy, args=(source, sink, is_down), daemon=True).start()

    def copy(self, source: socket.socket, sink: socket.socket, is_down: bool) -> None:
        """One direction of a connection. A long stream is cut, where one is to be."""
        passed = 0
        plan = self.cut_down if is_down else self.cut_up
        while True:
            try:
                piece = source.recv(1 << 16)
                if not piece:
                    break
                passed += len(piece)
                if is_down:
                    self.down += len(piece)
                if plan and passed > plan[0]:
                    plan.pop(0)
                    self.cuts += 1
                    break
                sink.sendall(piece)
            except OSError:
                break
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other direction was quicker
        source.close()

    def close(self) -> None:
        """Accept nobody any more."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Answers:
    """A server that says what a test wants it to: by method and path, (status, headers, body)."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, dict[str, str], bytes]] = {}
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                outer.seen.append((self.command, self.path, dict(self.headers)))
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                status, headers, body = outer.decide(self.command, path, dict(self.headers))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"localhost:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def decide(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """The answer; tests replace it for what depends on the headers."""
        return self.answers.get((method, path), (404, {}, b"{}"))

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()


def copy_image(source: str, target: str, *options: str) -> None:
    """skopeo copy, for images that others make."""
    command = ["skopeo", "--insecure-policy", "copy", "-q", *options, source, target]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=without_proxies())
    assert done.returncode == 0, done.stderr


def without_proxies() -> dict[str, str]:
    """The environment, for tools that talk to loopback."""
    return {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
