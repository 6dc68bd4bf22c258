"""Whatever the bytes: a right result or a clear error, in bounded memory."""

from __future__ import annotations

import io
import json
import tarfile
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.images import compression, documents, reference
from nbhull.runtime.images import tarheaders as tar
from support import fuzzing
from support.fuzzing import Memory
from support.tars import archive, entry, file, folder, symlink

pytestmark = pytest.mark.requires("root")  # none of it asks who runs it

VALID = archive(
    folder("a"), file("a/" + "b" * 120, b"x" * 700, pax_headers={"SCHILY.xattr.user.k": "v"}), symlink("l", "t" * 150)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def entries(data: bytes) -> list[tar.Entry]:
    reader = tar.Reader(Memory(data))
    found = []
    while one := reader.next():
        found.append(one)
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4))
def test_headers(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(VALID)
    for place, piece in changes:
        data[place : place + len(piece)] = piece
        header = place - place % 512
        block = data[header : header + 512]
        block[148:156] = b" " * 8
        data[header + 148 : header + 156] = b"%06o\0 " % sum(block)  # else most changes would end at the checksum
    with suppress(InvalidInput):
        for one in entries(bytes(data)):
            assert 0 <= one.size <= tar.LARGEST
            assert len(one.name) <= tar.LONGEST_PATH


NAMES = st.lists(st.binary(min_size=1, max_size=120).filter(lambda b: not {0, 47} & set(b)), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(
    NAMES,
    NAMES,
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 1),
    st.integers(-(2**33), 2**35),
    st.dictionaries(st.just(b"user."), st.binary(max_size=30), max_size=1),
)
def test_what_is_written_is_read_as_it_was(
    name: list[bytes], link: list[bytes], mode: int, uid: int, mtime: int, xattrs: dict[bytes, bytes]
) -> None:
    one = tar.Entry(b"/".join(name), tar.SYMBOLIC_LINK)
    one.link, one.mode, one.uid, one.gid, one.mtime, one.xattrs = b"/".join(link), mode, uid, uid, mtime * 10**9, xattrs
    (back,) = entries(tar.write(one) + tar.ZERO * 2)
    assert (back.name, back.link, back.mode, back.uid, back.mtime) == (one.name, one.link, mode, uid, one.mtime)
    assert back.xattrs == xattrs
    with suppress(UnicodeDecodeError):
        text = one.name.decode()
        with tarfile.open(fileobj=io.BytesIO(tar.write(one) + tar.ZERO * 2)) as opened:
            assert opened.getnames() == [text.rstrip("/")]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["gzip", "zstd", "bzip2", "xz"]))
def test_compressed_streams(data: bytes, kind: str) -> None:
    with suppress(InvalidInput):
        for piece in compression.decompress(io.BytesIO(compression.MAGIC[kind] + data).read):
            assert len(piece) <= compression.PIECE


def changed(document: dict[str, Any], path: list[str], value: Any) -> bytes:
    """A document with one thing in it changed."""
    document = json.loads(json.dumps(document))
    place = document
    for key in path[:-1]:
        inner = place.get(key)
        if not isinstance(inner, dict):
            break
        place = inner
    place[path[-1]] = value
    return json.dumps(document).encode()


DIGEST = f"sha256:{'a' * 64}"
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": documents.OCI_MANIFEST,
    "config": {"mediaType": documents.OCI_CONFIG, "digest": DIGEST, "size": 2},
    "layers": [],
}
CONFIG = {"rootfs": {"diff_ids": [DIGEST]}, "config": {"Env": ["A=b"], "Cmd": ["sh"]}, "history": []}
KEYS = ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "rootfs", "diff_ids", "Env"]
KEYS += ["Cmd", "Entrypoint", "User", "WorkingDir", "Volumes", "Labels", "StopSignal", "history", "annotations"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3), JSON)
def test_documents(path: list[str], value: Any) -> None:
    with suppress(InvalidInput):
        documents.parse_manifest(changed(MANIFEST, path, value))
    with suppress(InvalidInput):
        config = documents.parse_config(changed(CONFIG, path, value))
        assert json.dumps(config.settings())
        assert all("=" in variable for variable in config.env)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_documents_of_any_bytes(data: bytes) -> None:
    for parse in (documents.parse_manifest, documents.parse_config):
        with suppress(InvalidInput):
            parse(data)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="abcAB01.-_/:@[]\x1b\n ü", max_size=40))
def test_references(text: str) -> None:
    with suppress(InvalidInput):
        parsed = reference.parse(text)
        assert reference.parse(str(parsed)) == parsed
        assert text.isascii()
        assert text.isprintable()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("debian", ("", "debian", "", "")),
        ("debian:12", ("", "debian", "12", "")),
        ("team/debian", ("", "team/debian", "", "")),
        ("localhost/debian", ("localhost", "debian", "", "")),
        ("localhost:5000/a/b:c", ("localhost:5000", "a/b", "c", "")),
        ("[::1]:5000/a", ("[::1]:5000", "a", "", "")),
        (f"registry.example.org/a@{DIGEST}", ("registry.example.org", "a", "", DIGEST)),
        (f"registry.example.org/a:1@{DIGEST}", ("registry.example.org", "a", "1", DIGEST)),
    ],
)
def test_references_are_taken_apart(text: str, parts: tuple[str, str, str, str]) -> None:
    assert tuple(reference.parse(text)) == parts


@pytest.mark.parametrize(
    "text",
    ["", "/", "a//b", "A", "a:", "a@sha256:1", "-a", "a/../b", "../a", "/etc/passwd", "a:b:c", "a\n", "host:latest"],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        reference.local_name(text) if text == "host:latest" else reference.parse(text)


def test_the_header_of_a_device_is_kept_whole() -> None:
    (one,) = entries(archive(entry("d", tarfile.BLKTYPE, devmajor=8, devminor=1)))
    assert (one.kind, one.device) == (tar.BLOCK_DEVICE, (8, 1))


@pytest.mark.parametrize("name", fuzzing.TARGETS)
def test_targets_take_what_they_begin_with(name: str) -> None:
    """The targets of `make fuzz` do what they are for: each seed is right, and what is cut off is no fault."""
    target, seeds = fuzzing.TARGETS[name]
    for seed in seeds:
        if name != "compressed":  # a beginning alone
            target(seed)
        for length in range(0, len(seed), max(1, len(seed) // 16)):
            fuzzing.attempt(name, seed[:length])


FOUND = [
    ("challenge", b'Bearer realm="https:\0\0//pe="repository:a:pull"'),
    ("challenge", b'Bearer realm="https://[",service="x"'),
]
"""inputs on which fuzzing failed once"""


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_fuzzing_has_found(name: str, data: bytes) -> None:
    fuzzing.attempt(name, data)
