"""Probes of what containers may use: limits by cgroups, networks."""

from __future__ import annotations

import fcntl
import os
import struct

from nbhull.runtime import cgroups, network
from nbhull.runtime.doctor import mending
from nbhull.runtime.doctor.attempt import attempt
from nbhull.runtime.doctor.findings import Finding
from nbhull.runtime.doctor.namespaces import attempt_as_root, mend_of
from nbhull.runtime.errors import HostUnable
from nbhull.runtime.linux import netlink, nftables
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
    """A network namespace, and by what it could be connected: rules of nftables that are made in one, or a tun device
    and a helper."""

    def make_namespace() -> str:
        linux.unshare(linux.CLONE_NEWNET)
        linux.raise_loopback()
        return ""

    none = attempt_as_root(make_namespace)
    if not none.succeeded:
        return Finding("network", "partly", f"only 'host' works: {none.message}", mend_of(none))
    means = network.find_means()
    attempted = attempt(try_veth) if means.method == "veth" else attempt_as_root(try_tun)
    if means.method and not attempted.succeeded:
        means = network.Means("", attempted.message)
    if not means.method:
        mend = network.mend_of(means) if means.mend else ""
        return Finding("network", "partly", f"'host' and 'none' work, 'nat' does not: {means.reason}", mend)
    ways = {
        "veth": "veth and nftables; the machine forwards IPv4 while containers need it",
        "slirp4netns": "slirp4netns; pasta is quicker and publishes ports",
    }
    return Finding("network", "yes", f"'nat' works, by {ways.get(means.method, means.method)}")


def try_veth() -> str:
    """A veth pair into another namespace, and a table like a container's, in a network namespace of our own."""
    linux.unshare(linux.CLONE_NEWNET)
    with open("/proc/self/ns/net") as inside, netlink.Routes() as routes, nftables.Tables() as tables:
        routes.add_veth("nbhdoctor", "eth0", inside.fileno())
        chain = nftables.Chain("postrouting", "nat", nftables.POSTROUTING, nftables.SRCNAT)
        chain.add(nftables.source(bytes(4)), nftables.masquerade())
        tables.add_table("nbhull-doctor", [chain])
    return ""


def try_tun() -> str:
    """A tun device in a network namespace."""
    linux.unshare(linux.CLONE_NEWNET)
    device = os.open(network.TUN, os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("@16sH22x", b"nbhull0", IFF_TUN | IFF_NO_PI))
    os.close(device)
    return ""
