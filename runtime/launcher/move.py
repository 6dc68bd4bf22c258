"""A running container moved onto new writable file systems, in time that does not depend on what it has written.

Its old upper folders become lower ones, which nothing writes to any more, so they are a snapshot where they lie.
The work is done in a process of its own, in this order:

1. All processes stand still (`standstill`), and what they hold of the old file systems is listed (`census`).
2. Files that are written get a second name in the new upper folder, and a copy in the container's folder (`carrying`).
3. Threads are rehearsed in what they will have to do: taking a descriptor, entering a folder.
   Up to here, any failure leaves everything as it was.
4. The new mounts take the old ones' place, with all that is mounted in them; pivot_root(2) brings the processes'
   roots along.
5. The copies take their files' names in the old upper folder: the processes keep the inodes, the snapshot the bytes.
6. Each process is handed its open files and its working folder, opened anew.
"""

from __future__ import annotations

import errno
import os
import struct
import time

from nbhull.runtime.errors import LOST_HINT, Conflict, ContainerLost, HullError, SyscallFailed
from nbhull.runtime.launcher.carrying import Carrying
from nbhull.runtime.launcher.census import PLAIN_PATH, Census, Mapped
from nbhull.runtime.launcher.parts import Part
from nbhull.runtime.launcher.standstill import Standstill
from nbhull.runtime.lean import Socket, array, socket
from nbhull.runtime.linux import mount as linux
from nbhull.runtime.linux import process, statx
from nbhull.runtime.linux.ptrace import Puppet, take_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

SOCKETPAIR, RECVMSG, FCHDIR, DUP3, CLOSE, MMAP = 53, 47, 81, 292, 3, 9
"""numbers of x86-64"""
MAP_SHARED, MAP_FIXED = 0x01, 0x10
MACHINE = "x86_64"
MSG_DONTWAIT, MSG_CMSG_CLOEXEC = 0x40, 0x40000000
SCRATCH = 128
"""bytes of a process's memory that are borrowed"""
CONTROL = 96
"""offset in them of the ancillary data"""
PATIENCE = 2.0
"""seconds for a process's calls"""


class Hand:
    """One process that is handed descriptors: through a socket pair that it is made to open."""

    def __init__(self, puppet: Puppet, pid: int) -> None:
        self.puppet = puppet
        puppet.begin(SCRATCH)
        try:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            puppet.call("socketpair", SOCKETPAIR, socket.AF_UNIX, kind, 0, puppet.scratch)
            self.inside, spare = struct.unpack("=ii", os.pread(puppet.memory, 8, puppet.scratch))
            self.outside = Socket(fileno=take_descriptor(pid, spare))
            # What follows needs one free descriptor at a time, and this is it.
            puppet.call("close", CLOSE, spare)
        except BaseException:
            puppet.end()
            raise

    def give(self, fd: int) -> int:
        """Hand over a descriptor of ours: its number there."""
        puppet, base = self.puppet, self.puppet.scratch
        self.outside.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        message = struct.pack("=QiiQQQQQ", 0, 0, 0, base + 16, 1, base + CONTROL, socket.CMSG_SPACE(4), 0)
        layout = struct.pack("=16xQQ", base + 8, 1) + message
        os.pwrite(puppet.memory, layout.ljust(SCRATCH, b"\0"), base)
        puppet.call("recvmsg", RECVMSG, self.inside, base + 32, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
        length, _, kind, number = struct.unpack("=Qiii", os.pread(puppet.memory, 20, base + CONTROL))
        if length != socket.CMSG_LEN(4) or kind != socket.SCM_RIGHTS:
            raise Conflict(f"thread {puppet.tid} was handed a descriptor and did not get it")
        return int(number)

    def rehearse(self, folder: int) -> None:
        """Do all that will be done, without effect: enter the working folder (O_PATH) that it is in."""
        given = self.give(folder)
        self.puppet.call("fchdir", FCHDIR, given)
        try:
            self.puppet.call("dup3", DUP3, given, given, os.O_CLOEXEC)
        except SyscallFailed as error:
            if error.errno != errno.EINVAL:  # which it says of two numbers that are the same, so it may be called
                raise
        self.puppet.call("close", CLOSE, given)

    def replace(self, fd: int, by: int, *, cloexec: bool) -> None:
        """Have its descriptor `fd` mean what our `by` does."""
        given = self.give(by)
        self.puppet.call("dup3", DUP3, given, fd, os.O_CLOEXEC if cloexec else 0)
        self.puppet.call("close", CLOSE, given)

    def remap(self, mapped: Mapped, fd: int) -> None:
        """Have the same bytes of our file mapped where they are."""
        given, flags = self.give(fd), MAP_SHARED | MAP_FIXED
        place = (mapped.begin, mapped.length, mapped.protection, flags, given, mapped.offset)
        self.puppet.call("mmap", MMAP, *place)
        self.puppet.call("close", CLOSE, given)

    def enter(self, folder: int) -> None:
        """Have it work in a folder of ours."""
        given = self.give(folder)
        self.puppet.call("fchdir", FCHDIR, given)
        self.puppet.call("close", CLOSE, given)

    def finish(self) -> None:
        """Leave no trace."""
        try:
            self.puppet.call("close", CLOSE, self.inside)
        finally:
            self.outside.close()
            self.puppet.end()


class Move:
    """One move, in a process that may change its namespaces and ends afterwards."""

    def __init__(
        self,
        init: int,
        namespace: int,
        folder: int,
        old: list[Part],
        new: list[Part],
        asleep: Collection[int],
        meanwhile: Callable[[], None],
    ) -> None:
        """`init`: the container's first process; `namespace`: descriptor of its mount namespace; `folder`: that of its
        folder in the store; `old`, `new`: its parts, the root first, in one order; `asleep`: processes that are left
        alone; `meanwhile`: what else is to be done while all stand still."""
        self.proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.namespace = namespace
        self.old = old
        self.new = new
        self.still = Standstill(self.proc, init, asleep)
        self.census = Census(self.still, old, namespace)
        self.hands: dict[int, Hand] = {}
        self.undo: list[Callable[[], object]] = []
        """what takes back that which was done so far, last first"""
        self.carrying = Carrying(folder, self.undo)
        self.meanwhile = meanwhile

    def run(self) -> str:
        """Move it: empty, or why something may still write to the old upper folders.

        Raises HullError or OSError when it could not be moved, and is as it was; ContainerLost when it is neither."""
        process.setns(self.namespace, process.CLONE_NEWNS)
        self.still.catch()
        try:
            try:
                self.census.take()
                self.meanwhile()
                new = {part.key: part for part in self.new}
                for path, part in self.census.carried.items():
                    self.carrying.carry(path, part, new[part.key])
                self.prepare_hands()
                self.exchange()
            except BaseException as error:
                self.take_back(error)
                raise
            problem = ""
            try:
                for path, part in self.census.carried.items():
                    self.carrying.settle(path, part)
                self.carrying.end()
                self.hand_over()
                problem = self.seal()
            except (HullError, OSError) as error:
                problem = str(error)
            linux.umount2(".", linux.MNT_DETACH)
            return problem
        finally:
            for pid in self.hands:
                with self.unless_ended(pid) as hand:
                    hand.finish()
            self.still.release()

    def take_back(self, reason: BaseException) -> None:
        """Undo what was done until `reason` came up."""
        try:
            for step in reversed(self.undo):
                step()
        except (HullError, OSError) as error:
            raise ContainerLost(
                f"the container could be moved neither on ({reason}) nor back ({error})", LOST_HINT
            ) from error

    # Processes

    def prepare_hands(self) -> None:
        """Have the processes that must be handed something rehearse it."""
        affected = self.census.affected()
        if affected and os.uname().machine != MACHINE:
            raise Conflict(f"processes cannot be moved on {os.uname().machine}")
        least = min((self.filters(pid) for pid in self.still.processes), default=0) if affected else 0
        for pid in affected:
            if self.filters(pid) > least:
                raise self.census.reason(pid, "confines itself (seccomp)")
            self.hands[pid] = hand = Hand(self.puppet(pid), pid)
            folder = os.open(f"{pid}/cwd", os.O_PATH | os.O_CLOEXEC, dir_fd=self.proc)
            try:
                hand.rehearse(folder)
            except SyscallFailed as error:
                raise self.census.reason(pid, f"cannot be moved: {error.message}") from error
            finally:
                os.close(folder)

    def filters(self, pid: int) -> int:
        """How many seccomp filters a process has (Linux 5.9): one of its own might end it for what it is made to do."""
        return int(self.still.field(pid, "Seccomp_filters") or 0)

    def puppet(self, pid: int) -> Puppet:
        """A thread of a process."""
        scratch, vdso = 0, (0, 0)
        for line in self.census.mappings[pid].splitlines():
            span, access, _, _, inode, *name = line.split(None, 5)
            begin, end = (int(word, 16) for word in span.split(b"-"))
            if name == [b"[vdso]"]:
                vdso = begin, end
            elif not scratch and access == b"rw-p" and inode == b"0":
                scratch = begin
        if not scratch or not vdso[0]:
            raise self.census.reason(pid, "has no memory to work with")
        memory = os.open(f"{pid}/mem", os.O_RDWR | os.O_CLOEXEC, dir_fd=self.proc)
        return Puppet(self.still.processes[pid][0], memory, scratch, vdso, time.monotonic() + PATIENCE)

    def hand_over(self) -> None:
        """Give every process its open files and its working folder in the new file systems."""
        root = self.new[0].mount
        for opened in self.census.opened:
            fd = linux.openat2(root, opened.path, opened.flags, PLAIN_PATH)
            try:
                if opened.position:
                    os.lseek(fd, opened.position, os.SEEK_SET)
                for pid, number, cloexec in opened.holders:
                    with self.unless_ended(pid) as hand:
                        hand.replace(number, fd, cloexec=cloexec)
            finally:
                os.close(fd)
        for mapped in self.census.mapped:
            fd = linux.openat2(root, mapped.path, os.O_RDWR, PLAIN_PATH)
            try:
                with self.unless_ended(mapped.pid) as hand:
                    hand.remap(mapped, fd)
            finally:
                os.close(fd)
        for pid, path in self.census.folders.items():
            folder = linux.openat2(root, path, os.O_PATH | os.O_DIRECTORY, PLAIN_PATH)
            try:
                with self.unless_ended(pid) as hand:
                    hand.enter(folder)
            finally:
                os.close(folder)

    def unless_ended(self, pid: int) -> UnlessEnded:
        """Act on a process, in a `with`; that it was killed meanwhile is no error."""
        return UnlessEnded(self.hands[pid], pid, self.still)

    # Mounts

    def exchange(self) -> None:
        """Put the new mounts in the old ones' place, with all that is mounted in them."""
        old_root, new_root = self.old[0], self.new[0]
        old_ids = {part.id: index for index, part in enumerate(self.old)}
        children = read_children(self.still.read("self/mountinfo"), set(old_ids))
        reader = statx.Reader()
        plan = []
        for identity, parent, at in sorted(children, key=lambda child: child[2].count("/")):
            source = linux.openat2(old_root.mount, at, os.O_PATH)
            if reader(source, "").mount != identity:
                raise Conflict(f"something is mounted over {at}")
            plan.append((source, parent, identity, at))
        for old, new in zip(self.old, self.new, strict=True):
            if os.fstatvfs(old.mount).f_flag & os.ST_RDONLY:
                linux.mount_setattr(new.mount, linux.MOUNT_ATTR_RDONLY, subject=new.at)
        slash = linux.openat2(old_root.mount, "/", os.O_PATH)
        linux.move_mount(new_root.mount, slash, "the container's root")
        self.undo.append(lambda: unmount(new_root.mount))
        for source, parent, identity, at in plan:
            new_parent = self.new[old_ids[parent]].mount
            below = at[len(self.old[old_ids[parent]].at.rstrip("/")) :]
            target = linux.openat2(new_parent, below, os.O_PATH)
            if identity in old_ids:
                linux.move_mount(self.new[old_ids[identity]].mount, target, at)
            else:
                linux.move_mount(source, target, at)
                self.undo.append(restore(source, self.old[old_ids[parent]].mount, below))
        os.fchdir(new_root.mount)
        linux.pivot_root(".", ".")

    def seal(self) -> str:
        """Make the old mounts read-only, which fails while something has files of theirs open for writing."""
        try:
            for part in self.old:
                linux.mount_setattr(part.mount, linux.MOUNT_ATTR_RDONLY, subject=part.at)
        except SyscallFailed as error:
            if not self.census.deleted_writers:
                return f"something unknown has files open for writing: {error}"
        return ""


class UnlessEnded:
    """What `Move.unless_ended` gives."""

    def __init__(self, hand: Hand, pid: int, still: Standstill) -> None:
        self.hand = hand
        self.pid = pid
        self.still = still

    def __enter__(self) -> Hand:
        return self.hand

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, HullError | OSError | TimeoutError) and self.still.state(self.pid) in "ZX"


def read_children(table: str, parents: set[int]) -> list[tuple[int, int, str]]:
    """Id, parent's id and mount point of what is mounted right in one of `parents` (proc_pid_mountinfo(5))."""
    found = []
    for line in table.splitlines():
        identity, parent, _, _, at, _ = line.split(" ", 5)
        if int(parent) in parents and identity != parent:
            found.append((int(identity), int(parent), unescape(at)))
    return found


def unescape(text: str) -> str:
    """A path as mountinfo writes it: space, tab, newline and backslash in octal."""
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text


def restore(source: int, parent: int, below: str) -> Callable[[], object]:
    """What puts a mount back to where it was."""
    return lambda: linux.move_mount(source, linux.openat2(parent, below, os.O_PATH), below)


def unmount(root: int) -> None:
    """Take a mount away, given its root."""
    os.fchdir(root)
    linux.umount2(".", linux.MNT_DETACH)
