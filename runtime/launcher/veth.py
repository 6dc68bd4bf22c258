"""Root's way out for a container: a veth(4) pair, a route to it, and a table of nftables' that translates and guards.

Each container's end has an address of its own and one neighbour, the gateway, which is the same address on every
other end. The kernel's routing table is the register of the addresses that are taken. Interface, route and table
end with the container's namespace and the launcher's socket, also if both are killed; what could stay, a forwarding
switched on, is written down in the launcher's folder for the next launcher's sweep.
"""

from __future__ import annotations

import os

from nbhull.runtime import cgroups
from nbhull.runtime.errors import HostUnable
from nbhull.runtime.launcher.child import close_later
from nbhull.runtime.launcher.connection import FORWARDING, INTERFACE, UP, Connection
from nbhull.runtime.lean import socket
from nbhull.runtime.linux import netlink, nftables
from nbhull.runtime.linux import process as linux
from nbhull.runtime.linux.nftables import EQUAL, IIF, NF_ACCEPT, NF_DROP, OIF, OIFNAME, UNEQUAL, Chain
from nbhull.runtime.network import ROUTE_PROTOCOL, is_loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = b"nbh"
"""of our interfaces' names; no more than 15 bytes are allowed"""
TABLE = "nbhull"
ATTEMPTS = 1000


class Veth(Connection):
    """A container's veth pair."""

    def __init__(self, request: dict[str, Any], folder: str) -> None:
        super().__init__(request, folder)
        self.name = f"{PREFIX.decode()}{os.urandom(5).hex()}"
        self.tables: nftables.Tables | None = None
        self.gateway = f"{request['pool']}.0.1"
        self.address = ""

    def attach(self, userns: int, netns: int) -> None:
        switched = switch_forwarding_on(self.folder)
        with netlink.Routes() as routes:
            alias = FORWARDING if switched else ""
            routes.add_veth(self.name, INTERFACE, netns, alias, mtu_of(self.request["uplinks"]))
            index = socket.if_nametoindex(self.name)
            set_up_interface(self.name, loopback=bool(self.request["publish"]) or is_loopback(self.request["resolver"]))
            routes.raise_link(index)  # the other end is down until the rules stand
            self.address = take_address(routes, self.request["pool"], index)
            self.tables = nftables.Tables()
            self.tables.add_table(f"{TABLE}-{self.name}", self.rules(index, switched))
            routes.add_address(index, self.gateway, 32)
        configure(netns, self.address, self.gateway)
        self.settle(UP)

    def rules(self, index: int, switched: bool) -> list[Chain]:
        """The container's chains: it reaches what the machine reaches, but neither the machine itself, nor another
        container, nor link-local addresses; nobody reaches it but through published ports, and the machine."""
        own = socket.inet_aton(self.address)
        arrives, leaves = nftables.interface(IIF, index), nftables.interface(OIF, index)
        answer = nftables.ct(nftables.CT_STATE, nftables.ESTABLISHED | nftables.RELATED)
        translated = nftables.ct(nftables.CT_STATUS, nftables.IPS_DST_NAT)
        accept, drop, reject = nftables.verdict(NF_ACCEPT), nftables.verdict(NF_DROP), nftables.reject()
        to_container = nftables.meta(OIFNAME, PREFIX)

        guard = Chain("input", "filter", nftables.INPUT, nftables.FILTER)
        guard.add(arrives, answer, accept)
        guard.add(arrives, translated, accept)
        guard.add(arrives, reject)

        forward = Chain("forward", "filter", nftables.FORWARD, nftables.FILTER)
        forward.add(arrives, nftables.source(own, UNEQUAL), drop)
        forward.add(arrives, answer, accept)
        forward.add(arrives, translated, accept)
        forward.add(arrives, to_container, reject)
        forward.add(arrives, nftables.destination(socket.inet_aton("169.254.0.0")[:2]), reject)
        forward.add(leaves, answer, accept)
        forward.add(leaves, translated, accept)
        forward.add(leaves, drop)
        if switched:  # the machine forwards for containers alone
            not_from_container = nftables.meta(nftables.IIFNAME, PREFIX, UNEQUAL)
            forward.add(not_from_container, nftables.meta(OIFNAME, PREFIX, UNEQUAL), drop)

        after = Chain("postrouting", "nat", nftables.POSTROUTING, nftables.SRCNAT)
        after.add(nftables.source(own), nftables.interface(OIF, index, UNEQUAL), nftables.masquerade())
        after.add(leaves, nftables.source(b"\x7f"), nftables.masquerade())

        before = Chain("prerouting", "nat", nftables.PREROUTING, nftables.DSTNAT)
        local = Chain("output", "nat", nftables.OUTPUT, nftables.DSTNAT)
        if self.request["resolver"]:
            resolver, gateway = socket.inet_aton(self.request["resolver"]), socket.inet_aton(self.gateway)
            for protocol in ("udp", "tcp"):
                asked = nftables.destination(gateway, EQUAL) + nftables.destination_port(protocol, 53)
                before.add(arrives, asked, nftables.dnat(resolver, 53))
        for address, outside, inside, protocol in self.request["publish"]:
            there = nftables.destination(socket.inet_aton(address)) if address else nftables.ip4() + nftables.is_local()
            for chain in (before, local):
                chain.add(there, nftables.destination_port(protocol, outside), nftables.dnat(own, inside))
        return [guard, forward, after, before, local]

    def close(self) -> None:
        super().close()
        if self.tables is not None:
            close_later([self.tables.socket.detach()])
            self.tables = None


def set_up_interface(name: str, *, loopback: bool) -> None:
    """Prepare the machine's end; `loopback`: have it carry packets of the machine's loopback addresses too, which the
    rules then allow for published ports and the resolver alone."""
    ipv4 = f"/proc/sys/net/ipv4/conf/{name}"
    if loopback:
        linux.write_file(f"{ipv4}/route_localnet", "1")
    ipv6 = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
    if os.path.exists(ipv6):
        linux.write_file(ipv6, "1")  # else every service of the machine is there on a link-local address


def take_address(routes: netlink.Routes, pool: str, index: int) -> str:
    """An address of the pool that no other container has: the one to which a route can be made."""
    for _ in range(ATTEMPTS):
        number = 2 + int.from_bytes(os.urandom(4), "big") % 65533
        address = f"{pool}.{number >> 8}.{number & 255}"
        if routes.add_route(address, 32, index=index, protocol=ROUTE_PROTOCOL):
            return address
    raise HostUnable(f"the addresses of {pool}.0.0/16 are used up", "remove containers")


def configure(netns: int, address: str, gateway: str) -> None:
    """Inside of the container's network namespace: its address, and the way out."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        linux.setns(netns, linux.CLONE_NEWNET)
        try:
            inside = netlink.Routes()
            index = socket.if_nametoindex(INTERFACE)
        finally:
            linux.setns(own, linux.CLONE_NEWNET)
    finally:
        os.close(own)
    with inside:
        inside.raise_link(index)
        inside.add_address(index, address, 32)
        inside.add_route(gateway, 32, index=index)
        inside.add_route("0.0.0.0", 0, index=index, gateway=gateway)


# -- forwarding ------------------------------------------------------------------------------------

SWITCH = "/proc/sys/net/ipv4/ip_forward"
"""whether the machine forwards between its interfaces (ip-sysctl.rst of the kernel's documentation)"""


def switch_forwarding_on(folder: str) -> bool:
    """Have the machine forward; whether that is nbhull's doing, so that it ends with the last container that needs
    it, and until then serves containers alone."""
    with netlink.Routes() as routes:
        ours = bool(users_of_forwarding(routes))
    if not ours and cgroups.read(SWITCH).strip() == "1":
        return False
    if not os.path.exists(f"{folder}/{FORWARDING}"):
        with open(f"{folder}/{FORWARDING}", "x"):
            pass
    linux.write_file(SWITCH, "1")
    return True


def users_of_forwarding(routes: netlink.Routes) -> set[int]:
    """Our interfaces that say in their alias that forwarding is nbhull's doing."""
    return {i for i, name, alias in routes.links() if name.encode().startswith(PREFIX) and alias == FORWARDING}


def switch_forwarding_off() -> None:
    """After the end of a launcher that switched it on: undo it, unless another launcher's container needs it still.

    The launcher's own interfaces may be there for a moment yet, but no route leads to them any more."""
    with netlink.Routes() as routes:
        busy = {route.index for route in routes.routes(socket.AF_INET) if route.protocol == ROUTE_PROTOCOL}
        if not busy & users_of_forwarding(routes):
            linux.write_file(SWITCH, "0")


def mtu_of(interfaces: list[str]) -> int:
    """The largest packet that all of them take; 0 where there is none."""
    return min((int(cgroups.read(f"/sys/class/net/{interface}/mtu")) for interface in interfaces), default=0)
