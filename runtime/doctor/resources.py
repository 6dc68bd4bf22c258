"""Probes of what containers may use: limits by cgroups, networks."""

from __future__ import annotations

import fcntl
import os
import struct

from nbhull.runtime import cgroups, usermap
from nbhull.runtime.doctor import mending
from nbhull.runtime.doctor.findings import Finding
from nbhull.runtime.doctor.namespaces import attempt_as_root, mend_of
from nbhull.runtime.errors import HostUnable
from nbhull.runtime.linux import process as linux

LIMITS = {"memory": "memory", "cpu": "cpus", "pids": "pids"}
"""the limit that needs each controller"""
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def probe_cgroups() -> Finding:
    """A group that is made with every limit that can be had, and removed."""
    hierarchies = cgroups.probe()
    missing = [controller for controller in LIMITS if controller not in hierarchies.folders]
    memory = None if "memory" in missing else 1 << 26
    cpus = None if "cpu" in missing else 1.0
    pids = None if "pids" in missing else 10
    try:
        group = cgroups.create(hierarchies, f"doctor-{os.getpid()}")
        try:
            cgroups.configure(group, memory, cpus, pids)
        finally:
            group.remove()
    except HostUnable as error:
        return Finding("cgroups", "no", error.message, mend_cgroups(hierarchies))
    have = ", ".join(LIMITS[controller] for controller in LIMITS if controller not in missing)
    if not missing:
        return Finding("cgroups", "yes", f"v{hierarchies.version}: limits of {have}")
    lack = ", ".join(LIMITS[controller] for controller in missing)
    seen = f"no limits of {lack}: {hierarchies.reason}"
    if have:
        seen = f"v{hierarchies.version}: limits of {have}; {seen}"
    return Finding("cgroups", "partly", seen, mend_cgroups(hierarchies))


def mend_cgroups(hierarchies: cgroups.Hierarchies) -> str:
    """What gives this user the missing controllers."""
    mounts = cgroups.read_mounts()
    if not mounts:
        return f"{mending.sudo()}mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    if set(mounts) == {"unified"}:
        return mending.delegation()
    return mending.unified_cgroups()


def probe_network() -> Finding:
    """A network namespace, a tun device in it, and a helper that connects the two to the outside."""

    def make_namespace() -> str:
        linux.unshare(linux.CLONE_NEWNET)
        linux.raise_loopback()
        return ""

    def make_tun() -> str:
        linux.unshare(linux.CLONE_NEWNET)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("@16sH22x", b"nbhull0", IFF_TUN | IFF_NO_PI))
        os.close(device)
        return ""

    none = attempt_as_root(make_namespace)
    if not none.succeeded:
        return Finding("network", "partly", f"only 'host' works: {none.message}", mend_of(none))
    seen = "'host' and 'none' work"
    helper = usermap.which("pasta") or usermap.which("slirp4netns")
    if not helper:
        return Finding(
            "network",
            "partly",
            f"{seen}; no pasta or slirp4netns for networks of their own",
            mending.install("pasta"),
        )
    tun = attempt_as_root(make_tun)
    if not tun.succeeded:
        return Finding(
            "network",
            "partly",
            f"{seen}; no tun device for networks of their own: {tun.message}",
            mending.tun_device(),
        )
    return Finding("network", "yes", f"{seen}; {os.path.basename(helper)} and tun are there")
