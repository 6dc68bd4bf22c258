"""What is tried from inside a container: files, processes and ways out; and the program that tries all.

Each attempt is made in a process of its own. Printed is a JSON object from the attempts' names to `ok` (with what was
got), the name of an errno, `signal N`, or what else happened.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys
import time
from typing import Any

from support.inside.calls import ABSTRACT, ATTEMPTS, HOST_PID, PORT, SECRET, attempt, call


def content(path: str) -> int:
    """How many bytes a file has; an empty one and an empty folder count as hidden."""
    if os.path.isdir(path):
        found = len(os.listdir(path))
    else:
        with open(path, "rb") as file:
            found = len(file.read(4096))
    if not found:
        raise OSError(errno.ENODATA, path)
    return found


def writing(path: str) -> None:
    """Open for writing, which is what a read-only mount refuses; nothing that changes the machine is written."""
    os.close(os.open(path, os.O_WRONLY))


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
def list_cgroups() -> Any:
    """The names of cgroups below what is shown."""
    content("/sys/fs/cgroup")
    return [name for name in os.listdir("/sys/fs/cgroup") if os.path.isdir(f"/sys/fs/cgroup/{name}")]


@attempt
def write_a_cgroup_file() -> Any:
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
def make_a_cgroup() -> Any:
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
def overwrite_the_program_of_process_1() -> Any:
    return os.open("/proc/1/exe", os.O_WRONLY)


@attempt
def walk_through_the_root_of_process_1() -> Any:
    return os.listdir("/proc/1/root/")


@attempt
def trace_process_1() -> Any:
    return call("ptrace", 0x4206, 1, 0, 0)  # PTRACE_SEIZE


@attempt
def read_the_memory_of_process_1() -> Any:
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("=QQ", ctypes.addressof(buffer), 8)
    return call("process_vm_readv", 1, local, 1, struct.pack("=QQ", 0x400000, 8), 1, 0)


@attempt
def kill_process_1() -> Any:
    os.kill(1, signal.SIGKILL)
    os.kill(1, 0)
    raise OSError(errno.EALREADY, "it lives")


@attempt
def enter_the_namespaces_of_process_1() -> Any:
    return call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)


@attempt
def overwrite_our_own_program() -> Any:
    return os.open("/proc/self/exe", os.O_WRONLY)


@attempt
def trace_a_process_of_our_own() -> Any:
    """That it can be done: a debugger's work."""
    child = os.fork()
    if child == 0:
        signal.pause()
    call("ptrace", 0x4206, child, 0, 0)
    os.kill(child, signal.SIGKILL)


# -- the way out of the root -----------------------------------------------------------------------


@attempt
def leave_by_a_second_chroot() -> Any:
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
def leave_by_dots() -> Any:
    if not os.path.exists("/" + "../" * 64 + SECRET.lstrip("/")):
        raise OSError(errno.ENOENT, SECRET)
    return SECRET


@attempt
def leave_by_descriptors() -> Any:
    """One that init or whoever forked it has left open."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.path.exists(f"/proc/self/fd/{fd}/{SECRET}"):
                return fd
        except OSError:
            continue
    raise OSError(errno.ENOENT, SECRET)


@attempt
def leave_by_the_parents_working_folder() -> Any:
    if os.path.exists(f"/proc/{os.getppid()}/cwd/{SECRET}") or os.path.exists(f"/proc/1/cwd/{SECRET}"):
        return SECRET
    raise OSError(errno.ENOENT, SECRET)


@attempt
def reach_the_hosts_abstract_socket() -> Any:
    client = socket.socket(socket.AF_UNIX)
    client.connect("\0" + ABSTRACT)
    return "connected"


@attempt
def reach_the_hosts_loopback() -> Any:
    socket.create_connection(("127.0.0.1", PORT), 5)
    return "connected"


@attempt
def see_other_processes() -> Any:
    mine = {1, os.getpid(), os.getppid()}
    deadline = time.monotonic() + 5
    while others := [n for n in os.listdir("/proc") if n.isdigit() and int(n) not in mine]:
        if time.monotonic() > deadline:  # until then it may be what an attempt before has left to init to reap
            return others
        time.sleep(0.01)
    raise OSError(errno.ESRCH, "none")


@attempt
def signal_a_process_of_the_host() -> Any:
    os.kill(HOST_PID, 0)


@attempt
def write_a_system_program() -> Any:
    return os.open("/usr/bin/env", os.O_WRONLY)


@attempt
def write_to_the_systems_folders() -> Any:
    for folder in ("/usr", "/usr/lib", "/bin", "/usr/local/bin"):
        try:
            with open(f"{folder}/evil", "x"):
                return folder
        except OSError as error:
            refused = error
    raise refused


@attempt
def keys_of_who_started_us() -> Any:
    """The session keyring and what is in it (KEYCTL_READ)."""
    buffer = ctypes.create_string_buffer(400)
    size = call("keyctl", 11, -3, buffer, 400)
    if not size:
        raise OSError(errno.ENOKEY, "empty")
    return size


def state() -> Any:
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


def outcome(function: Any) -> str:
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


def main() -> Any:
    names = sys.argv[5:] or list(ATTEMPTS)
    found: dict[str, Any] = {name: outcome(ATTEMPTS[name]) for name in names}
    found["state"] = state()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
