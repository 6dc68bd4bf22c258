"""Streams of compressed bytes: told by their first bytes, decompressed and compressed piece by piece.

The same bytes give the same compressed bytes whatever the machine and its number of cores, since digests are made
of them: gzip is compressed by zlib in blocks of a fixed size, each with the end of the one before as its dictionary.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Protocol

from nbhull.runtime.errors import InvalidInput

Compression = Literal["none", "gzip", "zstd"]
PIECE = 1 << 20
"""bytes of a piece, compressed and not"""
WINDOW = 1 << 15
"""bytes that deflate looks back"""
GZIP_LEVEL = 4
ZSTD_LEVEL = 3
LZMA_MEMORY = 256 << 20
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""no name, no time, unknown system (RFC 1952)"""
MAGIC = {
    "gzip": b"\x1f\x8b",
    "zstd": b"\x28\xb5\x2f\xfd",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\0",
}
ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
"""what follows the first byte (0x50 to 0x5f) of a frame to be skipped (RFC 8878)"""
FLOOR, RATIO = 1 << 30, 250
"""bytes that any stream may become, and how many more for each compressed byte"""


class Decompressor(Protocol):
    """The interface of bz2.BZ2Decompressor, which all of them have."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


def kind_of(beginning: bytes) -> str:
    """`gzip`, `zstd`, `bzip2`, `xz` or `none`, by a stream's first bytes."""
    for kind, magic in MAGIC.items():
        if beginning.startswith(magic):
            return kind
    return "zstd" if beginning[1:4] == ZSTD_SKIPPABLE and beginning[0] >> 4 == 5 else "none"


def make_decompressor(kind: str) -> Decompressor:
    """A decompressor of that kind."""
    if kind == "gzip":
        from isal import igzip_lib

        return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
    if kind == "zstd":
        return zstd().ZstdDecompressor()  # type: ignore[no-any-return]
    if kind == "bzip2":
        import bz2

        return bz2.BZ2Decompressor()
    import lzma

    return lzma.LZMADecompressor(memlimit=LZMA_MEMORY)


def zstd() -> Any:
    """The module of Python 3.14, or the same for older ones."""
    import sys

    if sys.version_info >= (3, 14):
        from compression import zstd as module
    else:
        from backports import zstd as module
    return module


def import_all() -> None:
    """Import every library that may be needed, for a process that soon cannot read them."""
    for kind in MAGIC:
        make_decompressor(kind)


def begin(read: Callable[[int], bytes]) -> tuple[str, bytes]:
    """How a stream is compressed (see `kind_of`), and its first bytes, which had to be read to tell."""
    data = b""
    while len(data) < 6 and (more := read(PIECE)):
        data += more
    return kind_of(data), data


def decompress(read: Callable[[int], bytes], *, floor: int = FLOOR, ratio: int = RATIO) -> Iterator[bytes]:
    """The plain bytes of a stream in pieces of at most PIECE bytes; concatenated streams are one.

    `read(n)` gives up to n bytes, none at the end. Raises InvalidInput for a stream that is damaged, cut off, or
    grows beyond `floor + ratio × what was read` bytes."""
    return proceed(*begin(read), read, floor=floor, ratio=ratio)


def proceed(
    kind: str, data: bytes, read: Callable[[int], bytes], *, floor: int = FLOOR, ratio: int = RATIO
) -> Iterator[bytes]:
    """`decompress`, where `begin` has told the beginning already."""
    if kind == "none":
        while data:
            yield data
            data = read(PIECE)
        return
    taken, made = len(data), 0
    decompressor = make_decompressor(kind)
    while True:
        try:
            piece = decompressor.decompress(data, PIECE)
        except Exception as error:  # each library has exceptions of its own
            raise InvalidInput(f"the {kind} stream is damaged: {error}", "get the file or the image again") from error
        made += len(piece)
        if made > floor + ratio * taken:
            raise InvalidInput(
                f"{taken} bytes of a {kind} stream became more than {made}, which is taken for an attack",
                "remake the image without files of nothing but zeros",
            )
        if piece:
            yield piece
        if decompressor.eof:
            data = decompressor.unused_data.lstrip(b"\0")
            while not data and (more := read(PIECE)):
                taken += len(more)
                data = more.lstrip(b"\0")  # padding between streams, and behind the last, as tapes have it
            if not data:
                return
            decompressor = make_decompressor(kind)
        elif decompressor.needs_input:
            data = read(PIECE)
            taken += len(data)
            if not data:
                raise InvalidInput(f"the {kind} stream is cut off", "get the file or the image again")
        else:
            data = b""


def compress(pieces: Iterable[bytes], kind: Compression, threads: int = 2) -> Iterator[bytes]:
    """The compressed bytes of a stream; `pieces` of PIECE bytes each, but for the last."""
    if kind == "none":
        yield from pieces
    elif kind == "zstd":
        module = zstd()
        compressor = module.ZstdCompressor(
            options={
                module.CompressionParameter.compression_level: ZSTD_LEVEL,
                module.CompressionParameter.checksum_flag: 1,
            }
        )
        for piece in pieces:
            yield compressor.compress(piece)
        yield compressor.flush()
    else:
        yield from gzip(pieces, threads)


def gzip(pieces: Iterable[bytes], threads: int) -> Iterator[bytes]:
    """One gzip member, its blocks compressed in parallel."""
    yield GZIP_HEADER
    check, length, dictionary = 0, 0, b""
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for piece in pieces:
            check, length = zlib.crc32(piece, check), length + len(piece)
            waiting.append(pool.submit(deflate, piece, dictionary))
            dictionary = piece[-WINDOW:]
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    yield zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -15).flush()  # an empty last block
    yield check.to_bytes(4, "little") + (length & 0xFFFFFFFF).to_bytes(4, "little")


def deflate(piece: bytes, dictionary: bytes) -> bytes:
    """A block of a deflate stream, which ends on a byte's boundary."""
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -15, zdict=dictionary)
    return compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)
