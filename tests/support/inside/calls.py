"""What is tried from inside a container: system calls and privileges.

Run there, with `files`, by the system's Python, which has nothing but its library. Every attempt is a function that
returns what it got, or raises.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import sys
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
X86 = platform.machine() == "x86_64"
ATTEMPTS: dict[str, Any] = {}
SECRET, ABSTRACT, PORT, HOST_PID = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
"""what the host has: a file, an abstract socket, a port, a process"""

NUMBERS = {  # x86-64, arm64
    "acct": (163, 89), "add_key": (248, 217), "bpf": (321, 280), "clock_settime": (227, 112), "clone": (56, 220),
    "clone3": (435, 435), "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273),
    "fsopen": (430, 430), "fsmount": (432, 432), "fspick": (433, 433), "get_mempolicy": (239, 236),
    "init_module": (175, 105), "io_uring_setup": (425, 425), "kcmp": (312, 272), "kexec_load": (246, 104),
    "keyctl": (250, 219), "lookup_dcookie": (212, 18), "mbind": (237, 235), "mount": (165, 40),
    "mount_setattr": (442, 442), "move_mount": (429, 429), "move_pages": (279, 239), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41), "process_madvise": (440, 440), "quotactl": (179, 60), "reboot": (169, 142),
    "request_key": (249, 218), "set_mempolicy": (238, 237), "setdomainname": (171, 162), "sethostname": (170, 161),
    "setns": (308, 268), "settimeofday": (164, 170), "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116),
    "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282), "vhangup": (153, 58), "socket": (41, 198),
    "ioperm": (173, None), "iopl": (172, None), "ptrace": (101, 117), "process_vm_readv": (310, 270),
}  # fmt: skip


def attempt(function: Any) -> Any:
    """Have a function tried under its name."""
    ATTEMPTS[function.__name__] = function
    return function


def call(name: Any, *arguments: Any) -> int:
    """A system call by number; raises OSError."""
    number = NUMBERS[name][0 if X86 else 1] if isinstance(name, str) else name
    if number is None:
        raise OSError(errno.ENOSYS, name)
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    words += [ctypes.c_long(0)] * (6 - len(words))
    result = libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), str(name))
    return int(result)


def plain(name: str, *arguments: Any) -> None:
    """An attempt that is just one system call."""
    ATTEMPTS[f"call {name}"] = lambda: call(name, *arguments)


for name, arguments in {
    "acct": (b"/tmp/acct",), "add_key": (b"user", b"nbhull", b"x", 1, -3), "bpf": (0, b"\0" * 64, 64),
    "clock_settime": (0, struct.pack("=qq", 1, 0)), "clone3": (b"\0" * 88, 8), "delete_module": (b"none", 0),
    "fanotify_init": (0, 0), "finit_module": (0, b"", 0), "fsopen": (b"tmpfs", 0), "fsmount": (-1, 0, 0),
    "fspick": (-100, b"/", 0), "get_mempolicy": (0, 0, 0, 0, 0), "init_module": (b"", 0, b""),
    "io_uring_setup": (1, b"\0" * 120), "kcmp": (0, 0, 0, 0, 0), "kexec_load": (0, 0, 0, 0), "keyctl": (0, -3, 0),
    "lookup_dcookie": (0, b"\0" * 8, 8), "mbind": (0, 0, 0, 0, 0, 0), "mount": (b"none", b"/mnt", b"tmpfs", 0, 0),
    "mount_setattr": (-100, b"/", 0, b"\0" * 32, 32), "move_mount": (-100, b"/tmp", -100, b"/mnt", 0),
    "move_pages": (0, 0, 0, 0, 0, 0),
    "open_by_handle_at": (-100, struct.pack("=Ii8x", 8, 1), 0), "open_tree": (-100, b"/", 1),
    "perf_event_open": (struct.pack("=II", 1, 64) + b"\0" * 56, 0, -1, -1, 0), "pidfd_getfd": (-1, 0, 0),
    "pivot_root": (b".", b"."), "process_madvise": (-1, 0, 0, 0, 0), "quotactl": (0x800002 << 8, b"/dev/x", 0, 0),
    "reboot": (0, 0, 0, 0), "request_key": (b"user", b"nbhull", 0, -3), "set_mempolicy": (0, 0, 0),
    "setdomainname": (b"evil", 4), "sethostname": (b"evil", 4), "setns": (-1, 0),
    "settimeofday": (struct.pack("=qq", 1, 0), 0), "swapoff": (b"/x",), "swapon": (b"/x", 0),
    "syslog": (2, ctypes.create_string_buffer(64), 64),
    "umount2": (b"/tmp/no-such", 2), "unshare": (0x20000,), "userfaultfd": (1,), "vhangup": (), "ioperm": (0, 1, 1),
    "iopl": (3,),
}.items():  # fmt: skip
    plain(name, *arguments)


# -- what arguments decide ---------------------------------------------------------------------


@attempt
def clone_new_user_namespace() -> Any:
    pid = call("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[1]


@attempt
def clone_new_namespace_behind_high_bits() -> Any:
    pid = call("clone", (1 << 40) | 0x20000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[1]


@attempt
def unshare_user_namespace() -> Any:
    return call("unshare", 0x10000000)


@attempt
def user_namespace_then_mount() -> Any:
    call("unshare", 0x10000000 | 0x20000)
    return call("mount", b"none", b"/mnt", b"tmpfs", 0, 0)


@attempt
def socket_of_the_kernels_ciphers() -> Any:
    return call("socket", 38, 5, 0)


@attempt
def socket_of_the_kernels_ciphers_behind_high_bits() -> Any:
    return call("socket", (1 << 32) | 38, 5, 0)


@attempt
def socket_to_the_hypervisor() -> Any:
    return call("socket", 40, 1, 0)


@attempt
def personality_without_randomization() -> Any:
    return call("personality", 0x0040000)


@attempt
def call_of_32_bit_x86() -> Any:
    """getpid by int 0x80, whose numbers another table has."""
    if not X86:
        raise OSError(errno.ENOSYS, "not an x86")
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000 cd80 c3".replace(" ", "")))
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


@attempt
def call_of_x32() -> Any:
    return call(0x40000000 + 39)


@attempt
def call_newer_than_the_profile() -> Any:
    return call(467, -100, b"/", 0, 0, 0)


# -- capabilities and privileges ---------------------------------------------------------------


@attempt
def raise_the_priority() -> Any:
    os.setpriority(os.PRIO_PROCESS, 0, -5)


@attempt
def raise_a_hard_limit() -> Any:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = struct.pack("=QQ", soft, hard + 1)
    if libc.prlimit(0, resource.RLIMIT_NOFILE, limits, None):
        raise OSError(ctypes.get_errno(), "prlimit")


def device(kind: int, major: int, minor: int) -> None:
    path = f"/tmp/device-{os.getpid()}"
    os.mknod(path, kind | 0o666, os.makedev(major, minor))
    os.unlink(path)


@attempt
def make_the_node_of_a_disk() -> Any:
    device(0o060000, 8, 0)


@attempt
def make_the_node_of_memory() -> Any:
    device(0o020000, 1, 1)


@attempt
def make_the_node_of_null() -> Any:
    device(0o020000, 1, 3)


@attempt
def open_the_kernels_log() -> Any:
    return len(os.read(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK), 100))


@attempt
def open_memory() -> Any:
    return os.open("/dev/mem", os.O_RDONLY)


@attempt
def open_a_disk() -> Any:
    disks = [n for n in os.listdir("/dev") if n.startswith(("sd", "vd", "nvme", "loop", "dm-", "xvd"))]
    if not disks:
        raise FileNotFoundError(errno.ENOENT, "no disks")
    return os.open(f"/dev/{disks[0]}", os.O_RDONLY)


@attempt
def packet_socket() -> Any:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300).fileno()


@attempt
def raw_socket() -> Any:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno()


@attempt
def immutable_file() -> Any:
    import fcntl

    path = f"/tmp/immutable-{os.getpid()}"
    with open(path, "w") as file:
        fcntl.ioctl(file, 0x40086602, struct.pack("=l", 0x10))


@attempt
def lock_all_memory_beyond_the_limit() -> Any:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
    area = mmap.mmap(-1, 1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(1 << 20)):
        raise OSError(ctypes.get_errno(), "mlock")


@attempt
def take_inheritable_capabilities() -> Any:
    """Keep what root has for a program of another user's: ambient ones need inheritable ones."""
    if libc.prctl(47, 2, 21, 0, 0):  # PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN
        raise OSError(ctypes.get_errno(), "prctl")


@attempt
def read_a_file_of_another_owner() -> Any:
    """Beyond DAC_OVERRIDE: a file of the host's root, who is nobody here."""
    with open("/etc/shadow", "rb") as file:
        return len(file.read())
