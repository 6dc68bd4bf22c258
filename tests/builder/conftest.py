"""A root file system of next to nothing, and images of it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbhull.runtime.builder.build import Result
from nbhull.runtime.engine import Engine
from support.builds import built
from support.indexes import python_root

BUSYBOX = Path("/bin/busybox")
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\n"


def busybox_root() -> bytes:
    """A tar of a root file system that has busybox alone."""
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.size, member.linkname = kind, mode, len(data), link
            archive.addfile(member, io.BytesIO(data))

        for name, mode in (("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)):
            add(name, tarfile.DIRTYPE, mode)
        add("bin/busybox", tarfile.REGTYPE, 0o755, BUSYBOX.read_bytes())
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
        add("etc/passwd", tarfile.REGTYPE, 0o644, PASSWD.encode())
        add("etc/group", tarfile.REGTYPE, 0o644, GROUP.encode())
    return memory.getvalue()


@pytest.fixture(scope="session")
def busybox_tar() -> bytes:
    return busybox_root()


@pytest.fixture(scope="session")
def base_engine(shared_engine: Engine, busybox_tar: bytes) -> Engine:
    """The shared engine, with the image `base`."""
    shared_engine.catalog.import_root([busybox_tar], ["base"], {"Cmd": ["/bin/sh"]})
    return shared_engine


@pytest.fixture(scope="session")
def with_python(base_engine: Engine, busybox_tar: bytes) -> str:
    """Name of an image that has the machine's own Python, too."""
    base_engine.catalog.import_root([python_root(busybox_tar)], ["with-python"])
    return "with-python"


@pytest.fixture
def build(base_engine: Engine, tmp_path: Path) -> Callable[..., Result]:
    """Builds a Containerfile given as text, with the files given: `build(text, {path: text}, target=…)`."""

    def build(text: str, files: dict[str, str] | None = None, context: Path | None = None, **options: Any) -> Result:
        folder = context or tmp_path / "context"
        folder.mkdir(exist_ok=True)
        for name, content in {"Containerfile": text, **(files or {})}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return built(base_engine, folder, **options)

    return build
