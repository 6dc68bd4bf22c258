"""What is tried from inside a container: run there by the system's Python, which has nothing but its library.

Every attempt is a function that returns what it got, or raises; each runs in a process of its own. Printed is a JSON
object from the attempts' names to `ok` (with what was got), the name of an errno, `signal N`, or what else happened.
"""

from __future__ import annotations

import ctypes
import errno
import json
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


def attempt(function):
    """Have a function tried under its name."""
    ATTEMPTS[function.__name__] = function
    return function


def call(name, *arguments):
    """A system call by number; raises OSError."""
    number = NUMBERS[name][0 if X86 else 1] if isinstance(name, str) else name
    if number is None:
        raise OSError(errno.ENOSYS, name)
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    words += [ctypes.c_long(0)] * (6 - len(words))
    result = libc.syscall(ctypes.c_long(number), *words)
    if result == -1:
        raise OSError(ctypes.get_errno(), str(name))
    return result


def plain(name, *arguments):
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
def clone_new_user_namespace():
    pid = call("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[1]


@attempt
def clone_new_namespace_behind_high_bits():
    pid = call("clone", (1 << 40) | 0x20000000 | signal.SIGCHLD, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[1]


@attempt
def unshare_user_namespace():
    return call("unshare", 0x10000000)


@attempt
def user_namespace_then_mount():
    call("unshare", 0x10000000 | 0x20000)
    return call("mount", b"none", b"/mnt", b"tmpfs", 0, 0)


@attempt
def socket_of_the_kernels_ciphers():
    return call("socket", 38, 5, 0)


@attempt
def socket_of_the_kernels_ciphers_behind_high_bits():
    return call("socket", (1 << 32) | 38, 5, 0)


@attempt
def socket_to_the_hypervisor():
    return call("socket", 40, 1, 0)


@attempt
def personality_without_randomization():
    return call("personality", 0x0040000)


@attempt
def call_of_32_bit_x86():
    """getpid by int 0x80, whose numbers another table has."""
    if not X86:
        raise OSError(errno.ENOSYS, "not an x86")
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000 cd80 c3".replace(" ", "")))
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


@attempt
def call_of_x32():
    return call(0x40000000 + 39)


@attempt
def call_newer_than_the_profile():
    return call(467, -100, b"/", 0, 0, 0)


# -- capabilities and privileges ---------------------------------------------------------------


@attempt
def raise_the_priority():
    os.setpriority(os.PRIO_PROCESS, 0, -5)


@attempt
def raise_a_hard_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = struct.pack("=QQ", soft, hard + 1)
    if libc.prlimit(0, resource.RLIMIT_NOFILE, limits, None):
        raise OSError(ctypes.get_errno(), "prlimit")


def device(kind, major, minor):
    path = f"/tmp/device-{os.getpid()}"
    os.mknod(path, kind | 0o666, os.makedev(major, minor))
    os.unlink(path)


@attempt
def make_the_node_of_a_disk():
    device(0o060000, 8, 0)


@attempt
def make_the_node_of_memory():
    device(0o020000, 1, 1)


@attempt
def make_the_node_of_null():
    device(0o020000, 1, 3)


@attempt
def open_the_kernels_log():
    return len(os.read(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK), 100))


@attempt
def open_memory():
    return os.open("/dev/mem", os.O_RDONLY)


@attempt
def open_a_disk():
    disks = [n for n in os.listdir("/dev") if n.startswith(("sd", "vd", "nvme", "loop", "dm-", "xvd"))]
    if not disks:
        raise FileNotFoundError(errno.ENOENT, "no disks")
    return os.open(f"/dev/{disks[0]}", os.O_RDONLY)


@attempt
def packet_socket():
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300).fileno()


@attempt
def raw_socket():
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno()


@attempt
def immutable_file():
    import fcntl

    path = f"/tmp/immutable-{os.getpid()}"
    with open(path, "w") as file:
        fcntl.ioctl(file, 0x40086602, struct.pack("=l", 0x10))


@attempt
def lock_all_memory_beyond_the_limit():
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
    area = mmap.mmap(-1, 1 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(1 << 20)):
        raise OSError(ctypes.get_errno(), "mlock")


@attempt
def take_inheritable_capabilities():
    """Keep what root has for a program of another user's: ambient ones need inheritable ones."""
    if libc.prctl(47, 2, 21, 0, 0):  # PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN
        raise OSError(ctypes.get_errno(), "prctl")


@attempt
def read_a_file_of_another_owner():
    """Beyond DAC_OVERRIDE: a file of the host's root, who is nobody here."""
    with open("/etc/shadow", "rb") as file:
        return len(file.read())


# -- files of the kernel -----------------------------------------------------------------------


def content(path):
    """How many bytes a file has; an empty one and an empty folder count as hidden."""
    if os.path.isdir(path):
        found = len(os.listdir(path))
    else:
        with open(path, "rb") as file:
            found = len(file.read(4096))
    if not found:
        raise OSError(errno.ENODATA, path)
    return found


def writing(path, data=None):
    """Open for writing, which is what a read-only mount refuses; nothing that changes the machine is written."""
    fd = os.open(path, os.O_WRONLY)
    if data is not None:
        os.write(fd, data)


for path in (
    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
    "/proc/timer_list", "/proc/timer_stats", "/proc/interrupts", "/sys/firmware", "/sys/devices/virtual/powercap",
    "/sys/fs/selinux", "/sys/devices/system/cpu/cpu0/thermal_throttle", "/sys/kernel/debug", "/sys/kernel/security",
    "/sys/fs/bpf", "/sys/kernel/tracing",
):  # fmt: skip
    ATTEMPTS[f"read {path}"] = lambda path=path: content(path)
for path in (
    "/proc/sys/kernel/msgmax", "/proc/sys/kernel/ns_last_pid", "/proc/sys/fs/mqueue/msg_max",
    "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom",
    "/proc/sys/kernel/domainname", "/proc/sys/net/ipv4/ip_forward", "/proc/irq/default_smp_affinity",
    "/proc/sys/fs/binfmt_misc/register", "/sys/power/state", "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/uevent_helper", "/proc/bus/pci/00/00.0",
):  # fmt: skip
    ATTEMPTS[f"write {path}"] = lambda path=path: writing(path)


@attempt
def write_a_cgroup_file():
    """Any at all: release_agent, cgroup.procs, memory.max."""
    refused = None
    for folder, _, names in os.walk("/sys/fs/cgroup"):
        for name in names:
            if name in ("release_agent", "cgroup.procs", "tasks", "notify_on_release", "memory.max", "devices.allow"):
                try:
                    os.close(os.open(f"{folder}/{name}", os.O_WRONLY))
                except OSError as error:
                    refused = error
                else:
                    return f"{folder}/{name}"
    raise refused or OSError(errno.ENOENT, "no cgroup files")


@attempt
def make_a_cgroup():
    refused = OSError(errno.ENOENT, "no cgroups")
    for top in ("", "/memory", "/unified", "/pids", "/devices"):
        path = f"/sys/fs/cgroup{top}/evil"
        try:
            os.mkdir(path)
        except OSError as error:
            refused = error
        else:
            os.rmdir(path)
            return path
    raise refused


# -- process 1, which is the host's Python --------------------------------------------------------


for name in ("environ", "maps", "mem", "auxv", "syscall", "stack", "io"):
    ATTEMPTS[f"read /proc/1/{name}"] = lambda name=name: os.pread(os.open(f"/proc/1/{name}", os.O_RDONLY), 1, 0)
for name in ("exe", "root", "cwd", "ns/mnt", "ns/user", "ns/net"):
    ATTEMPTS[f"link /proc/1/{name}"] = lambda name=name: os.readlink(f"/proc/1/{name}")
for name in ("fd", "map_files", "fdinfo"):
    ATTEMPTS[f"list /proc/1/{name}"] = lambda name=name: os.listdir(f"/proc/1/{name}")


@attempt
def overwrite_the_program_of_process_1():
    return os.open("/proc/1/exe", os.O_WRONLY)


@attempt
def walk_through_the_root_of_process_1():
    return os.listdir("/proc/1/root/")


@attempt
def trace_process_1():
    return call("ptrace", 0x4206, 1, 0, 0)  # PTRACE_SEIZE


@attempt
def read_the_memory_of_process_1():
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("=QQ", ctypes.addressof(buffer), 8)
    return call("process_vm_readv", 1, local, 1, struct.pack("=QQ", 0x400000, 8), 1, 0)


@attempt
def kill_process_1():
    os.kill(1, signal.SIGKILL)
    os.kill(1, 0)
    raise OSError(errno.EALREADY, "it lives")


@attempt
def enter_the_namespaces_of_process_1():
    return call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)


@attempt
def overwrite_our_own_program():
    return os.open("/proc/self/exe", os.O_WRONLY)


@attempt
def trace_a_process_of_our_own():
    """That it can be done: a debugger's work."""
    child = os.fork()
    if child == 0:
        signal.pause()
    call("ptrace", 0x4206, child, 0, 0)
    os.kill(child, signal.SIGKILL)


# -- the way out of the root -----------------------------------------------------------------------


@attempt
def leave_by_a_second_chroot():
    """The oldest way: a root below the working folder, then up and up."""
    folder = f"/tmp/root-{os.getpid()}"
    os.mkdir(folder)
    os.chroot(folder)
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    if not os.path.exists(SECRET):
        raise OSError(errno.EXDEV, "still inside")
    return SECRET


@attempt
def leave_by_dots():
    if not os.path.exists("/" + "../" * 64 + SECRET.lstrip("/")):
        raise OSError(errno.ENOENT, SECRET)
    return SECRET


@attempt
def leave_by_descriptors():
    """One that init or whoever forked it has left open."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.path.exists(f"/proc/self/fd/{fd}/{SECRET}"):
                return fd
        except OSError:
            continue
    raise OSError(errno.ENOENT, SECRET)


@attempt
def leave_by_the_parents_working_folder():
    if os.path.exists(f"/proc/{os.getppid()}/cwd/{SECRET}") or os.path.exists(f"/proc/1/cwd/{SECRET}"):
        return SECRET
    raise OSError(errno.ENOENT, SECRET)


@attempt
def reach_the_hosts_abstract_socket():
    client = socket.socket(socket.AF_UNIX)
    client.connect("\0" + ABSTRACT)
    return "connected"


@attempt
def reach_the_hosts_loopback():
    socket.create_connection(("127.0.0.1", PORT), 5)
    return "connected"


@attempt
def see_other_processes():
    found = [n for n in os.listdir("/proc") if n.isdigit()]
    mine = {1, os.getpid(), os.getppid()}
    others = [n for n in found if int(n) not in mine]
    if others:
        return others
    raise OSError(errno.ESRCH, "none")


@attempt
def signal_a_process_of_the_host():
    os.kill(HOST_PID, 0)


@attempt
def write_a_system_program():
    return os.open("/usr/bin/env", os.O_WRONLY)


@attempt
def write_to_the_systems_folders():
    for folder in ("/usr", "/usr/lib", "/bin", "/usr/local/bin"):
        try:
            with open(f"{folder}/evil", "x"):
                return folder
        except OSError as error:
            refused = error
    raise refused


@attempt
def keys_of_who_started_us():
    """The session keyring and what is in it (KEYCTL_READ)."""
    buffer = ctypes.create_string_buffer(400)
    size = call("keyctl", 11, -3, buffer, 400)
    if not size:
        raise OSError(errno.ENOKEY, "empty")
    return size


def state():
    """What a tool that looks around reads of itself."""
    with open("/proc/self/status") as file:
        lines = dict(line.rstrip().split(":", 1) for line in file)
    kept = ("Cap", "NoNew", "Seccomp", "Groups")
    found: dict[str, Any] = {key: lines[key].strip() for key in lines if key.startswith(kept)}
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split() for line in file]
    found["mounts"] = [[m[4], *m[5].split(",")] for m in mounts]
    found["session"] = os.getsid(0) == os.getpid() or os.getsid(0) == os.getppid()
    os.umask(mask := os.umask(0))
    found["umask"] = mask
    found["descriptors"] = sorted(int(n) for n in os.listdir("/proc/self/fd"))
    writable = []
    for top in ("/proc/sys", "/sys", "/proc/irq", "/proc/fs", "/proc/bus"):
        for folder, folders, names in os.walk(top):
            if folder.count("/") > 4:
                folders.clear()
            for name in names:
                path = f"{folder}/{name}"
                if os.access(path, os.W_OK) and not os.path.islink(path):
                    writable.append(path)
    found["writable"] = writable
    return found


def outcome(function):
    """What became of an attempt, in a process of its own."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(10)
        try:
            text = f"ok {function()}"
        except OSError as error:
            text = errno.errorcode.get(error.errno or 0, str(error.errno))
        except BaseException as error:  # noqa: BLE001  # whatever else it is, the tests must see it
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    status = os.waitpid(child, 0)[1]
    return text or f"signal {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else text


def main():
    names = sys.argv[5:] or list(ATTEMPTS)
    found: dict[str, Any] = {name: outcome(ATTEMPTS[name]) for name in names}
    found["state"] = state()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
