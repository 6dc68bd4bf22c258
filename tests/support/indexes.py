"""Indexes of Python's and conda's packages on loopback, and small packages to put into them."""

from __future__ import annotations

import base64
import bz2
import contextlib
import functools
import hashlib
import http.server
import io
import json
import ssl
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PLACEHOLDER = b"/opt/placeholder" + b"_x" * 60
"""the prefix that conda's packages are built for"""


@contextlib.contextmanager
def served(folder: Path, certificates: Path | None = None) -> Iterator[tuple[str, list[str]]]:
    """Serve a folder on loopback, by TLS where there are `certificates` (support.registry.make_certificates); its
    address, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with contextlib.closing(server.socket):
        try:
            yield f"{'http' if certificates is None else 'https'}://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def python_root(busybox_tar: bytes) -> bytes:
    """A root file system with the machine's own Python, and what it needs to run."""
    library = Path(
        subprocess.run(
            ["/usr/bin/python3", "-c", "import os; print(os.__file__)"], capture_output=True, text=True, check=True
        ).stdout.strip()
    ).parent
    real = Path("/usr/bin/python3").resolve()
    listed = subprocess.run(
        ["ldd", real, *library.glob("lib-dynload/*.so")], capture_output=True, text=True, check=False
    ).stdout
    shared = {
        word for line in listed.splitlines() for word in line.split() if word.startswith("/") and not word.endswith(":")
    }
    memory = io.BytesIO(busybox_tar)
    with tarfile.open(fileobj=memory, mode="a") as archive:
        for path in sorted(shared):
            archive.add(Path(path).resolve(), path.lstrip("/"))
        archive.add(real, "usr/bin/python3")
        skip = ("/test", "/__pycache__", "/idlelib", "/tkinter", "/lib2to3", "/pydoc_data", "/config-")
        archive.add(
            library, str(library).lstrip("/"), filter=lambda m: None if any(s in f"/{m.name}" for s in skip) else m
        )
        wheels = Path("/usr/share/python-wheels")
        if wheels.exists():
            archive.add(wheels, str(wheels).lstrip("/"))
    return memory.getvalue()


def wheel(name: str, version: str, requires: str = "") -> bytes:
    """A wheel with one module (PEP 427)."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    digests = {
        p: base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).decode().rstrip("=") for p, t in files.items()
    }
    files[f"{info}/RECORD"] = (
        "".join(f"{p},sha256={d},{len(files[p])}\n" for p, d in digests.items()) + f"{info}/RECORD,,\n"
    )
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for path, text in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), text)
    return memory.getvalue()


def add_wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}-{version}-py3-none-any.whl").write_bytes(wheel(name, version, requires))
    links = "".join(f'<a href="{path.name}">{path.name}</a>' for path in place.glob("*.whl"))
    (place / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


class CondaPackage:
    """A package of conda (https://docs.conda.io, Conda package specification), to be put into channels."""

    def __init__(self, name: str, version: str, files: Mapping[str, bytes | str], **index: Any) -> None:
        """`files`: content by path, a text for where a symbolic link leads; what has PLACEHOLDER in it is told to."""
        self.index = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": [], **index}
        self.index.setdefault("subdir", "noarch" if "noarch" in index else "linux-64")
        self.files = files
        self.stem = f"{name}-{version}-0"

    def information(self) -> dict[str, bytes | str]:
        paths = []
        for path, content in self.files.items():
            entry: dict[str, Any] = {"_path": path, "path_type": "softlink" if isinstance(content, str) else "hardlink"}
            if isinstance(content, bytes):
                entry |= {"sha256": hashlib.sha256(content).hexdigest(), "size_in_bytes": len(content)}
                if PLACEHOLDER in content:
                    mode = "binary" if b"\0" in content else "text"
                    entry |= {"prefix_placeholder": PLACEHOLDER.decode(), "file_mode": mode}
            paths.append(entry)
        info: dict[str, bytes | str] = {
            "info/index.json": json.dumps(self.index).encode(),
            "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
        }
        if self.index.get("noarch") == "python":
            points = [f"{self.index['name']} = {self.index['name']}:main"]
            link = {"noarch": {"type": "python", "entry_points": points}, "package_metadata_version": 1}
            info["info/link.json"] = json.dumps(link).encode()
        return info

    def archive(self, kind: str) -> bytes:
        """The package as a file: `.conda` or `.tar.bz2`."""
        if kind == ".tar.bz2":
            return bz2.compress(tar_of({**self.information(), **self.files}))
        from backports import zstd

        memory = io.BytesIO()
        with zipfile.ZipFile(memory, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
            archive.writestr(f"pkg-{self.stem}.tar.zst", zstd.compress(tar_of(self.files)))
            archive.writestr(f"info-{self.stem}.tar.zst", zstd.compress(tar_of(self.information())))
        return memory.getvalue()


def tar_of(files: Mapping[str, bytes | str]) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.mode = 0o755 if path.startswith("bin/") else 0o644
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return memory.getvalue()


def add_conda_package(channel: Path, package: CondaPackage, kind: str = ".conda") -> Path:
    """Put a package into a channel, and into what the channel says that it has; the archive's path."""
    for subdir in ("linux-64", "noarch"):
        (channel / subdir).mkdir(parents=True, exist_ok=True)
        listing = channel / subdir / "repodata.json"
        if not listing.exists():
            listing.write_text(json.dumps({"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}}))
    data = package.archive(kind)
    path = channel / str(package.index["subdir"]) / f"{package.stem}{kind}"
    path.write_bytes(data)
    listing = path.parent / "repodata.json"
    told = json.loads(listing.read_text())
    told["packages" if kind == ".tar.bz2" else "packages.conda"][path.name] = {
        **package.index,
        "sha256": hashlib.sha256(data).hexdigest(),
        "md5": hashlib.md5(data).hexdigest(),
        "size": len(data),
    }
    listing.write_text(json.dumps(told))
    return path
