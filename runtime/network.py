"""How a container is connected: which mode, by what means, and what its resolver and hosts(5) say.

Modes: `none` has a loopback interface alone; `host` shares the machine's network; `nat` has an interface of its own
with a way out, by veth(4) and nftables for who may administer the machine's network, else by pasta(1) or
slirp4netns(1) as the user. Where nothing was asked for it is `nat` if that can be had, else `host`, with a notice.
"""

from __future__ import annotations

import os

from nbhull.runtime import usermap
from nbhull.runtime.errors import HostUnable, InvalidInput, SyscallFailed
from nbhull.runtime.lean import Lock, socket
from nbhull.runtime.linux.process import has_capability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.linux.nftables import Tables
    from nbhull.runtime.model import ContainerSpec, Network, Port

MODES: tuple[Network, ...] = ("host", "nat", "none")
"""from the widest to the narrowest"""

FORWARDER = "192.0.0.53"
"""pasta's address for the machine's first IPv4 resolver, in a range for protocols (RFC 6890) that nothing else uses"""
SLIRP_RESOLVER = "10.0.2.3"
"""the same of slirp4netns, which has it built in"""
POOLS = [f"10.{number}" for number in range(88, 128)]
"""beginnings of the ranges of 65,536 addresses that veth containers are given theirs from"""
ROUTE_PROTOCOL = 110
"""marks our own routes (rtm_protocol of rtnetlink(7); from 4 on they are the administrator's to define)"""
TUN = "/dev/net/tun"


class Means:
    """By what `nat` can be had on this machine, or why it cannot."""

    def __init__(self, method: str, reason: str = "", mend: str = "") -> None:
        self.method = method
        """`veth`, `pasta` or `slirp4netns`; empty where there is none"""
        self.reason = reason
        """why not, without a full stop"""
        self.mend = mend
        """a key of `mend_of`"""


class Plan:
    """How one start of a container is connected."""

    def __init__(self, mode: str, method: str = "", notice: str = "", **details: Any) -> None:
        self.mode = mode
        self.method = method
        self.notice = notice
        """for who started it; empty if it got what it asked for"""
        self.details = details

    def request(self) -> dict[str, Any]:
        """What the launcher needs to know; equal for two starts that one prepared network serves."""
        return {"mode": self.mode, "method": self.method, **self.details}


def plan(spec: ContainerSpec, fallback: str = "host") -> Plan:
    """How a container is connected if it starts now. Raises HostUnable when `nat` was asked for and cannot be
    had; `fallback`: the mode in its place where nothing was asked for."""
    if spec.network in ("host", "none"):
        return Plan(spec.network)
    means = find_means()
    if means.method == "slirp4netns" and spec.publish:
        means = Means("", "slirp4netns publishes no ports", "pasta")
    if means.method:
        return Plan("nat", means.method, **details(means.method, spec.publish))
    if spec.network == "nat" or spec.publish:
        raise HostUnable(f"a network of its own cannot be had: {means.reason}", mend_of(means))
    where = "this machine's own network" if fallback == "host" else "no network"
    hint = f" To mend it: {mend_of(means)}" if means.mend else ""
    return Plan(
        fallback, notice=f"The container has {where}, since one of its own cannot be had: {means.reason}.{hint}"
    )


def details(method: str, publish: tuple[Port, ...]) -> dict[str, Any]:
    """What a method needs to know of the machine."""
    known: dict[str, Any] = {"publish": [[p.address, p.outside, p.inside, p.protocol] for p in publish]}
    first = next((server for server in host_resolvers() if ":" not in server), "")
    if method == "veth":
        pool = free_pool()
        return {**known, "pool": pool, "resolver": first, "uplinks": uplinks()[0]}
    ipv4, ipv6 = uplinks()
    return {**known, "resolver": first, "uplinks": [*ipv4, *ipv6]}


def find_means() -> Means:
    """By what `nat` can be had; looked up anew each time, since it costs less than a millisecond."""
    if has_capability("NET_ADMIN"):
        refused = why_no_veth()
        if not refused:
            return Means("veth")
    else:
        refused = ""
    programs = ("slirp4netns",) if has_capability("SYS_ADMIN") else ("pasta", "slirp4netns")
    program = next((name for name in programs if usermap.which(name)), "")
    reasons = f"{refused}; and " if refused else ""
    if not program:
        return Means("", f"{reasons}there is no {' or '.join(programs)}", programs[0])
    if refused_tun := why_no_tun():
        return Means("", reasons + refused_tun, "tun")
    if not any(uplinks()):
        return Means("", f"{reasons}this machine has no default route", "")
    return Means(program)


class Probe:
    """What tells whether nftables can be used, for a `with` that has it alone.

    Its socket stays open: the kernel closes one of nftables' only after the tables that others have just given up have
    gone, which takes grace periods."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.tables: Tables | None = None
        self.pid = 0

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self.tables is not None:
            self.tables.close()
            self.tables = None
        self.lock.release()

    def dropping_forward(self) -> str:
        """As `Tables.dropping_forward`. Raises what `Tables.probe` does, and OSError."""
        from nbhull.runtime.linux.nftables import Tables

        if self.pid != os.getpid():  # a fork would share it with its parent, or has closed it
            if self.tables is not None:
                self.tables.socket.detach()
            self.tables, self.pid = None, os.getpid()
        if self.tables is None:
            self.tables = Tables()
        self.tables.probe()
        return self.tables.dropping_forward()


PROBE = Probe()


def why_no_veth() -> str:
    """Why this process cannot filter with nftables; empty if it can."""
    try:
        with PROBE:
            foreign = PROBE.dropping_forward()
    except (SyscallFailed, OSError) as error:
        return f"nftables cannot be used: {os.strerror(error.errno or 0)}"
    if foreign:
        return f"a firewall of this machine drops what is forwarded (table {foreign})"
    return ""


def why_no_tun() -> str:
    """Why a helper in a container's user namespace could not open the tun device; empty if it could."""
    try:
        status = os.stat(TUN)
    except FileNotFoundError:
        return f"there is no {TUN}"
    # Root's containers have other ids, so for them only what the device allows to all counts.
    if status.st_mode & 0o006 == 0o006 or (not has_capability("SYS_ADMIN") and os.access(TUN, os.R_OK | os.W_OK)):
        return ""
    return f"{TUN} is not open to all users"


def mend_of(means: Means) -> str:
    """The line that makes `nat` possible."""
    from nbhull.runtime.doctor import mending

    if means.mend == "tun":
        return mending.tun_device()
    return mending.install(means.mend) if means.mend else "choose another network: --network host"


def uplinks() -> tuple[list[str], list[str]]:
    """The interfaces of the IPv4 and the IPv6 default routes, from /proc/net/route and ipv6_route."""
    ipv4, ipv6 = [], []
    for line in read_lines("/proc/net/route")[1:]:
        fields = line.split()
        if len(fields) > 7 and fields[1] == "00000000" == fields[7]:
            ipv4.append(fields[0])
    for line in read_lines("/proc/net/ipv6_route"):
        fields = line.split()
        if len(fields) == 10 and fields[0] == "0" * 32 and fields[1] == "00" and fields[9] != "lo":
            ipv6.append(fields[9])
    return ipv4, ipv6


def free_pool() -> str:
    """The beginning (two bytes) of a range of addresses that none of the machine's routes leads to."""
    from nbhull.runtime.linux.netlink import Routes

    with Routes() as table:
        routes = [
            (route.destination, route.prefix)
            for route in table.routes(socket.AF_INET)
            if route.prefix and route.protocol != ROUTE_PROTOCOL
        ]
    for pool in POOLS:
        first = int.from_bytes(socket.inet_aton(f"{pool}.0.0"), "big")
        gateway = first + 1
        if not any(
            number != gateway and number >> 32 - min(prefix, 16) == first >> 32 - min(prefix, 16)
            for number, prefix in routes
        ):
            return pool
    raise HostUnable(
        f"all of {POOLS[0]}.0.0/16 to {POOLS[-1]}.0.0/16 lie on routes of this machine", "remove one of its routes"
    )


# -- what a container reads of its network ---------------------------------------------------------


def resolv_conf(network: Plan, dns: tuple[str, ...]) -> str:
    """The container's resolv.conf(5): the servers of `dns`, else those of the machine, which a forwarder reaches
    even if they listen on the machine's loopback alone (as systemd-resolved does)."""
    lines = read_lines("/etc/resolv.conf")
    kept = [line for line in lines if line.split()[:1] and line.split()[0] in ("search", "domain", "options")]
    if dns:
        servers = list(dns)
    elif network.mode == "none":
        return ""
    elif network.mode == "host":
        return "".join(f"{line}\n" for line in lines)
    elif network.method == "slirp4netns":
        servers = [SLIRP_RESOLVER]
    else:
        forwarder = FORWARDER if network.method == "pasta" else f"{network.details['pool']}.0.1"
        first = network.details["resolver"]
        others = [s for s in host_resolvers() if s != first and not is_loopback(s)]
        if network.method == "veth":
            others = [s for s in others if ":" not in s]
        servers = [*([forwarder] if first else []), *others]
    return "".join(f"{line}\n" for line in [*kept, *(f"nameserver {server}" for server in servers[:3])])


def hosts(network: Plan, hostname: str, extra: tuple[tuple[str, str], ...]) -> str:
    """The container's hosts(5); `extra`: pairs of a name and an address."""
    added = "".join(f"{address}\t{name}\n" for name, address in extra)
    if network.mode == "host":
        return f"{added}127.0.1.1\t{hostname}\n" + "".join(f"{line}\n" for line in read_lines("/etc/hosts"))
    return f"{added}127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def host_resolvers() -> list[str]:
    """The name servers of the machine's resolv.conf(5)."""
    fields = (line.split() for line in read_lines("/etc/resolv.conf"))
    return [field[1] for field in fields if len(field) > 1 and field[0] == "nameserver"]


def is_loopback(address: str) -> bool:
    """Whether an address is the machine's own loopback."""
    return address.startswith("127.") or address == "::1"


def read_lines(path: str) -> list[str]:
    """The lines of a text file; none if there is no such file."""
    try:
        with open(path) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


# -- what may be asked for -------------------------------------------------------------------------


def check(spec: ContainerSpec) -> None:
    """Refuse what no machine could do. Raises InvalidInput."""
    if spec.network not in (None, *MODES):
        raise InvalidInput(f"there is no network {spec.network!r}", f"choose {', '.join(MODES[:-1])} or {MODES[-1]}")
    if spec.publish and spec.network in ("host", "none"):
        raise InvalidInput(
            f"ports are published from a network of the container's own, not from {spec.network!r}",
            "choose the network nat, or leave the ports out",
        )
    for server in spec.dns:
        check_address(server, "name server")
    for _, address in spec.hosts:
        check_address(address, "host's address")


def check_address(address: str, what: str) -> None:
    """Raises InvalidInput unless it is an IPv4 or IPv6 address."""
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    except (OSError, ValueError):
        raise InvalidInput(f"the {what} {address!r} is not an address", "write it like 192.0.2.1") from None
