"""From a tar to a folder of the store: layers, root file systems, archives to add.

Everything is written below the folder's descriptor. The folders above an entry are resolved by openat2(2) with that
folder as root, so no link leads out; the last name is never followed. It runs inside the containers' user namespace, so
owners are the container's own ids and the kernel refuses what a container may not make.

Rules where an archive asks for what cannot be had, counted in the Summary:
- devices are skipped: a container's /dev is its own;
- an owner that the user namespace has no id for is written to the extended attribute OWNER, from which `pack` gives it
  back; symbolic links cannot carry one and belong to 0:0;
- of the extended attributes `user.*`, file capabilities and POSIX ACLs are kept; overlayfs's own never.
"""

from __future__ import annotations

import errno
import hashlib
import os
import queue
import shutil
import stat
import threading
from collections.abc import Callable, Iterator

from nbhull.runtime.errors import HostUnable, InvalidInput
from nbhull.runtime.images import compression
from nbhull.runtime.images import tarheaders as tar
from nbhull.runtime.linux.mount import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2

WHITEOUT, OPAQUE, AUFS = b".wh.", b".wh..wh..opq", b".wh..wh."
"""a file so named deletes NAME of the layers below, empties its folder, is meant for aufs alone (layer.md)"""
OVERLAY = b"user.overlay."
OVERLAY_OPAQUE = b"user.overlay.opaque"
OWNER = b"user.nbhull.owner"
KEPT = (b"user.", b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default")
MOST_ENTRIES = 5_000_000
RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
AHEAD = 4
"""pieces that are decompressed before they are needed"""


class Summary:
    """What was unpacked."""

    def __init__(self) -> None:
        self.diff_id = ""
        """digest of the plain tar; empty where the stream was plain itself, whose digest is its sender's to make"""
        self.entries = 0
        self.size = 0
        """bytes of all regular files"""
        self.devices = 0
        """devices that were skipped"""
        self.owners = 0
        """entries whose owner has no id here"""


class Joined:
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces = pieces
        self.rest = b""

    def read(self, count: int) -> bytes:
        """Up to `count` bytes."""
        if not self.rest:
            self.rest = next(self.pieces, b"")
        some, self.rest = self.rest[:count], self.rest[count:]
        return some


class Pieces:
    """The plain bytes of a stream, decompressed, and then hashed, in a thread of their own."""

    def __init__(self, read: Callable[[int], bytes], bounds: dict[str, int]) -> None:
        """`read(n)` gives up to n compressed bytes, none at the end; `bounds`: of `decompress`."""
        self.queue: queue.Queue[bytes | BaseException] = queue.Queue(AHEAD)
        self.digest = ""
        """of the plain bytes, where they were compressed; told once all were given"""
        self.piece = memoryview(b"")
        self.ended = False
        self.abandoned = False
        self.thread = threading.Thread(target=self.produce, args=(read, bounds), daemon=True)
        self.thread.start()

    def produce(self, read: Callable[[int], bytes], bounds: dict[str, int]) -> None:
        """In the thread: decompress and hash until the end, or an error, which the consumer raises."""
        try:
            kind, beginning = compression.begin(read)
            hashed = None if kind == "none" else hashlib.sha256()
            for piece in compression.proceed(kind, beginning, read, **bounds):
                if hashed is not None:
                    hashed.update(piece)
                self.queue.put(piece)
                if self.abandoned:
                    return
            if hashed is not None:
                self.digest = f"sha256:{hashed.hexdigest()}"
            self.queue.put(b"")
        except BaseException as error:  # noqa: BLE001  # it is raised in the thread that waits for it
            self.queue.put(error)

    def fill(self) -> bool:
        """Have a piece that is not empty; False at the end."""
        while not self.piece and not self.ended:
            got = self.queue.get()
            if isinstance(got, BaseException):
                self.ended = True
                raise got
            self.piece, self.ended = memoryview(got), not got
        return bool(self.piece)

    def some(self, most: int) -> memoryview:
        """Up to `most` bytes, as many as are at hand; none at the end."""
        if not self.fill():
            return memoryview(b"")
        some, self.piece = self.piece[:most], self.piece[most:]
        return some

    def take(self, count: int) -> bytes:
        """The next `count` bytes, fewer only at the end."""
        some = bytes(self.some(count))
        while len(some) < count and (more := self.some(count - len(some))):
            some += more
        return some

    def skip(self, count: int) -> None:
        """Pass over the next `count` bytes."""
        while count:
            some = self.some(count)
            if not some:
                raise tar.damaged("it is cut off")
            count -= len(some)

    def drain(self) -> str:
        """Pass over the rest; `digest`."""
        while self.some(1 << 30):
            pass
        self.thread.join()
        return self.digest

    def abandon(self) -> None:
        """Let the thread end, whose pieces nobody wants any more."""
        self.abandoned = True
        while not self.queue.empty():
            self.queue.get()


class Unpacker:
    """Writes entries below a folder."""

    def __init__(
        self, root: int, *, whiteouts: bool, owner: tuple[int, int] | None = None, most: int = MOST_ENTRIES
    ) -> None:
        """`root`: descriptor of the folder (no O_PATH); `whiteouts`: names that delete are turned into
        overlayfs's form, else they are names like others; `owner`: everybody's, instead of the archive's;
        `most`: entries at most."""
        self.root = root
        self.whiteouts = whiteouts
        self.owner = owner
        self.most = most
        self.summary = Summary()
        self.above = b""
        self.above_fd = os.dup(root)
        """the folder that the last entry lay in"""
        self.times: dict[bytes, int] = {}
        """of folders, which are set last, since every entry changes them"""
        self.deleted: set[bytes] = set()
        """paths that a whiteout stands for"""

    def unpack(self, pieces: Pieces) -> Summary:
        """Write all entries of an archive. Raises InvalidInput for a hostile or malformed one, HostUnable where the
        disk is full; what was written until then stays."""
        reader = tar.Reader(pieces)
        try:
            while entry := reader.next():
                self.summary.entries += 1
                if self.summary.entries > self.most:
                    raise InvalidInput(f"the archive has more than {self.most} entries", "split the image's layer")
                try:
                    self.write(entry, pieces, reader)
                except OSError as error:
                    raise self.explained(error, entry) from error
            self.summary.diff_id = pieces.drain()
            self.set_times()
        finally:
            pieces.abandon()
            os.close(self.above_fd)
        return self.summary

    def explained(self, error: OSError, entry: tar.Entry) -> Exception:
        """What a failed system call means for the archive."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return HostUnable("there is no space left for the image's files", "make room, or: nbhull prune")
        return InvalidInput(
            f"the entry {shown(entry.name)} cannot be unpacked: {error.strerror}", "see what made the archive"
        )

    def write(self, entry: tar.Entry, pieces: Pieces, reader: tar.Reader) -> None:
        """Write one entry."""
        path = clean(entry.name)
        if not path:
            if entry.kind != tar.FOLDER:
                raise InvalidInput(f"the archive's root, {shown(entry.name)}, is not a folder", tar.MEND)
            self.finish(self.root, entry)
            self.times[b""] = entry.mtime
            return
        above, _, name = path.rpartition(b"/")
        if self.whiteouts and name.startswith(WHITEOUT):
            self.white_out(above, name, entry)
            return
        if entry.kind in (tar.CHARACTER, tar.BLOCK_DEVICE):
            self.summary.devices += 1
            return
        folder = self.enter(above)
        if entry.kind == tar.FILE:
            self.write_file(folder, path, name, entry, pieces, reader)
        elif entry.kind == tar.FOLDER:
            self.write_folder(folder, path, name, entry)
        elif entry.kind == tar.HARD_LINK:
            self.write_hard_link(path, name, entry)
        else:
            self.clear(folder, path, name)
            if entry.kind == tar.FIFO:
                os.mkfifo(name, 0o600, dir_fd=folder)
            else:
                os.symlink(entry.link, name, dir_fd=folder)
            self.finish_special(folder, name, entry)

    # Folders above

    def enter(self, path: bytes) -> int:
        """A descriptor of a folder, made with those above it where they are missing; valid until the next call."""
        if path != self.above:
            try:
                fd = openat2(self.root, os.fsdecode(path or b"."), os.O_PATH | os.O_DIRECTORY, RESOLVE)
            except (FileNotFoundError, NotADirectoryError):
                fd = self.make_folders(path)
            os.close(self.above_fd)
            self.above, self.above_fd = path, fd
        return self.above_fd

    def make_folders(self, path: bytes) -> int:
        """Make a folder that has no entry of its own, or whose entry comes later."""
        here = os.dup(self.root)
        parts = path.split(b"/")
        for number, part in enumerate(parts, 1):
            so_far = b"/".join(parts[:number])
            if so_far in self.deleted:
                self.revive(here, so_far, part)
            try:
                os.mkdir(part, 0o755, dir_fd=here)
            except FileExistsError:
                pass
            os.close(here)
            here = openat2(self.root, os.fsdecode(so_far), os.O_PATH | os.O_DIRECTORY, RESOLVE)
        return here

    def leave(self) -> None:
        """Forget the folder at hand: it may not be the same any more."""
        os.close(self.above_fd)
        self.above, self.above_fd = b"", os.dup(self.root)

    # Entries

    def write_file(
        self, folder: int, path: bytes, name: bytes, entry: tar.Entry, pieces: Pieces, reader: tar.Reader
    ) -> None:
        """A regular file with its data."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=folder)
        except FileExistsError:
            self.clear(folder, path, name)
            fd = os.open(name, flags, 0o600, dir_fd=self.enter(path.rpartition(b"/")[0]))
        try:
            left = entry.size
            while left:
                some = pieces.some(left)
                if not some:
                    raise tar.damaged("it is cut off")
                left -= len(some)
                reader.used(len(some))
                while some:
                    some = some[os.write(fd, some) :]
            self.summary.size += entry.size
            self.finish(fd, entry)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def write_folder(self, folder: int, path: bytes, name: bytes, entry: tar.Entry) -> None:
        """A folder; one that is there already takes this entry's metadata."""
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
                self.clear(folder, path, name)
                os.mkdir(name, 0o700, dir_fd=folder)
                if path in self.deleted:
                    self.deleted.discard(path)
                    self.make_opaque(folder, name)
        fd = os.open(name, os.O_RDONLY | FOLDER, dir_fd=folder)
        try:
            self.finish(fd, entry)
        finally:
            os.close(fd)
        self.times[path] = entry.mtime

    def write_hard_link(self, path: bytes, name: bytes, entry: tar.Entry) -> None:
        """One more name of a file that the same archive has."""
        target = clean(entry.link)
        above, _, target_name = target.rpartition(b"/")
        missing = InvalidInput(
            f"{shown(entry.name)} is a hard link to {shown(entry.link)}, which the archive has no file of", tar.MEND
        )
        if not target or target == path:
            raise missing
        try:
            source = openat2(self.root, os.fsdecode(above or b"."), os.O_PATH | os.O_DIRECTORY, RESOLVE)
        except (FileNotFoundError, NotADirectoryError):
            raise missing from None
        try:
            try:
                kind = stat.S_IFMT(os.lstat(target_name, dir_fd=source).st_mode)
            except FileNotFoundError:
                raise missing from None
            if kind not in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO):
                raise missing
            folder = self.enter(path.rpartition(b"/")[0])
            self.clear(folder, path, name)
            folder = self.enter(path.rpartition(b"/")[0])
            try:
                os.link(target_name, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                raise missing from None  # it lay in the folder that this link has taken the place of
        finally:
            os.close(source)

    def clear(self, folder: int, path: bytes, name: bytes) -> None:
        """Take away what an earlier entry put in this place."""
        try:
            status = os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            return
        inside = path + b"/"
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=folder)
            if self.above == path or self.above.startswith(inside):  # by way of a link
                self.leave()
            return
        shutil.rmtree(name, dir_fd=folder)
        for gone in [p for p in self.times if p == path or p.startswith(inside)]:
            del self.times[gone]
        self.deleted = {p for p in self.deleted if not p.startswith(inside)}
        if self.above == path or self.above.startswith(inside):
            self.leave()

    # Whiteouts

    def white_out(self, above: bytes, name: bytes, entry: tar.Entry) -> None:
        """Turn the name of something deleted into overlayfs's form: a 0:0 character device, or an opaque folder.

        It concerns the layers below alone, so what this layer itself has in that place stays."""
        try:
            folder = self.enter(above)
        except NotADirectoryError:
            return  # this layer has put a file in the folder's place, which hides all of it (umoci writes such layers)
        if name == OPAQUE:
            if above:
                here, _, last = above.rpartition(b"/")
                self.make_opaque(self.enter(here), last)
            else:
                os.setxattr(self.root, OVERLAY_OPAQUE, b"y")
            return
        if name.startswith(AUFS):
            return
        victim = name[len(WHITEOUT) :]
        if victim in (b"", b".", b".."):
            raise InvalidInput(f"{shown(entry.name)} deletes nothing, or what lies above it", tar.MEND)
        path = above + b"/" + victim if above else victim
        try:
            os.mknod(victim, stat.S_IFCHR, 0, dir_fd=folder)
            self.deleted.add(path)
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(victim, dir_fd=folder).st_mode):
                self.make_opaque(folder, victim)

    def make_opaque(self, folder: int, name: bytes) -> None:
        """Have a folder hide those of its name in the layers below."""
        fd = os.open(name, os.O_RDONLY | FOLDER, dir_fd=folder)
        try:
            os.setxattr(fd, OVERLAY_OPAQUE, b"y")
        finally:
            os.close(fd)

    def revive(self, folder: int, path: bytes, name: bytes) -> None:
        """Put a folder in the place of what was deleted, since the layer has something in it."""
        self.deleted.discard(path)
        os.unlink(name, dir_fd=folder)
        os.mkdir(name, 0o755, dir_fd=folder)
        self.make_opaque(folder, name)

    # Metadata

    def finish(self, fd: int, entry: tar.Entry) -> None:
        """Owner, extended attributes, mode, in this order, since each may change the ones before."""
        uid, gid = self.owner or (entry.uid, entry.gid)
        try:
            os.fchown(fd, uid, gid)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.summary.owners += 1
            os.setxattr(fd, OWNER, b"%d:%d" % (uid, gid))
        for name, value in entry.xattrs.items():
            if name.startswith(KEPT) and not name.startswith((OVERLAY, OWNER)):
                self.set_attribute(fd, name, value)
        os.fchmod(fd, entry.mode)

    def set_attribute(self, fd: int, name: bytes, value: bytes) -> None:
        """One extended attribute; a list of who may access for ids that are not here is left out."""
        try:
            os.setxattr(fd, name, portable(name, value))
        except OSError as error:
            if error.errno != errno.EINVAL or not name.startswith(b"system.posix_acl"):
                raise
            self.summary.owners += 1

    def finish_special(self, folder: int, name: bytes, entry: tar.Entry) -> None:
        """Owner and times of a link, and the mode of a FIFO, too."""
        try:
            os.chown(name, *(self.owner or (entry.uid, entry.gid)), dir_fd=folder, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.summary.owners += 1
        if entry.kind == tar.FIFO:
            os.chmod(name, entry.mode, dir_fd=folder)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=folder, follow_symlinks=False)

    def set_times(self) -> None:
        """Give all folders their times."""
        for path, mtime in self.times.items():
            above, _, name = path.rpartition(b"/")
            try:
                if path:
                    os.utime(name, ns=(mtime, mtime), dir_fd=self.enter(above), follow_symlinks=False)
                else:
                    os.utime(self.root, ns=(mtime, mtime))
            except OSError as error:  # it was reached by a link, which a later entry replaced
                raise InvalidInput(f"the folder {shown(path)} is gone at the archive's end", tar.MEND) from error


def portable(name: bytes, value: bytes) -> bytes:
    """An extended attribute's value as archives have it: file capabilities without a user namespace's root
    (VFS_CAP_REVISION_3 of capabilities(7)), which the kernel adds for each reader's own."""
    if name == b"security.capability" and len(value) == 24:
        magic = int.from_bytes(value[:4], "little")
        return ((magic & 0x00FFFFFF) | 0x02000000).to_bytes(4, "little") + value[4:20]
    return value


def clean(name: bytes) -> bytes:
    """The path below the root that an entry's name means; empty for the root itself. Raises InvalidInput for one
    that climbs."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise InvalidInput(f"the path {shown(name)} leads out of the archive", tar.MEND)
    return b"/".join(parts)


def shown(name: bytes) -> str:
    """A hostile name for a message: escaped, and not too long."""
    return ascii(name.decode(errors="surrogateescape"))[:300]


def unpack_own(folder: str, read: Callable[[int], bytes]) -> None:
    """Write a tar into a folder, over the files that are there; all belong to who asks. `read`: as for Pieces."""
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        Unpacker(root, whiteouts=False, owner=(os.getuid(), os.getgid())).unpack(Pieces(read, {}))
    finally:
        os.close(root)
