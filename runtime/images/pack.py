"""From a folder of the store to a tar: sorted, with normalised headers, so that the same files give the same digest.

Overlayfs's whiteouts become `.wh.` files again, its own attributes stay out, sockets too. Times are cut to seconds,
and to SOURCE_DATE_EPOCH where one is given (https://reproducible-builds.org/specs/source-date-epoch/).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator

from nbhull.runtime.errors import HostUnable, HullError
from nbhull.runtime.images import tarheaders as tar
from nbhull.runtime.images.compression import PIECE, Compression, compress
from nbhull.runtime.images.unpack import KEPT, OPAQUE, OVERLAY, OVERLAY_OPAQUE, OWNER, WHITEOUT, portable
from nbhull.runtime.linux.mount import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class Packer:
    """Reads a folder."""

    def __init__(
        self,
        root: int,
        *,
        epoch: int | None = None,
        whiteouts: bool = True,
        cross: bool = False,
        without: frozenset[bytes] = frozenset(),
    ) -> None:
        """`root`: descriptor of the folder; `epoch`: seconds that no time may exceed; `whiteouts`: overlayfs's
        become `.wh.` files, else they are left out, as devices are; `cross`: whether other file systems mounted below
        are packed, too, and what may not be read is left out; `without`: paths whose content is left out."""
        self.root = root
        self.latest = None if epoch is None else epoch * 10**9
        self.whiteouts = whiteouts
        self.device = None if cross else os.fstat(root).st_dev
        self.cross = cross
        self.without = without
        self.unread = 0
        """files and folders that may not be read"""
        self.first: dict[tuple[int, int], bytes] = {}
        """of files with several names, the one that was packed"""
        self.size = 0
        """bytes of all regular files so far"""
        self.hash = hashlib.sha256()

    @property
    def diff_id(self) -> str:
        """The digest of what was packed, once all of it was."""
        return f"sha256:{self.hash.hexdigest()}"

    def pieces(self) -> Iterator[bytes]:
        """The archive in pieces of PIECE bytes, the last one shorter."""
        waiting = bytearray()
        for some in self.blocks():
            waiting += some
            while len(waiting) >= PIECE:
                piece = bytes(waiting[:PIECE])
                del waiting[:PIECE]
                self.hash.update(piece)
                yield piece
        self.hash.update(waiting)
        yield bytes(waiting)

    def blocks(self) -> Iterator[bytes]:
        """Headers and data, in order."""
        pending: list[tuple[bytes, bool]] = [(b"", True)]
        while pending:
            path, is_folder = pending.pop()
            if is_folder:
                found, some = self.folder(path)
                pending += reversed(found)
                yield some
            else:
                yield from self.other(path)
        yield tar.ZERO * 2

    def folder(self, path: bytes) -> tuple[list[tuple[bytes, bool]], bytes]:
        """A folder's own header, the root's left out, and what lies in it: (path, is a folder), sorted."""
        try:
            fd = openat2(self.root, os.fsdecode(path or b"."), os.O_RDONLY | os.O_DIRECTORY, RESOLVE)
        except PermissionError:
            if not self.cross:
                raise
            self.unread += 1
            return [], b""
        try:
            status = os.fstat(fd)
            with os.scandir(fd) as entries:
                names = sorted((os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries)
            names = [(path + b"/" + name if path else name, is_folder) for name, is_folder in names]
            header = b""
            if path:
                entry = self.entry(path + b"/", tar.FOLDER, status, fd)
                header = tar.write(entry)
            if self.whiteouts and xattr(fd, OVERLAY_OPAQUE) == b"y":
                header += tar.write(deleted(path + b"/" + OPAQUE if path else OPAQUE))
            if self.device is not None and status.st_dev != self.device:
                names = []  # something is mounted here
            if path in self.without:
                names = []
        finally:
            os.close(fd)
        return names, header

    def other(self, path: bytes) -> Iterator[bytes]:
        """Whatever is no folder."""
        above, _, name = path.rpartition(b"/")
        folder = openat2(self.root, os.fsdecode(above or b"."), os.O_PATH | os.O_DIRECTORY, RESOLVE)
        try:
            status = os.lstat(name, dir_fd=folder)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFCHR and status.st_rdev == 0:
                if self.whiteouts:
                    yield tar.write(deleted((above + b"/" if above else b"") + WHITEOUT + name))
                return
            if kind not in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO) or path in self.without:
                return
            first = self.first.setdefault((status.st_dev, status.st_ino), path) if status.st_nlink > 1 else path
            if first != path:
                entry = self.entry(path, tar.HARD_LINK, status, None)
                entry.link = self.link_name(first)
                yield tar.write(entry)
            elif kind == stat.S_IFREG:
                try:
                    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                except PermissionError:
                    if not self.cross:
                        raise
                    self.unread += 1
                    return
                try:
                    yield from self.file(path, status, fd)
                finally:
                    os.close(fd)
            else:
                entry = self.entry(path, tar.SYMBOLIC_LINK if kind == stat.S_IFLNK else tar.FIFO, status, None)
                if kind == stat.S_IFLNK:
                    entry.link = os.readlink(name, dir_fd=folder)
                    entry.mode = 0o777
                yield tar.write(entry)
        finally:
            os.close(folder)

    def link_name(self, path: bytes) -> bytes:
        """What a file that was packed before is called in the archive."""
        return path

    def file(self, path: bytes, status: os.stat_result, fd: int) -> Iterator[bytes]:
        """A regular file with its data."""
        entry = self.entry(path, tar.FILE, status, fd)
        entry.size = status.st_size
        self.size += entry.size
        yield tar.write(entry)
        left = entry.size
        while left:
            some = os.read(fd, min(left, PIECE))
            if not some:
                raise HullError(f"the file {path.decode(errors='replace')!r} shrank while it was packed", "try again")
            left -= len(some)
            yield some
        if entry.size % tar.BLOCK:
            yield bytes(-entry.size % tar.BLOCK)

    def entry(self, path: bytes, kind: bytes, status: os.stat_result, fd: int | None) -> tar.Entry:
        """An entry with what all kinds have."""
        entry = tar.Entry(path, kind)
        entry.mode = stat.S_IMODE(status.st_mode)
        entry.uid, entry.gid = status.st_uid, status.st_gid
        entry.mtime = status.st_mtime_ns if self.latest is None else min(status.st_mtime_ns, self.latest)
        if fd is not None:
            for name in map(os.fsencode, os.listxattr(fd)):
                if name == OWNER:
                    entry.uid, entry.gid = noted_owner(os.getxattr(fd, name)) or (entry.uid, entry.gid)
                elif name.startswith(KEPT) and not name.startswith(OVERLAY):
                    entry.xattrs[name] = portable(name, os.getxattr(fd, name))
        return entry


def deleted(path: bytes) -> tar.Entry:
    """The entry of a whiteout."""
    entry = tar.Entry(path, tar.FILE)
    entry.mode = 0
    return entry


def noted_owner(value: bytes) -> tuple[int, int] | None:
    """The owner that `unpack` noted; None for what somebody else wrote there."""
    uid, _, gid = value.partition(b":")
    if not (uid.isdigit() and gid.isdigit() and len(value) < 22):
        return None
    return min(int(uid), 0xFFFFFFFE), min(int(gid), 0xFFFFFFFE)


def xattr(fd: int, name: bytes) -> bytes:
    """An extended attribute's value; empty if there is none."""
    try:
        return os.getxattr(fd, name)
    except OSError:  # ENODATA
        return b""


def write_packed(packer: Packer, kind: Compression, output: int) -> dict[str, object]:
    """Write an archive, compressed, to a descriptor; both digests and sizes."""
    total, hashed = 0, hashlib.sha256()
    try:
        for piece in compress(counted := Counted(packer.pieces()), kind):
            hashed.update(piece)
            total += len(piece)
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(output, rest) :]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HostUnable("there is no space left for the packed layer", "make room, or: nbhull prune") from error
        raise
    return {
        "diff_id": packer.diff_id,
        "digest": f"sha256:{hashed.hexdigest()}",
        "size": total,
        "plain": counted.total,
        "files": packer.size,
    }


class Counted:
    """Pieces of bytes, and how many they were."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.total = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self.pieces:
            self.total += len(piece)
            yield piece
