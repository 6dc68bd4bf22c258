"""Namespaces, credentials and descriptors of the calling process."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from nbhull.runtime.errors import SyscallFailed
from nbhull.runtime.lean import Buffer, Socket, c_long, c_ulong, get_errno, socket
from nbhull.runtime.linux import libc
from nbhull.runtime.linux.libc import check, syscall

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000

SIGCHLD = 17
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME = 1, 4, 15
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

KEYCTL = {"x86_64": 250, "aarch64": 219}
KEYCTL_JOIN_SESSION_KEYRING = 1

RLIMITS = {
    name: number
    for number, name in enumerate(
        "cpu fsize data stack core rss nproc nofile memlock as locks sigpending msgqueue nice rtprio rttime".split()
    )
}
"""Names without RLIMIT_, with their numbers (include/uapi/asm-generic/resource.h)."""

_LINUX_CAPABILITY_VERSION_3 = 0x20080522

CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
"""Names without CAP_, in the order of their numbers (include/uapi/linux/capability.h)."""

DEFAULT_CAPABILITIES = frozenset(
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE".split()
)
"""What processes of a container keep unless told otherwise: Docker's default set."""


def clone(flags: int) -> int:
    """fork(2) into new namespaces (clone(2) without a stack of its own): 0 in the child, its id in the parent.

    For single-threaded processes; one fork instead of the two that unshare(CLONE_NEWPID) needs."""
    number = libc.number_of(libc.CLONE, "clone")
    libc.libc.PyOS_BeforeFork()
    pid: int = libc.libc.syscall(c_long(number), c_long(flags | SIGCHLD), *[c_long(0)] * 4)
    errno = get_errno()
    if pid == 0:
        libc.libc.PyOS_AfterFork_Child()
    else:
        libc.libc.PyOS_AfterFork_Parent()
    if pid == -1:
        raise SyscallFailed("clone", errno, names_of(flags))
    return pid


def unshare(flags: int) -> None:
    """unshare(2)."""
    check(libc.libc.unshare(flags), "unshare", names_of(flags))


def names_of(flags: int) -> str:
    """The CLONE_NEW* flags as words, for messages."""
    names = {value: name for name, value in globals().items() if name.startswith("CLONE_NEW")}
    return "|".join(name for value, name in sorted(names.items()) if flags & value)


def setns(fd: int, flags: int) -> None:
    """setns(2)."""
    check(libc.libc.setns(fd, flags), "setns", names_of(flags))


def prctl(call: str, option: int, *arguments: int) -> int:
    """prctl(2); unused arguments are 0, as the kernel demands for the newer options."""
    words = [c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return check(libc.libc.prctl(option, *words), f"prctl({call})")


def set_name(name: str) -> None:
    """The name that ps(1) shows for this process, at most 15 bytes."""
    check(libc.libc.prctl(PR_SET_NAME, name.encode(), 0, 0, 0), "prctl(PR_SET_NAME)")


def last_capability() -> int:
    """The highest capability number that this kernel knows."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        return int(file.read())


def capability_mask(names: frozenset[str]) -> int:
    """Names without CAP_ as the bit mask that capset(2) takes."""
    return sum(1 << CAPABILITIES.index(name) for name in names)


def effective_capabilities() -> int:
    """The calling process's effective set as a bit mask."""
    with open("/proc/thread-self/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def has_capability(name: str) -> bool:
    """Whether the calling process holds this capability in its own user namespace."""
    return bool(effective_capabilities() >> CAPABILITIES.index(name) & 1)


def drop_bounding_set(keep: int, last: int) -> None:
    """Take every capability up to number `last` that is not in the mask `keep` out of the bounding set."""
    for number in range(last + 1):
        if not keep >> number & 1:
            prctl("PR_CAPBSET_DROP", PR_CAPBSET_DROP, number)


def join_session_keyring() -> None:
    """A new, empty session keyring for this process and its children (keyctl(2)): the keys of who started it are gone
    from its sight. A kernel without keys has none to hide."""
    try:
        syscall("keyctl", libc.number_of(KEYCTL, "keyctl"), KEYCTL_JOIN_SESSION_KEYRING, None)
    except SyscallFailed as error:
        if error.errno == errno.ENOSYS:
            return
        if error.errno == errno.EDQUOT:
            error.hint = "raise the number of keys a user may have: sysctl kernel.keys.maxkeys=2000"
        raise


def lower_rlimit(number: int, most: int) -> None:
    """setrlimit(2) to `most`, unless the limit is lower already."""
    hard = get_rlimit(number)[1]
    if hard == -1 or hard > most:
        set_rlimit(number, most, most)


def set_rlimit(resource: int, soft: int, hard: int) -> None:
    """setrlimit(2); -1 is no limit."""
    limits = struct.pack("=QQ", soft % (1 << 64), hard % (1 << 64))
    check(libc.libc.prlimit(0, resource, limits, None), "setrlimit", list(RLIMITS)[resource])


def get_rlimit(resource: int) -> tuple[int, int]:
    """getrlimit(2): soft and hard; -1 is no limit."""
    limits = Buffer(bytes(16))
    check(libc.libc.prlimit(0, resource, None, limits.address), "getrlimit", list(RLIMITS)[resource])
    soft, hard = struct.unpack("=qq", limits.raw)
    return soft, hard


def set_soft_limit(pid: int, resource: int, soft: int | None) -> bool:
    """prlimit(2): change another process's soft limit; None raises it to the hard one. False where that process has
    gone, or is another user's."""
    limits = Buffer(bytes(16))
    if libc.libc.prlimit(pid, resource, None, limits.address) == -1:
        return False
    hard = struct.unpack("=QQ", limits.raw)[1]
    return bool(libc.libc.prlimit(pid, resource, struct.pack("=QQ", hard if soft is None else soft, hard), None) == 0)


def set_capabilities(effective: int, permitted: int, inheritable: int = 0) -> None:
    """capset(2) for the calling thread; the ambient set is cleared."""
    prctl("PR_CAP_AMBIENT", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    data = struct.pack(
        "=IIIIII",
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> high,
        permitted >> high,
        inheritable >> high,
    )
    check(libc.libc.capset(header, data), "capset")


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """close_range(2): close every descriptor from `first` to `last`."""
    syscall("close_range", libc.CLOSE_RANGE, first, last, 0)


def sethostname(name: str) -> None:
    """sethostname(2)."""
    data = name.encode()
    check(libc.libc.sethostname(data, len(data)), "sethostname", name)


def write_file(path: str, text: str) -> None:
    """Write `text` to a file of procfs or a cgroup by one write(2), as their files demand."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def raise_oom_score(amount: int) -> None:
    """Have Linux kill the calling process, and what it forks, sooner than others when memory is short."""
    with open("/proc/self/oom_score_adj") as file:
        current = int(file.read())
    write_file("/proc/self/oom_score_adj", str(min(1000, current + amount)))


def close_all_but(keep: list[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    ordered = sorted(set(keep))
    for low, high in zip([-1, *ordered], [*ordered, 1 << 31], strict=True):
        if high - low > 1:
            close_range(low + 1, high - 1)


def raise_loopback() -> None:
    """Bring up the loopback interface of a new network namespace (netdevice(7))."""
    interface = struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING)
    with Socket(socket.AF_INET, socket.SOCK_DGRAM) as inet:
        fcntl.ioctl(inet, SIOCSIFFLAGS, interface)


def enter_cgroups(files: list[int]) -> None:
    """Have this process be in the cgroups of these cgroup.procs files, which are closed. Raises SyscallFailed."""
    for fd in files:
        try:
            os.write(fd, b"0")
        except OSError as error:
            real = os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)
            step = "entering a cgroup with realtime scheduling" if real else "entering a cgroup"
            raise SyscallFailed(step, error.errno or 0, os.readlink(f"/proc/self/fd/{fd}")) from error
        os.close(fd)
