"""Probes of what a container is made of: Linux itself, user namespaces, ids, seccomp."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

from nbhull.runtime import usermap
from nbhull.runtime.doctor import mending
from nbhull.runtime.doctor.attempt import Outcome, attempt
from nbhull.runtime.doctor.findings import Finding
from nbhull.runtime.errors import HostUnable
from nbhull.runtime.linux import libc, mount
from nbhull.runtime.linux import process as linux

OLDEST = (5, 11)
"""the first Linux whose overlayfs may be mounted in a user namespace"""
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
SECCOMP_RET_ALLOW = 0x7FFF0000
BPF_RET_K = 0x06


def probe_linux() -> Finding:
    """The kernel's version and architecture."""
    system = os.uname()
    seen = f"Linux {system.release}, {system.machine}"
    numbers = [
        int("".join(filter(str.isdigit, part)) or 0) for part in system.release.split("-")[0].split(".")[:2]
    ]
    if tuple(numbers) < OLDEST:
        return Finding("linux", "no", seen, mending.linux("5.11"))
    if system.machine not in libc.PIVOT_ROOT:
        return Finding("linux", "no", seen, "use a machine with an x86-64 or arm64 processor")
    return Finding("linux", "yes", seen)


def probe_user_namespaces() -> Finding:
    """A user namespace whose root can use its abilities: it mounts something in a mount namespace."""

    def use_abilities() -> str:
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)
        mount.set_propagation(mount.MS_REC | mount.MS_PRIVATE)
        os.close(mount.make_filesystem("tmpfs"))
        return ""

    outcome = attempt_as_root(use_abilities)
    if outcome.succeeded:
        return Finding("user namespaces", "yes", "made one, and mounted in it")
    return Finding("user namespaces", "no", outcome.message, mend_of(outcome))


def probe_ids() -> Finding:
    """The ids that containers get, really written into a new user namespace."""
    name = "user ids"
    user_map = usermap.plan()
    if user_map.strategy == "single":
        return Finding(
            name,
            "partly",
            f"only one id, {os.getuid()}: files of other owners and 'apt install' do not work in containers",
            mending.subordinate_ids(),
        )

    def read_map() -> str:
        with open("/proc/self/uid_map") as file:
            return str(sum(int(line.split()[2]) for line in file))

    try:
        outcome = attempt(read_map, lambda child: usermap.write(user_map, child))
    except HostUnable as error:
        return Finding(name, "no", error.message, mending.subordinate_ids() or error.hint)
    if not outcome.succeeded:
        return Finding(name, "no", outcome.message, mend_of(outcome))
    way = "written directly" if user_map.strategy == "direct" else "by newuidmap"
    seen = f"{outcome.answer} ids from {user_map.uids[-1][1]} on, {way}"
    if user_map.width < usermap.WIDTH:
        return Finding(name, "partly", f"{seen}; images use up to {usermap.WIDTH}", mending.subordinate_ids())
    return Finding(name, "yes", seen)


def probe_seccomp() -> Finding:
    """A filter of system calls that is put on for real (it allows all)."""

    def put_on() -> str:
        linux.prctl("PR_SET_NO_NEW_PRIVS", linux.PR_SET_NO_NEW_PRIVS, 1)
        program = ctypes.create_string_buffer(struct.pack("=HBBI", BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW))
        filter_program = ctypes.create_string_buffer(struct.pack("@HP", 1, ctypes.addressof(program)))
        linux.prctl("PR_SET_SECCOMP", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(filter_program))
        return mending.status_field("Seccomp")

    outcome = attempt(put_on)
    if not outcome.succeeded:
        return Finding("seccomp", "no", outcome.message, mend_of(outcome))
    return Finding("seccomp", "yes", "put a filter of system calls on")


def attempt_as_root(function: Callable[[], str]) -> Outcome:
    """Attempt something as the root of a new user namespace, in which only this user exists."""

    def with_map() -> str:
        uid, gid = os.geteuid(), os.getegid()
        linux.unshare(linux.CLONE_NEWUSER)
        linux.write_file("/proc/self/setgroups", "deny")
        linux.write_file("/proc/self/uid_map", f"0 {uid} 1")
        linux.write_file("/proc/self/gid_map", f"0 {gid} 1")
        return function()

    return attempt(with_map)


def mend_of(outcome: Outcome) -> str:
    """The line that mends a failed attempt, or what the failure itself advises."""
    return mending.explain(outcome.call, outcome.errno, outcome.subject) or outcome.hint
