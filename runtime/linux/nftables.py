"""nftables by its own netlink messages: a table with an owner, its chains and their rules.

Each function gives one expression as `nft --debug=netlink` shows it (linux/netfilter/nf_tables.h). A table with
the flag `owner` (Linux 5.12) goes with the socket that made it, so nothing is left behind by who was killed, and
nobody else's `nft flush ruleset` takes it away.
"""

from __future__ import annotations

import struct

from nbhull.runtime.lean import socket
from nbhull.runtime.linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    attribute,
    attributes,
    nested,
    text,
)

NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 = 1, 2, 10
NFNL_SUBSYS_NFTABLES = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFT_MSG_NEWTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN, NFT_MSG_NEWRULE, NFT_MSG_GETGEN = 0, 3, 4, 6, 16
NFT_TABLE_F_OWNER = 0x2
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
FILTER, DSTNAT, SRCNAT = 0, -100, 100
IIF, OIF, IIFNAME, OIFNAME, NFPROTO, L4PROTO = 4, 5, 6, 7, 15, 16
CT_STATE, CT_STATUS = 0, 2
ESTABLISHED, RELATED, NEW = 0x2, 0x4, 0x8
IPS_DST_NAT = 0x20
EQUAL, UNEQUAL = 0, 1
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
REG_VERDICT, REG_1, REG_2 = 0, 1, 2
NF_DROP, NF_ACCEPT = 0, 1
RTN_LOCAL = 2


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits in network order."""
    return attribute(kind, struct.pack(">I", value))


def expression(name: str, *data: bytes) -> bytes:
    """One element of a rule's list."""
    return nested(1, text(1, name), nested(2, *data))


def compare(data: bytes, operator: int = EQUAL) -> bytes:
    """Go on with the rule only if the register holds these bytes."""
    return expression("cmp", number(1, REG_1), number(2, operator), nested(3, attribute(1, data)))


def meta(key: int, data: bytes, operator: int = EQUAL) -> bytes:
    """Something about the packet, such as its interface's index."""
    return expression("meta", number(1, REG_1), number(2, key)) + compare(data, operator)


def interface(key: int, index: int, operator: int = EQUAL) -> bytes:
    """`iif` or `oif`."""
    return meta(key, struct.pack("=I", index), operator)


def ct(key: int, bits: int, operator: int = UNEQUAL) -> bytes:
    """Any of these bits of the connection's state or status; with EQUAL, none of them."""
    value = struct.pack("=I", bits)
    masked = (number(1, REG_1), number(2, REG_1), number(3, 4), nested(4, attribute(1, value)))
    mask = expression("bitwise", *masked, nested(5, attribute(1, bytes(4))))
    return expression("ct", number(1, REG_1), number(2, key)) + mask + compare(bytes(4), operator)


def payload(base: int, offset: int, data: bytes, operator: int = EQUAL) -> bytes:
    """These bytes at an offset of a header."""
    load = expression("payload", number(1, REG_1), number(2, base), number(3, offset), number(4, len(data)))
    return load + compare(data, operator)


def ip4() -> bytes:
    """The packet is IPv4."""
    return meta(NFPROTO, bytes([NFPROTO_IPV4]))


def source(address: bytes, operator: int = EQUAL) -> bytes:
    """`ip saddr`, or a beginning of it."""
    return ip4() + payload(NETWORK_HEADER, 12, address, operator)


def destination(address: bytes, operator: int = EQUAL) -> bytes:
    """`ip daddr`, or a beginning of it."""
    return ip4() + payload(NETWORK_HEADER, 16, address, operator)


def destination_port(protocol: str, port: int) -> bytes:
    """`tcp dport` or `udp dport`."""
    number_of = socket.IPPROTO_TCP if protocol == "tcp" else socket.IPPROTO_UDP
    return meta(L4PROTO, bytes([number_of])) + payload(TRANSPORT_HEADER, 2, struct.pack(">H", port))


def is_local() -> bytes:
    """The destination is an address of this machine."""
    return expression("fib", number(1, REG_1), number(2, 3), number(3, 2)) + compare(struct.pack("=I", RTN_LOCAL))


def verdict(code: int) -> bytes:
    """`accept` or `drop`."""
    return expression("immediate", number(1, REG_VERDICT), nested(2, nested(2, number(1, code))))


def reject() -> bytes:
    """`reject with icmpx admin-prohibited`: whoever connects fails at once."""
    return expression("reject", number(1, 2), attribute(2, b"\3"))


def dnat(address: bytes, port: int) -> bytes:
    """`dnat ip to ADDRESS:PORT`."""
    load = expression("immediate", number(1, REG_1), nested(2, attribute(1, address)))
    load += expression("immediate", number(1, REG_2), nested(2, attribute(1, struct.pack(">H", port))))
    return load + expression("nat", number(1, 1), number(2, NFPROTO_IPV4), number(3, REG_1), number(5, REG_2))


def masquerade() -> bytes:
    """`masquerade`."""
    return expression("masq")


class Chain:
    """A base chain and its rules."""

    def __init__(self, name: str, kind: str, hook: int, priority: int) -> None:
        self.name = name
        self.kind = kind
        self.hook = hook
        self.priority = priority
        self.rules: list[bytes] = []

    def add(self, *expressions: bytes) -> None:
        """One more rule."""
        self.rules.append(b"".join(expressions))


class Tables(Netlink):
    """nftables of the calling thread's network namespace."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def __enter__(self) -> Tables:
        return self

    def probe(self) -> None:
        """Raises SyscallFailed where the kernel has no nftables, or this process may not use it."""
        self.request("nftables", NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN, 0, bytes(4))

    def dropping_forward(self) -> str:
        """The table of a chain that drops by default what is forwarded, IPv4's or inet's; empty if there is none."""
        for family in (NFPROTO_INET, NFPROTO_IPV4):
            for body in self.dump(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, struct.pack(">BBH", family, 0, 0)):
                values = dict(attributes(body[4:]))
                hook = dict(attributes(values.get(4, b"")))
                if hook.get(1) == struct.pack(">I", FORWARD) and values.get(5) == struct.pack(">I", NF_DROP):
                    return values[1].rstrip(b"\0").decode()
        return ""

    def add_table(self, name: str, chains: list[Chain]) -> None:
        """Add a table at once, or nothing of it; it lives as long as this socket is open."""
        batch = self.frame(NFNL_MSG_BATCH_BEGIN)
        batch += self.entry(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, text(1, name), number(2, NFT_TABLE_F_OWNER))
        for chain in chains:
            hook = nested(4, number(1, chain.hook), attribute(2, struct.pack(">i", chain.priority)))
            named = (text(1, name), text(3, chain.name), hook, number(5, NF_ACCEPT), text(7, chain.kind))
            batch += self.entry(NFT_MSG_NEWCHAIN, NLM_F_CREATE, *named)
        rules = [(chain.name, rule) for chain in chains for rule in chain.rules]
        for at, (chain_name, rule) in enumerate(rules):
            flags = NLM_F_CREATE | NLM_F_APPEND | (NLM_F_ACK if at == len(rules) - 1 else 0)
            batch += self.entry(NFT_MSG_NEWRULE, flags, text(1, name), text(2, chain_name), nested(4, rule))
        acknowledged = self.sequence
        batch += self.frame(NFNL_MSG_BATCH_END)
        self.sequence = acknowledged
        self.send("nftables", batch, f"table inet {name}")
        self.sequence += 1

    def frame(self, kind: int) -> bytes:
        """The beginning or the end of a batch."""
        return self.message(kind, 0, struct.pack(">BBH", 0, 0, NFNL_SUBSYS_NFTABLES))

    def entry(self, kind: int, flags: int, *data: bytes) -> bytes:
        """One message of a batch."""
        header = struct.pack(">BBH", NFPROTO_INET, 0, 0)
        return self.message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, header + b"".join(data))
