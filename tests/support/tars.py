"""Archives for tests: honest ones by Python's tarfile, hostile ones by hand."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Entry = tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]
APPLETS = (
    "sh ls cat id stat find sort ln rm mkdir touch readlink pwd env echo sleep test true false chmod chown getfattr"
)


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    """A header with what tests care about."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.mtime = 1_000_000_000
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def archive(*entries: Entry) -> bytes:
    """A pax archive of headers, each alone or with its data."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for one in entries:
            info, data = one if isinstance(one, tuple) else (one, b"")
            if data:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def folder(name: str, **fields: Any) -> tarfile.TarInfo:
    return entry(name, tarfile.DIRTYPE, **fields)


def file(name: str, data: bytes = b"data", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, **fields), data


def symlink(name: str, target: str) -> tarfile.TarInfo:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> tarfile.TarInfo:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def small_root() -> bytes:
    """A root file system of busybox alone, a few megabytes."""
    links = [symlink(f"bin/{name}", "busybox") for name in APPLETS.split()]
    return archive(
        *(folder(name) for name in ("bin", "etc", "home", "home/me", "usr", "usr/bin", "var")),
        folder("tmp", mode=0o1777),
        folder("root", mode=0o700),
        file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755),
        *links,
        file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nme:x:1000:1000:me:/home/me:/bin/sh\n"),
        file("etc/group", b"root:x:0:\nme:x:1000:\nextra:x:1005:me\n"),
        file("etc/hosts", b"the image's own\n"),
    )


def pieces(data: bytes, size: int = 100_000) -> Iterator[bytes]:
    """Bytes as they come from a network."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def names(tar: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return opened.getnames()


def present(path: str) -> bool:
    return os.path.lexists(path)
