"""Links, addresses and routes by rtnetlink(7), and the messages that nftables takes too (netlink(7))."""

from __future__ import annotations

import errno as errors
import os
import struct

from nbhull.runtime.errors import SyscallFailed
from nbhull.runtime.lean import Socket, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
NLM_F_DUMP, NLM_F_APPEND = 0x300, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED = 0x8000
SOL_NETLINK, NETLINK_EXT_ACK = 270, 11
NLM_F_CAPPED, NLM_F_ACK_TLVS, NLMSGERR_ATTR_MSG = 0x100, 0x200, 1

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_GETROUTE = 16, 18, 20, 24, 26
IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_NET_NS_FD = 3, 4, 18, 20, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_NODAD = 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, RTN_UNICAST, RTN_UNREACHABLE = 254, 1, 7
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
RTPROT_STATIC = 4
RTNH_F_ONLINK = 4
IFF_UP = 0x1

BUFFER = 1 << 16
"""bytes of the largest answer; the kernel's dumps come in packets of at most 32 KiB"""


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("=HH", len(data) + 4, kind) + data + bytes(-len(data) % 4)


def text(kind: int, value: str) -> bytes:
    """An attribute that is a string with its NUL."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that is made of others."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in a part of a message: kind (without flags) and value."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


class Netlink:
    """A netlink socket of the network namespace that the calling thread is in when it is made."""

    def __init__(self, family: int) -> None:
        self.socket = Socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self.socket.bind((0, 0))
        self.socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self.sequence = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; idempotent."""
        self.socket.close()

    def message(self, kind: int, flags: int, payload: bytes) -> bytes:
        """A message with the next sequence number."""
        self.sequence += 1
        return struct.pack("=IHHII", len(payload) + 16, kind, flags | NLM_F_REQUEST, self.sequence, 0) + payload

    def request(self, call: str, kind: int, flags: int, payload: bytes, subject: str = "") -> None:
        """Send one request and wait for its acknowledgement; raises SyscallFailed with the kernel's words."""
        self.send(call, self.message(kind, flags | NLM_F_ACK, payload), subject)

    def send(self, call: str, messages: bytes, subject: str = "") -> None:
        """Send messages, the last of which asks for an acknowledgement, and wait for that."""
        self.socket.send(messages)
        while True:
            for kind, sequence, body in self.receive():
                if kind != NLMSG_ERROR:
                    continue
                if error := -struct.unpack_from("=i", body)[0]:
                    raise SyscallFailed(call, error, subject, words_of(body))
                if sequence == self.sequence:
                    return

    def dump(self, kind: int, payload: bytes) -> list[bytes]:
        """The bodies of all objects of a kind."""
        self.socket.send(self.message(kind, NLM_F_DUMP, payload))
        bodies: list[bytes] = []
        while True:
            for answer, _, body in self.receive():
                if answer == NLMSG_DONE:
                    return bodies
                if answer == NLMSG_ERROR:
                    raise SyscallFailed("netlink dump", -struct.unpack_from("=i", body)[0])
                bodies.append(body)

    def receive(self) -> Iterator[tuple[int, int, bytes]]:
        """The kind, the sequence number and the body of each message of the next packet."""
        data = self.socket.recv(BUFFER)
        while len(data) >= 16:
            length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
            yield kind, sequence, data[16:length]
            data = data[(length + 3) & ~3 :]


def words_of(error: bytes) -> str:
    """What the kernel says of a refused message beyond its errno (NETLINK_EXT_ACK); empty where nothing."""
    (length,) = struct.unpack_from("=I", error, 4)
    for kind, value in attributes(error[4 + ((length + 3) & ~3) :]) if len(error) > 4 + length else ():
        if kind == NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode(errors="replace")
    for kind, value in attributes(error[20:]):  # the message itself is left out (NLM_F_CAPPED)
        if kind == NLMSGERR_ATTR_MSG:
            return value.rstrip(b"\0").decode(errors="replace")
    return ""


class Routes(Netlink):
    """Links, addresses and routes of a network namespace."""

    def __init__(self) -> None:
        super().__init__(NETLINK_ROUTE)

    def __enter__(self) -> Routes:
        return self

    def add_veth(self, name: str, peer: str, netns: int, alias: str = "", mtu: int = 0) -> None:
        """A veth(4) pair: `name` here, `peer` in the network namespace of a descriptor."""
        size = attribute(IFLA_MTU, struct.pack("=I", mtu)) if mtu else b""
        link = struct.pack("=BxHiII", 0, 0, 0, 0, 0)
        other = link + text(IFLA_IFNAME, peer) + attribute(IFLA_NET_NS_FD, struct.pack("=I", netns)) + size
        information = nested(
            IFLA_LINKINFO,
            text(IFLA_INFO_KIND, "veth"),
            nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER | NLA_F_NESTED, other)),
        )
        payload = link + text(IFLA_IFNAME, name) + size + information
        self.request("RTM_NEWLINK", RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, payload, f"veth {name}")
        if alias:
            self.request("RTM_NEWLINK", RTM_NEWLINK, 0, link + text(IFLA_IFNAME, name) + text(IFLA_IFALIAS, alias))

    def raise_link(self, index: int) -> None:
        """Bring an interface up."""
        self.request("RTM_NEWLINK", RTM_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, IFF_UP, IFF_UP))

    def links(self) -> list[tuple[int, str, str]]:
        """All interfaces: index, name, and alias (ip-link(8)), which may be empty."""
        found = []
        for body in self.dump(RTM_GETLINK, struct.pack("=BxHiII", 0, 0, 0, 0, 0)):
            values = dict(attributes(body[16:]))
            name, alias = (values.get(key, b"").rstrip(b"\0").decode() for key in (IFLA_IFNAME, IFLA_IFALIAS))
            found.append((struct.unpack_from("=i", body, 4)[0], name, alias))
        return found

    def add_address(self, index: int, address: str, prefix: int) -> None:
        """Give an interface an address."""
        family, packed = pack_address(address)
        payload = struct.pack("=BBBBi", family, prefix, 0, RT_SCOPE_UNIVERSE, index)
        payload += attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
        payload += attribute(IFA_FLAGS, struct.pack("=I", IFA_F_NODAD))
        self.request("RTM_NEWADDR", RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, payload, address)

    def add_route(
        self,
        destination: str,
        prefix: int,
        *,
        index: int | None = None,
        gateway: str | None = None,
        unreachable: bool = False,
        protocol: int = RTPROT_STATIC,
    ) -> bool:
        """A route, through an interface, a gateway, or to nowhere; false where one to that destination exists."""
        family, packed = pack_address(destination)
        scope = RT_SCOPE_LINK if gateway is None and not unreachable and family == socket.AF_INET else 0
        kind = RTN_UNREACHABLE if unreachable else RTN_UNICAST
        flags = RTNH_F_ONLINK if gateway is not None and index is not None else 0
        payload = struct.pack("=BBBBBBBBI", family, prefix, 0, 0, RT_TABLE_MAIN, protocol, scope, kind, flags)
        if prefix:
            payload += attribute(RTA_DST, packed)
        if gateway is not None:
            payload += attribute(RTA_GATEWAY, pack_address(gateway)[1])
        if index is not None:
            payload += attribute(RTA_OIF, struct.pack("=i", index))
        try:
            self.request(
                "RTM_NEWROUTE", RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, payload, f"{destination}/{prefix}"
            )
        except SyscallFailed as error:
            if error.errno == errors.EEXIST:
                return False
            raise
        return True

    def routes(self, family: int) -> list[Route]:
        """The routes of the main table, and of others that the administrator made."""
        found = []
        for body in self.dump(RTM_GETROUTE, struct.pack("=BBBBBBBBI", family, *[0] * 8)):
            _, prefix, _, _, _, protocol, _, kind, _ = struct.unpack_from("=BBBBBBBBI", body)
            values = dict(attributes(body[12:]))
            packed = values.get(RTA_DST, bytes(4 if family == socket.AF_INET else 16))
            index = struct.unpack("=i", values[RTA_OIF])[0] if RTA_OIF in values else 0
            found.append(Route(int.from_bytes(packed, "big"), prefix, protocol, kind, index))
        return found


class Route:
    """One route: its destination's number and prefix, who made it, of what kind it is, and its interface."""

    __slots__ = ("destination", "index", "kind", "prefix", "protocol")

    def __init__(self, destination: int, prefix: int, protocol: int, kind: int, index: int) -> None:
        self.destination = destination
        self.prefix = prefix
        self.protocol = protocol
        self.kind = kind
        self.index = index


def pack_address(address: str) -> tuple[int, bytes]:
    """The family and the bytes of an IPv4 or IPv6 address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def has_ipv6() -> bool:
    """Whether this kernel has IPv6, and it was not switched off at boot (disable_ipv6 is another matter)."""
    return os.path.exists("/proc/sys/net/ipv6")
