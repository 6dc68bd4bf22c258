"""Where the context comes from: a folder, a tar, or standard input with a tar or a Containerfile."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nbhull.runtime.builder.context import FILES, find_file
from nbhull.runtime.errors import InvalidInput, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from nbhull.runtime.engine import Engine

REMOTE = ("http://", "https://", "git://", "git@", "ssh://")


@contextmanager
def opened(engine: Engine, context: str, file: str | None) -> Iterator[tuple[str, str | None]]:
    """The context's folder and the Containerfile's path; what was unpacked for it goes afterwards. Raises NotFound,
    InvalidInput."""
    if context.startswith(REMOTE):
        raise InvalidInput(f"the context {context!r} is not on this machine", "clone or download it beforehand")
    if os.path.isdir(context) and file != "-":
        yield context, file
        return
    import tempfile

    os.makedirs(engine.store.path("contexts"), 0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=engine.store.path("contexts")) as folder:
        if os.path.isdir(context):  # -f -: the Containerfile comes by standard input
            path = f"{folder}/Containerfile"
            with open(path, "xb") as written:
                written.write(sys.stdin.buffer.read())
            yield context, path
        elif context == "-":
            yield folder, from_stream(folder, sys.stdin.buffer, file)
        elif os.path.isfile(context):
            with open(context, "rb") as stream:
                yield folder, from_stream(folder, stream, file)
        else:
            raise NotFound(f"there is no folder {context!r}", "give the folder that COPY takes its files from")


@contextmanager
def empty(engine: Engine) -> Iterator[tuple[str, None]]:
    """A context without a file."""
    import tempfile

    os.makedirs(engine.store.path("contexts"), 0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unpacked-", dir=engine.store.path("contexts")) as folder:
        yield folder, None


def from_stream(folder: str, stream: BinaryIO, file: str | None) -> str | None:
    """Unpack a tar, or take the stream for a Containerfile; the path of the latter."""
    from nbhull.runtime.builder.adding import is_tar_header
    from nbhull.runtime.images import unpack
    from nbhull.runtime.images.compression import kind_of

    beginning = stream.read(512)
    if kind_of(beginning[:6] + bytes(6)) == "none" and not is_tar_header(beginning):
        path = f"{folder}/{FILES[0]}"
        with open(path, "xb") as written:
            written.write(beginning + stream.read())
        return path
    rest = beginning

    def read(count: int) -> bytes:
        nonlocal rest
        some, rest = rest, b""
        return some or stream.read(count)

    unpack.unpack_own(folder, read)
    return file if file is None else find_file(folder, file)
