"""What the processes of a container hold of its writable file systems, and whether it can be carried to new ones.

Asked while all of them stand still (`standstill`). Whatever is not known to be movable without a difference is a
reason, raised as Conflict, to leave the processes where they are and copy the files instead.
"""

from __future__ import annotations

import os
import stat

from nbhull.runtime.errors import Conflict
from nbhull.runtime.launcher.parts import Part
from nbhull.runtime.launcher.standstill import Standstill
from nbhull.runtime.linux import ptrace, statx
from nbhull.runtime.linux.mount import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DELETED = " (deleted)"
O_TMPFILE = 0o20000000
FASYNC = 0o20000
NOT_FOR_REOPENING = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOCTTY
UNMOVABLE = ("inotify", "[fanotify]", "[io_uring]")
"""anonymous inodes that may refer to files by themselves"""
SQLITE = b"SQLite format 3\0"
PLAIN_PATH = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS


class Opened:
    """An open file that is to be opened anew, and who has it as which descriptor."""

    def __init__(self, path: str, flags: int, position: int) -> None:
        self.path = path
        self.flags = flags
        self.position = position
        self.holders: list[tuple[int, int, bool]] = []
        """process, descriptor, whether it closes at execve"""


class Mapped:
    """A part of a file that a process has mapped, shared, and may write to."""

    def __init__(self, pid: int, path: str, begin: int, end: int, access: bytes, offset: int) -> None:
        self.pid = pid
        self.path = path
        self.begin = begin
        self.length = end - begin
        self.protection = sum(bit for letter, bit in ((b"r", 1), (b"w", 2), (b"x", 4)) if letter in access)
        """PROT_READ, PROT_WRITE, PROT_EXEC of mmap(2)"""
        self.offset = offset


class Census:
    """The findings."""

    def __init__(self, still: Standstill, parts: list[Part], namespace: int) -> None:
        """`parts`: the root first; `namespace`: descriptor of the container's mount namespace."""
        self.still = still
        self.root = parts[0].mount
        self.namespace = os.fstat(namespace).st_ino
        self.parts = parts
        self.statx = statx.Reader()
        self.by_id: dict[int, Part] = {}
        for part in parts:
            status = self.statx(part.mount, "")
            part.id, part.device, part.root_inode = status.mount, status.device, status.inode
            self.by_id[part.id] = part
        self.devices = {part.device for part in parts}
        self.folders: dict[int, str] = {}
        """by process: a working folder that must be entered anew"""
        self.opened: list[Opened] = []
        self.mapped: list[Mapped] = []
        self.carried: dict[str, Part] = {}
        """files that are written, through descriptors or mappings: their inodes must come along"""
        self.deleted_writers = False
        """whether deleted files are still written, which holds the old mount writable"""
        self.mappings: dict[int, bytes] = {}
        self.sockets: dict[int, int] = {}
        """by inode: a process that has it"""
        self.candidates: dict[tuple[int, int, int, int], list[Opened]] = {}

    def take(self) -> None:
        """Look at all processes. Raises Conflict with the first reason against moving them."""
        for pid, tids in self.still.processes.items():
            self.look_at(pid, tids)
        self.look_at_sockets()

    def affected(self) -> set[int]:
        """The processes in which something must be done."""
        holders = {pid for opened in self.opened for pid, _, _ in opened.holders}
        return set(self.folders) | holders | {mapped.pid for mapped in self.mapped}

    def look_at(self, pid: int, tids: list[int]) -> None:
        """One process."""
        proc, main = self.still.proc, self.parts[0]
        if self.statx(proc, f"{pid}/ns/mnt").inode != self.namespace:
            raise self.reason(pid, "has a mount namespace of its own")
        root = self.statx(proc, f"{pid}/root")
        if (root.mount, root.inode) != (main.id, main.root_inode):
            raise self.reason(pid, "has another root folder")
        self.look_at_folder(pid)
        self.look_at_descriptors(pid)
        self.look_at_mappings(pid)
        for tid in tids:
            kinds = (ptrace.KCMP_FS, ptrace.KCMP_FILES)
            if tid != tids[0] and not all(ptrace.same(kind, tids[0], tid) for kind in kinds):
                raise self.reason(pid, "has threads with working folders or descriptors of their own")

    def reason(self, pid: int, what: str) -> Conflict:
        """Why a process cannot be moved."""
        return Conflict(f"the process {self.still.name(pid)} {what}")

    def link(self, path: str) -> str:
        """Where a magic link of /proc leads."""
        return os.readlink(path, dir_fd=self.still.proc)

    def look_at_folder(self, pid: int) -> None:
        """Its working folder."""
        status = self.statx(self.still.proc, f"{pid}/cwd")
        part = self.by_id.get(status.mount)
        if part is None or status.links == 0:
            return  # in no writable part, or deleted, where nothing can be made
        if (part.at, status.inode) == ("/", part.root_inode):
            return  # follows by itself
        self.folders[pid] = self.path_of(pid, "cwd", part, status)

    def path_of(self, pid: int, name: str, part: Part, status: statx.Status) -> str:
        """The container's path of what a link of /proc/PID leads to, checked to lead there."""
        path = self.link(f"{pid}/{name}")
        try:
            fd = openat2(self.root, path, os.O_PATH, PLAIN_PATH)
        except OSError:
            raise self.reason(pid, f"has a file without a name: {path}") from None
        try:
            found = self.statx(fd, "")
        finally:
            os.close(fd)
        if (found.mount, found.device, found.inode) != (part.id, status.device, status.inode):
            raise self.reason(pid, f"has a file without a name: {path}")
        return path

    def look_at_descriptors(self, pid: int) -> None:
        """Its open files."""
        for fd in self.still.numbers(f"{pid}/fd"):
            status = self.statx(self.still.proc, f"{pid}/fd/{fd}")
            if status.mount in self.by_id:
                self.look_at_file(pid, fd, status)
            elif stat.S_ISSOCK(status.mode):
                self.sockets[status.inode] = pid
                if carries_descriptors(self.still.read(f"{pid}/fdinfo/{fd}")):
                    raise self.reason(pid, "has descriptors under way in a socket")
            elif stat.S_IFMT(status.mode) == 0:
                self.look_at_anonymous(pid, fd)

    def look_at_anonymous(self, pid: int, fd: int) -> None:
        """A descriptor of no file: does it watch files, or use them on its own?"""
        kind = self.link(f"{pid}/fd/{fd}").removeprefix("anon_inode:")
        if kind == "inotify":
            words = self.still.read(f"{pid}/fdinfo/{fd}").split()
            watched = [word.removeprefix("sdev:") for word in words if word.startswith("sdev:")]
            if {(int(device, 16) >> 20, int(device, 16) & 0xFFFFF) for device in watched} & self.devices:
                raise self.reason(pid, "watches files (inotify)")
        elif kind in UNMOVABLE:
            raise self.reason(pid, f"uses {kind.strip('[]')}")

    def look_at_file(self, pid: int, fd: int, status: statx.Status) -> None:
        """An open file of a writable part."""
        part = self.by_id[status.mount]
        info = self.still.read(f"{pid}/fdinfo/{fd}")
        fields = dict(line.partition(":")[::2] for line in info.splitlines())
        position, flags = int(fields["pos"]), int(fields["flags"], 8)
        writes = flags & os.O_ACCMODE != os.O_RDONLY and not flags & os.O_PATH
        if flags & O_TMPFILE:
            raise self.reason(pid, "has a temporary file that may be given a name")
        if status.links == 0:
            self.deleted_writers = self.deleted_writers or writes
            return  # in no layer any more, wherever it is written
        path = self.path_of(pid, f"fd/{fd}", part, status)
        if "\nlock:" in info:
            raise self.reason(pid, f"holds a lock on {path}")
        if flags & FASYNC:
            raise self.reason(pid, f"is signalled by {path}")
        if stat.S_ISDIR(status.mode):
            if position:
                raise self.reason(pid, f"is listing {path}")
        elif not stat.S_ISREG(status.mode):
            raise self.reason(pid, f"has {path} open, which is no regular file")
        elif writes:
            self.carry(pid, path, part)
        cloexec = bool(flags & os.O_CLOEXEC)
        flags &= ~(NOT_FOR_REOPENING | os.O_CLOEXEC)
        alike = self.candidates.setdefault((status.mount, status.inode, flags, position), [])
        for opened in alike:
            other, other_fd, _ = opened.holders[0]
            if ptrace.same(ptrace.KCMP_FILE, other, pid, other_fd, fd):
                break
        else:
            opened = Opened(path, flags, position)
            alike.append(opened)
            self.opened.append(opened)
        opened.holders.append((pid, fd, cloexec))

    def carry(self, pid: int, path: str, part: Part) -> None:
        """A file that is written."""
        if path in self.carried:
            return
        try:
            fd = openat2(part.upper, part.relative(path), os.O_RDONLY | os.O_NONBLOCK, PLAIN_PATH)
        except OSError as error:
            raise self.reason(pid, f"writes to {path}, which cannot be read: {error.strerror}") from error
        try:
            if os.fstat(fd).st_nlink > 1:
                raise self.reason(pid, f"writes to {path}, which has more than one name")
            if os.pread(fd, len(SQLITE), 0) == SQLITE:
                # SQLite tells files apart by their device, which becomes another: two connections of one process, of
                # before and after, would not see each other's locks (sqlite.org/lockingv3.html, section 2).
                raise self.reason(pid, f"has the SQLite database {path} open")
        finally:
            os.close(fd)
        self.carried[path] = part

    def look_at_mappings(self, pid: int) -> None:
        """Its mapped files."""
        self.mappings[pid] = text = self.still.read_bytes(f"{pid}/maps")
        if b"/[aio]" in text:
            raise self.reason(pid, "uses asynchronous input and output (io_setup)")
        for begin, end, access, offset, major, minor, name in shared_mappings(text):
            if (int(major, 16), int(minor, 16)) not in self.devices:
                continue
            entry = f"{pid}/map_files/{int(begin, 16):x}-{int(end, 16):x}"
            if b"w" not in access and not os.lstat(entry, dir_fd=self.still.proc).st_mode & stat.S_IWUSR:
                continue  # its file was opened for reading alone
            path = os.fsdecode(name)
            if path.endswith(DELETED) or "\\" in path:
                raise self.reason(pid, f"has a deleted or oddly named file mapped: {path}")
            self.carry(pid, path, self.part_at(pid, path))
            self.mapped.append(Mapped(pid, path, int(begin, 16), int(end, 16), access, int(offset, 16)))

    def part_at(self, pid: int, path: str) -> Part:
        """The part that a path lies in."""
        try:
            fd = openat2(self.root, path, os.O_PATH, PLAIN_PATH)
        except OSError:
            raise self.reason(pid, f"has a file without a name: {path}") from None
        try:
            return self.by_id[self.statx(fd, "").mount]
        except KeyError:
            raise self.reason(pid, f"has a file of another file system mapped: {path}") from None
        finally:
            os.close(fd)

    def look_at_sockets(self) -> None:
        """Unix sockets that are bound to a name in a writable part: a new file system would not lead to them."""
        seen = set()
        for pid in set(self.sockets.values()):
            network = self.statx(self.still.proc, f"{pid}/ns/net").inode
            if network in seen:
                continue
            seen.add(network)
            for inode, path in bound_sockets(self.still.read(f"{pid}/net/unix")):
                owner = self.sockets.get(inode)
                if owner is not None and self.is_in_part(path):
                    raise self.reason(owner, f"has a socket at {path}")

    def is_in_part(self, path: str) -> bool:
        """Whether a socket's path leads into a writable part; a relative one may."""
        if not path.startswith("/"):
            return True
        try:
            fd = openat2(self.root, path, os.O_PATH)
        except OSError:
            return False
        try:
            return self.statx(fd, "").mount in self.by_id
        finally:
            os.close(fd)


def bound_sockets(table: str) -> Iterable[tuple[int, str]]:
    """Inode and path of the sockets in /proc/net/unix (unix(7)) that have a name in a file system."""
    for line in table.splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) == 8 and not fields[7].startswith("@"):
            yield int(fields[6]), fields[7]


def shared_mappings(maps: bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]]:
    """The shared ones among the lines of /proc/PID/maps: begin, end, what is allowed (`rwx`), offset, major and minor
    number of the device, and the file's name (proc_pid_maps(5))."""
    for line in maps.split(b"\n"):
        fields = line.split(None, 5)
        if len(fields) > 4 and fields[1][3:4] == b"s":
            begin, end = fields[0].split(b"-")
            major, minor = fields[3].split(b":")
            yield begin, end, fields[1][:3], fields[2], major, minor, fields[5] if len(fields) > 5 else b""


def carries_descriptors(fdinfo: str) -> bool:
    """Whether descriptors are under way in a Unix socket."""
    return any(line.startswith("scm_fds:") and int(line.split()[1]) > 0 for line in fdinfo.splitlines())
