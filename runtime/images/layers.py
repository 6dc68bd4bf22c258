"""Layers of the store: `layers/ID/root` holds what one changes against those below it, in overlayfs's form.

For who makes images (a builder, a snapshot):

    layer = layers.adopt("containers/ID/root/upper")     the changes of a container that does not run become a layer
    layer = layers.ingest(pieces, ...)                   a tar's bytes are hashed, kept and unpacked in one pass
    packed = layers.packed(layer.id)                     the digests of a layer, whose tar is made now if it never was
    catalog.register(config, [lowest, …, top], names)    an image of them (catalog.py)

A layer that came as a tar has the hexadecimal digits of its diff id as its id, so the same content is unpacked once,
whatever image it belongs to. Others get a random id, and digests when something asks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from sqlite3 import Row
from typing import BinaryIO

from nbhull.runtime.errors import HullError, InvalidInput, NotFound
from nbhull.runtime.images.blobs import Blobs
from nbhull.runtime.images.compression import PIECE, Compression, compress, kind_of
from nbhull.runtime.images.documents import OCI_LAYER, Descriptor
from nbhull.runtime.images.pack import Packer, write_packed
from nbhull.runtime.images.workshop import Workshop
from nbhull.runtime.launcher import wire
from nbhull.runtime.linux.files import syncfs
from nbhull.runtime.store import Store

F_SETPIPE_SZ = 1031
PIPE = 1 << 20
SUFFIX = {"none": "", "gzip": "+gzip", "zstd": "+zstd"}


@dataclass(frozen=True)
class Layer:
    """A layer as the index knows it."""

    id: str
    size: int
    """bytes of its regular files"""
    diff_id: str | None = None
    """digest of its plain tar"""
    blob: str | None = None
    """digest of its tar as kept"""
    blob_size: int | None = None
    media_type: str | None = None

    @property
    def descriptor(self) -> Descriptor:
        """What a manifest says of its blob; for layers that have one."""
        assert self.blob is not None
        assert self.blob_size is not None
        return Descriptor(self.media_type or OCI_LAYER, self.blob, self.blob_size)


class Layers:
    """The layers of a store; thread-safe."""

    def __init__(self, store: Store, workshop: Workshop) -> None:
        self.store = store
        self.workshop = workshop
        self.bounds: dict[str, int] = {}
        """what a stream may grow to, instead of `compression.decompress`'s own bounds"""
        self.blobs = Blobs(store.home)

    def get(self, identity: str) -> Layer:
        """A layer by its id. Raises NotFound."""
        rows = self.store.query("select * from layers where id = ?", identity)
        if not rows:
            raise NotFound(f"the store has no layer {identity}", "nbhull images")
        return layer_of(rows[0])

    def with_diff_id(self, diff_id: str) -> Layer | None:
        """The layer of that content, if it is there."""
        rows = self.store.query("select * from layers where diff_id = ? order by created", diff_id)
        return layer_of(rows[0]) if rows else None

    def ingest(
        self,
        pieces: Iterable[bytes] | Callable[[int], Iterable[bytes]],
        *,
        digest: str | None = None,
        size: int | None = None,
        diff_id: str | None = None,
        media_type: str | None = None,
        restart: bool = False,
    ) -> Layer:
        """Make a layer of a tar's bytes, compressed or not: they are hashed, kept as a blob and unpacked in one pass.

        `digest`, `size`, `diff_id`: what they must turn out to be; where one does not, or the archive is malformed or
        hostile, InvalidInput is raised and nothing is left. `pieces` may be a function that gives them from an
        offset on; `restart`: they are the whole, and not what comes behind an earlier try that was cut off."""
        with self.blobs.resume(digest) if digest else self.blobs.writer() as writer:
            if digest and self.blobs.has(digest) and diff_id and (there := self.with_diff_id(diff_id)):
                return there  # another process, or thread, was quicker
            if restart:
                writer.restart()
            beginning = b""

            def feed(send: Callable[[bytes], None]) -> None:
                nonlocal beginning
                while piece := writer.replay():
                    beginning = beginning or piece[:6]
                    send(piece)
                for piece in pieces(writer.size) if callable(pieces) else pieces:
                    beginning = beginning or piece[:6]
                    writer.write(piece)
                    if size is not None and writer.size > size:
                        writer.restart()
                        raise InvalidInput(f"the layer {digest} has more than the {size} bytes that it should have", "")
                    send(piece)

            part = f"layers/{os.urandom(8).hex()}.part"
            os.mkdir(self.store.path(part), 0o700)
            try:
                facts = self.unpack(feed, f"{part}/root", whiteouts=True)
                found = facts["diff_id"] or writer.found
                if diff_id is not None and found != diff_id:
                    writer.restart()
                    raise InvalidInput(
                        f"the layer's plain digest is {found}, not {diff_id}",
                        "ask where the image comes from",
                    )
                kept = writer.commit(digest)
                self.settle()
                kind = kind_of(beginning)
                return self.keep(
                    part,
                    Layer(
                        found.removeprefix("sha256:"),
                        int(facts["size"]),
                        found,
                        kept,
                        writer.size,
                        media_type or OCI_LAYER + SUFFIX.get(kind, ""),
                    ),
                )
            finally:
                self.workshop.ask("delete", path=part)

    def ingest_root(self, pieces: Iterable[bytes]) -> Layer:
        """Make a layer of a root file system's tar, compressed or not. Its digests are made later, of the files as
        they are, so that they do not depend on who made the tar. Raises InvalidInput; nothing is left then."""
        identity = os.urandom(6).hex()
        part = f"layers/{identity}.part"

        def feed(send: Callable[[bytes], None]) -> None:
            for piece in pieces:
                send(piece)

        os.mkdir(self.store.path(part), 0o700)
        try:
            facts = self.unpack(feed, f"{part}/root", whiteouts=False)
            self.settle()
            return self.keep(part, Layer(identity, int(facts["size"])))
        finally:
            self.workshop.ask("delete", path=part)

    def unpack(
        self, feed: Callable[[Callable[[bytes], None]], None], target: str, *, whiteouts: bool
    ) -> dict[str, str]:
        """Have the worker unpack what `feed` sends; its facts."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            set_pipe_size(write_end)
            worker = self.workshop.worker_client()
            request = {"target": target, "whiteouts": whiteouts, "owner": None, "bounds": self.bounds}
            channel = worker.open("unpack", [read_end], **request)
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        gone = False

        def send(piece: bytes) -> None:
            nonlocal gone
            rest = memoryview(piece)
            try:
                while rest and not gone:
                    rest = rest[os.write(write_end, rest) :]
            except BrokenPipeError:
                gone = True
                raise HullError("the worker refused the archive") from None  # its own words come by the channel

        with channel:
            try:
                feed(send)
            except HullError:
                if not gone:
                    raise
            finally:
                os.close(write_end)
            return wire.receive_answer(channel)[1]

    def settle(self) -> None:
        """Wait until what was unpacked is on the disk, since its row tells that it is there, whatever happens."""
        folder = os.open(self.store.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(folder)
        finally:
            os.close(folder)

    def keep(self, part: str, layer: Layer) -> Layer:
        """Give an unpacked layer its name and its row; one of the same content that is there stands for it."""
        try:
            os.rename(self.store.path(part), self.store.path("layers", layer.id))
        except OSError:
            if not os.path.isdir(self.store.path("layers", layer.id)):
                raise
        self.store.query(
            "insert into layers (id, created, size, diff_id, blob, blob_size, media_type) values (?, ?, ?, ?, ?, ?, ?) "
            "on conflict (id) do update set blob = coalesce(blob, excluded.blob), "
            "blob_size = coalesce(blob_size, excluded.blob_size), "
            "media_type = coalesce(media_type, excluded.media_type)",
            layer.id,
            time.time(),
            layer.size,
            layer.diff_id,
            layer.blob,
            layer.blob_size,
            layer.media_type,
        )
        return self.get(layer.id)

    def adopt(self, folder: str, size: int | None = None) -> Layer:
        """Make a folder of the store, such as the `upper` of a container that does not run, a layer: it is moved.

        `size`: its bytes where they are known."""
        identity = os.urandom(6).hex()
        part = f"layers/{identity}.part"
        if size is None:
            size = int(self.workshop.ask("measure", paths=[folder])["size"])
        os.mkdir(self.store.path(part), 0o700)
        try:
            self.workshop.ask("move", source=folder, target=f"{part}/root")
        except BaseException:
            os.rmdir(self.store.path(part))
            raise
        return self.keep(part, Layer(identity, size))

    def packed(self, identity: str, compression: Compression = "gzip", epoch: int | None = None) -> Layer:
        """A layer with its digests and its blob, packed now where it has none. `epoch`: SOURCE_DATE_EPOCH."""
        layer = self.get(identity)
        if layer.blob and self.blobs.has(layer.blob):
            return layer
        with self.blobs.writer() as writer:
            epoch = source_date_epoch() if epoch is None else epoch
            facts = self.pack(identity, compression, epoch, writer.file.fileno())
            writer.adopt(facts["digest"], int(facts["size"]))
            blob = writer.commit()
        values = (facts["diff_id"], blob, int(facts["size"]), OCI_LAYER + SUFFIX[compression], identity)
        if layer.diff_id is not None and layer.diff_id != facts["diff_id"]:
            raise InvalidInput(
                f"the layer {identity} does not give the digest any more that it came with",
                "pull or load its image again",
            )
        self.store.query("update layers set diff_id = ?, blob = ?, blob_size = ?, media_type = ? where id = ?", *values)
        return self.get(identity)

    def pack(self, identity: str, compression: Compression, epoch: int | None, output: int) -> dict[str, str]:
        """Write a layer's tar to a descriptor; its digests and sizes.

        By this process where it may: no link is followed and nothing is parsed that the layer's maker wrote, and a
        small layer is packed in less than a worker takes to start."""
        source = f"layers/{identity}/root"
        if self.workshop.is_needed_to_read():
            return self.workshop.ask("pack", [output], source=source, compression=compression, epoch=epoch)
        root = os.open(self.store.path(source), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            facts = write_packed(Packer(root, epoch=epoch), compression, output)
        finally:
            os.close(root)
        return {name: str(value) for name, value in facts.items()}

    def compressed(self, identity: str, kind: Compression = "gzip") -> Layer:
        """A layer whose blob is compressed: as it came if it came so, else in one more blob, made now."""
        layer = self.packed(identity, kind)
        assert layer.blob is not None
        with self.blobs.open(layer.blob) as file:
            if kind_of(file.read(6)) != "none":
                return layer
            file.seek(0)
            with self.blobs.writer() as writer:
                for piece in compress(iter(lambda: read_whole(file), b""), kind):
                    writer.write(piece)
                blob = writer.commit()
        values = (blob, writer.size, OCI_LAYER + SUFFIX[kind], identity)
        self.store.query("update layers set blob = ?, blob_size = ?, media_type = ? where id = ?", *values)
        return self.get(identity)

    def remove(self, identity: str) -> None:
        """Delete a layer that nothing needs; its row first."""
        self.store.query("delete from layers where id = ?", identity)
        self.workshop.ask("delete", path=f"layers/{identity}")


def read_whole(file: BinaryIO) -> bytes:
    """The next piece of a file, of the size that compression makes its blocks of."""
    parts = []
    left = PIECE
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def layer_of(row: Row) -> Layer:
    """A layer from its row."""
    return Layer(row["id"], row["size"], row["diff_id"], row["blob"], row["blob_size"], row["media_type"])


def source_date_epoch() -> int | None:
    """$SOURCE_DATE_EPOCH, seconds. Raises InvalidInput if it is no number."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isdigit() or len(text) > 12:
        raise InvalidInput(f"SOURCE_DATE_EPOCH {text[:40]!r} is not a number of seconds", "unset SOURCE_DATE_EPOCH")
    return int(text)


def set_pipe_size(fd: int) -> None:
    """Let a pipe hold more, where the user's quota allows it."""
    import fcntl

    try:
        fcntl.fcntl(fd, F_SETPIPE_SZ, PIPE)
    except PermissionError:
        pass  # it only saves switches between the processes
