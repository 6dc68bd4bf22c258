"""Probes of what containers may use: limits by cgroups, networks."""

from __future__ import annotations

import fcntl
import os
import struct

from nbhull.runtime import cgroups, cores, network
from nbhull.runtime.doctor import mending
from nbhull.runtime.doctor.attempt import attempt
from nbhull.runtime.doctor.findings import Finding
from nbhull.runtime.doctor.namespaces import attempt_as_root, mend_of
from nbhull.runtime.linux import netlink, nftables
from nbhull.runtime.linux import process as linux

LIMITS = {"memory": "memory", "cpu": "cpus", "cpuset": "cpuset", "pids": "pids", "io": "io"}
"""the limit that needs each controller"""
NEEDED = ("memory", "cpu", "pids")
"""those without which something is amiss; the others are seldom wanted"""
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def probe_cgroups() -> Finding:
    """A group that is made with every limit that can be had, and removed."""
    outcome = attempt(try_cgroups)
    if not outcome.succeeded:
        return Finding("cgroups", "no", outcome.message, outcome.hint)
    works, seen, cause = outcome.answer.split("\n")
    return Finding("cgroups", "yes" if works else "partly", seen, "" if works else mending.cgroup_controllers(cause))


def try_cgroups() -> str:
    """In a child, which systemd may move to another group: whether all is there, what was seen, what is missing."""
    hierarchies = cgroups.probe()
    how = "systemd" if hierarchies.unclaimed else "v2"
    hierarchies.claim([os.getpid()])
    have = [name for name in LIMITS if name in hierarchies.places]
    group = cgroups.create(hierarchies, f"doctor-{os.getpid()}")
    try:
        values = {"memory": 1 << 26, "cpu": 1.0, "cpuset": cgroups.read(cores.ONLINE).strip() or "0", "pids": 10}
        group.configure({LIMITS[name]: values[name] for name in have if name in values})
    finally:
        group.remove()
    ways = {1: "v1", 2: "v2 by systemd" if how == "systemd" else "v2"}
    versions = dict.fromkeys(ways[hierarchies.places[name].version] for name in have)
    told = []
    for way in versions:
        names = [LIMITS[name] for name in have if ways[hierarchies.places[name].version] == way]
        told.append(f"{way}: limits of {', '.join(names)}")
    missing = [name for name in LIMITS if name not in have]
    works = not any(name in NEEDED for name in missing)
    if missing:
        told.append(f"no limits of {', '.join(LIMITS[name] for name in missing)}: {hierarchies.reason}")
    return "\n".join(("yes" if works else "", "; ".join(told), hierarchies.cause))


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
