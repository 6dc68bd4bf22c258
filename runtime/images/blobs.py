"""Content by its digest, in the folder `blobs/sha256` of an OCI image layout (image-layout.md).

Written beside, verified, synced, renamed: what has its name is whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from types import TracebackType
from typing import BinaryIO

from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.linux.files import begin_writeback

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LARGEST_DOCUMENT = 4 << 20
"""bytes of a manifest, an index or a configuration (as registries limit them)"""
PIECE = 1 << 20
WRITEBACK = 16 << 20
"""bytes after which those of a blob are sent to the disk"""


def parse_digest(text: object, what: str = "digest") -> str:
    """`text`, if it is a digest that is supported; raises InvalidInput."""
    if not isinstance(text, str) or DIGEST.fullmatch(text) is None:
        raise InvalidInput(
            f"the {what} {str(text)[:100]!r} is not valid", "it is written sha256: and 64 hexadecimal digits"
        )
    return text


def digest_of(data: bytes) -> str:
    """The digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Blobs:
    """The blobs of a store."""

    def __init__(self, folder: str) -> None:
        """`folder`: an image layout's, with `blobs/sha256` in it."""
        self.folder = f"{folder}/blobs/sha256"

    def path(self, digest: str) -> str:
        """Where a blob lies, or would."""
        return f"{self.folder}/{parse_digest(digest).removeprefix('sha256:')}"

    def has(self, digest: str) -> bool:
        """Whether a blob is there."""
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """Bytes of a blob. Raises NotFound."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise missing(digest) from None

    def open(self, digest: str) -> BinaryIO:
        """A blob as a file. Raises NotFound."""
        try:
            return open(self.path(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise missing(digest) from None

    def read(self, digest: str) -> bytes:
        """A small blob, verified. Raises NotFound, and InvalidInput for one that is damaged or too large."""
        with self.open(digest) as file:
            data = file.read(LARGEST_DOCUMENT + 1)
        if len(data) > LARGEST_DOCUMENT or digest_of(data) != digest:
            raise InvalidInput(f"the blob {digest} of the store is damaged", "pull or load the image again")
        return data

    def add(self, data: bytes) -> str:
        """Keep bytes; their digest."""
        digest = digest_of(data)
        if not self.has(digest):
            with Writer(self, None) as writer:
                writer.write(data)
                writer.commit(digest)
        return digest

    def remove(self, digest: str) -> int:
        """Delete a blob; the bytes that this frees. One that is gone is no error."""
        try:
            size = os.stat(self.path(digest)).st_size
            os.unlink(self.path(digest))
        except FileNotFoundError:
            return 0
        return size

    def writer(self) -> Writer:
        """For a blob whose digest nobody knows yet."""
        return Writer(self, None)

    def resume(self, digest: str) -> Writer:
        """For a blob of a known digest; begins with what an earlier try has left, and waits for another process
        that writes the same."""
        return Writer(self, parse_digest(digest))


def missing(digest: str) -> NotFound:
    """The error for a blob that is not there."""
    return NotFound(f"the store has no blob {digest}", "pull or load the image again")


class Writer:
    """A blob while it is written. Left without `commit` it is deleted, or kept for `resume` if its digest is known."""

    def __init__(self, blobs: Blobs, digest: str | None) -> None:
        self.blobs = blobs
        self.digest = digest
        name = digest.removeprefix("sha256:") if digest else f"{os.getpid()}-{os.urandom(6).hex()}"
        self.place = f"{blobs.folder}/{name}.part"
        self.file = self.open_alone()
        self.hash = hashlib.sha256()
        self.size = 0
        """bytes hashed so far"""
        self.earlier = os.fstat(self.file.fileno()).st_size
        """bytes of an earlier try, which `replay` gives"""
        self.begun = self.earlier
        """bytes that are on their way to the disk, so that `commit` does not wait for all of them"""
        self.committed = False
        self.known = ""
        """the digest, where another process has made it"""

    def open_alone(self) -> BinaryIO:
        """The partial file, locked."""
        while True:
            file = open(self.place, "a+b", buffering=0)  # noqa: SIM115  # closed by `__exit__`
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.place)):
                    return file
            except FileNotFoundError:
                pass  # who held the lock has finished it, or given it up
            file.close()

    def replay(self, count: int = PIECE) -> bytes:
        """The next piece of what an earlier try has left; none at its end."""
        piece = os.pread(self.file.fileno(), min(count, self.earlier - self.size), self.size)
        self.hash.update(piece)
        self.size += len(piece)
        return piece

    def write(self, piece: bytes | memoryview) -> None:
        """Append, behind all that was replayed."""
        self.hash.update(piece)
        self.size += len(piece)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self.file.fileno(), rest) :]
        if self.size - self.begun >= WRITEBACK:
            begin_writeback(self.file.fileno(), self.begun, self.size - self.begun)
            self.begun = self.size

    @property
    def found(self) -> str:
        """The digest of all that was replayed and written so far."""
        return f"sha256:{self.hash.hexdigest()}"

    def adopt(self, digest: str, size: int) -> None:
        """Another process of ours has written the file, and hashed it meanwhile."""
        self.known, self.size = parse_digest(digest), size

    def restart(self) -> None:
        """Forget all that was written."""
        os.ftruncate(self.file.fileno(), 0)
        self.hash, self.size, self.earlier, self.begun = hashlib.sha256(), 0, 0, 0

    def commit(self, expected: str | None = None) -> str:
        """Give the blob its name; its digest. Raises InvalidInput where another was expected: then nothing is kept."""
        digest = self.known or self.found
        expected = expected or self.digest
        if expected and digest != expected:
            self.restart()
            raise InvalidInput(
                f"the digest of what was received is {digest}, not {expected}", "try again, or ask where it comes from"
            )
        os.fsync(self.file.fileno())
        os.rename(self.place, self.blobs.path(digest))
        self.committed = True
        return digest

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.committed and (self.digest is None or os.fstat(self.file.fileno()).st_size == 0):
            os.unlink(self.place)
        self.file.close()
