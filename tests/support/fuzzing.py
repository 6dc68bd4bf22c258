"""What is handed bytes of anybody's: for each a function that takes them, and fails with nothing but nbhull's errors.

`tools/fuzz.py` drives them by coverage; tests/images/test_fuzz.py has what it found."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

from nbhull.runtime.builder import ignore, instructions, syntax, travel
from nbhull.runtime.builder.conda import file as conda_file
from nbhull.runtime.builder.environment import parse_lock
from nbhull.runtime.builder.expansion import Rules, expand
from nbhull.runtime.errors import HullError
from nbhull.runtime.images import compression, documents, reference
from nbhull.runtime.images import tarheaders as tar
from nbhull.runtime.registry.authorization import Anonymous, read_token
from nbhull.runtime.registry.credentials import Credentials
from support.tars import archive, file, folder, symlink


class Memory:
    """Bytes as a source of a tar's headers."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def take(self, count: int) -> bytes:
        assert count <= tar.METADATA, "more than an entry may have is read at once"
        return self.file.read(count)

    def skip(self, count: int) -> None:
        if len(self.file.read(min(count, 1 << 24))) < count:
            raise tar.damaged("it is cut off")


class Answer(io.BytesIO):
    """An answer of a server."""

    status = 200

    def read(self, count: int | None = -1, decode_content: bool = True) -> bytes:
        return super().read(count)


def tar_headers(data: bytes) -> None:
    checked = bytearray(data)
    for start in range(0, len(checked) - 511, 512):
        if checked[start + 257 : start + 262] != b"ustar":
            continue
        # a right checksum, at which most changes would end
        checked[start + 148 : start + 156] = b" " * 8
        checked[start + 148 : start + 156] = b"%06o\0 " % sum(checked[start : start + 512])
    reader = tar.Reader(cast(Any, Memory(bytes(checked))))
    while entry := reader.next():
        assert 0 <= entry.size <= tar.LARGEST
        assert len(entry.name) <= tar.LONGEST_PATH


def compressed(data: bytes) -> None:
    total = 0
    for piece in compression.decompress(io.BytesIO(data).read):
        total += len(piece)
        assert len(piece) <= compression.PIECE
        if total > 1 << 24:
            break


def manifest(data: bytes) -> None:
    documents.parse_manifest(data)


def config(data: bytes) -> None:
    json.dumps(documents.parse_config(data).settings())


def containerfile(data: bytes) -> None:
    instructions.program(syntax.parse(data))


def expansion(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    expand(text, {"A": "b", "EMPTY": ""}, Rules("\\", quotes=True))


def ignore_file(data: bytes) -> None:
    ignore.parse(data.decode("utf-8", "surrogateescape"), "ignore")


def references(data: bytes) -> None:
    parsed = reference.parse(data.decode("utf-8", "surrogateescape"))
    assert reference.parse(str(parsed)) == parsed


def challenge(data: bytes) -> None:
    """What a registry asks for; nothing is sent."""

    def request(method: str, url: str, **_: Any) -> Answer:
        assert url.startswith("https://")
        return Answer(b'{"token": "t"}')

    transport = SimpleNamespace(host="registry.example.org", scheme="https", request=request)
    state = Anonymous(cast(Any, transport), Credentials("ada", "lovelace"))
    state.escalate([data.decode("latin-1")], "repository:a:pull").header()


def token(data: bytes) -> None:
    read_token("registry.example.org", cast(Any, Answer(data)), known=False)


def environment_file(data: bytes) -> None:
    conda_file.parse(data.decode("utf-8", "replace"))


def lock_file(data: bytes) -> None:
    parse_lock(data.decode("utf-8", "replace"))


def cache_label(data: bytes) -> None:
    travel.parse_label(data.decode("utf-8", "replace"), 2)


CONTAINERFILE = b"""\
# escape=\\
ARG A=1
FROM a${A:-b} AS c
RUN --mount=type=cache,target=/x <<EOF
x
EOF
COPY --from=c ["a", "b"]
"""
PAX = {"SCHILY.xattr.user.k": "v"}
LOCK = {"version": 1, "base": "b", "layers": [], "asked": "", "epoch": 1, "packages": [], "requirements": []}
CONFIG = {"rootfs": {"diff_ids": []}, "config": {"Env": ["A=b"], "Cmd": ["sh"]}, "history": []}
DIGEST = f"sha256:{'a' * 64}"
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "tar": (
        tar_headers,
        [archive(folder("a"), file("b" * 120, b"x" * 700, pax_headers=PAX), symlink("l", "t" * 150))],
    ),
    "compressed": (compressed, [magic for magic in compression.MAGIC.values() if magic]),
    "manifest": (
        manifest,
        [json.dumps({"schemaVersion": 2, "mediaType": documents.OCI_MANIFEST, "layers": [], "config": {
            "mediaType": documents.OCI_CONFIG, "digest": DIGEST, "size": 2}}).encode()],
    ),
    "config": (
        config,
        [json.dumps(CONFIG).encode()],
    ),
    "containerfile": (
        containerfile,
        [CONTAINERFILE],
    ),
    "expansion": (expansion, [b"a${A:-b}$EMPTY${A%b*}${A/b/c}"]),
    "ignore": (ignore_file, [b"# x\n!a/**/b\n*.txt\n[a-c]?\n"]),
    "reference": (references, [f"registry.example.org:5000/a/b:c@{DIGEST}".encode()]),
    "challenge": (challenge, [b'Bearer realm="https://auth.example.org/token",service="x",scope="repository:a:pull"']),
    "token": (token, [b'{"token": "abc", "expires_in": 60}']),
    "environment": (environment_file, [b"channels: [a]\ndependencies:\n  - b=1\n  - pip: [c]\nvariables: {D: 1}\n"]),
    "lock": (lock_file, [json.dumps(LOCK).encode()]),
    "label": (cache_label, [b'{"version": 1, "steps": {"%s": [0, 1]}}' % (b"0" * 64)]),
}
"""by name: the function, and what to begin with"""


def attempt(name: str, data: bytes) -> None:
    """Hand bytes to a target. Raises only what is a fault of nbhull's."""
    with suppress(HullError):
        TARGETS[name][0](data)
