"""From an option's text to its value. Every function raises InvalidInput with what it wanted instead."""

from __future__ import annotations

import os

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.model import Mount, Network, Port, is_name, parse_bytes
from nbhull.runtime.network import MODES, check_address


def parse_env(text: str) -> tuple[str, str] | None:
    """Name and value from `NAME=VALUE`; `NAME` alone takes the value from our own environment, and is
    None where that has no such variable (as with Docker)."""
    name, equals, value = text.partition("=")
    if not name or "\0" in text:
        raise InvalidInput(f"variable {text!r} has no name", "write it like NAME=VALUE")
    if equals:
        return name, value
    inherited = os.environ.get(name)
    return None if inherited is None else (name, inherited)


def parse_switch(text: str) -> bool:
    """True for `on`, false for `off`."""
    if text not in ("on", "off"):
        raise InvalidInput(f"{text!r} is neither on nor off", "write on or off")
    return text == "on"


def parse_minutes(text: str) -> float:
    """A number that is not negative."""
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes < 1e6:
        raise InvalidInput(f"{text!r} is not a number of minutes", "write it like 10, or 0 for never")
    return minutes


def parse_volume(text: str) -> Mount:
    """A mount from `SOURCE:TARGET[:ro|rw]`; SOURCE is a path, which begins with `./` or `../` if it is relative, or the
    name of a volume."""
    parts = text.split(":")
    form = "write it like ./data:/data, /srv/data:/data:ro, or data:/data for a named volume"
    if len(parts) not in (2, 3) or not parts[0] or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise InvalidInput(f"volume {text!r} is not of the form SOURCE:TARGET[:ro]", form)
    source, target = parts[:2]
    is_path = source.startswith(("/", "./", "../")) or source in (".", "..")
    if not is_path and not is_name(source):
        raise InvalidInput(
            f"volume source {source!r} is neither a path nor a volume's name",
            f"a relative path begins with './'; {form}",
        )
    if not target.startswith("/"):
        raise InvalidInput(f"volume target {target!r} is not an absolute path", form)
    return Mount(os.path.abspath(source) if is_path else source, target, parts[2:] == ["ro"])


def parse_workdir(text: str) -> str:
    """An absolute path inside the container."""
    if not text.startswith("/"):
        raise InvalidInput(f"working folder {text!r} is not an absolute path", "write it like /tmp")
    return text


def parse_user(text: str) -> str:
    """`USER[:GROUP]`; names are looked up later, in the container."""
    user, colon, group = text.partition(":")
    if not user or ":" in group or (colon and not group):
        raise InvalidInput(
            f"user {text!r} is not of the form USER[:GROUP]", "write it like 1000:100 or nobody"
        )
    return text


def parse_cpus(text: str) -> float:
    """A positive number of cores."""
    return _positive(text, "number of cores", "write it like 2 or 0.5")


def parse_seconds(text: str) -> float:
    """A number of seconds, zero included."""
    return 0.0 if text == "0" else _positive(text, "number of seconds", "write it like 0, 10 or 0.5")


def parse_count(text: str) -> int:
    """A positive whole number."""
    if not (text.isascii() and text.isdigit() and len(text) < 19) or int(text) == 0:
        raise InvalidInput(f"{text!r} is not a positive whole number", "write it like 200")
    return int(text)


def parse_size(text: str) -> int:
    """A number of bytes, such as 2g."""
    return parse_bytes(text, "size")


def parse_network(text: str) -> Network:
    """`host`, `nat` or `none`."""
    for known in MODES:
        if text == known:
            return known
    raise InvalidInput(f"unknown network {text!r}", f"one of: {', '.join(MODES)}")


def parse_publish(text: str) -> Port:
    """A port from `[ADDRESS:]OUTSIDE:INSIDE[/tcp|/udp]`; an IPv6 address stands in brackets."""
    form = "write it like 8080:80, 127.0.0.1:8080:80 or 5353:53/udp"
    ports, slash, protocol = text.partition("/")
    address, _, outside = ports.rpartition(":")[0].rpartition(":")
    inside = ports.rpartition(":")[2]
    if not (_is_port(outside) and _is_port(inside)) or (slash and protocol not in ("tcp", "udp")):
        raise InvalidInput(f"published port {text!r} is not of the form [ADDRESS:]OUTSIDE:INSIDE[/udp]", form)
    address = address.removeprefix("[").removesuffix("]")
    if address:
        check_address(address, "address to publish on")
    return Port(int(outside), int(inside), "udp" if protocol == "udp" else "tcp", address)


def parse_add_host(text: str) -> tuple[str, str]:
    """A name and an address from `NAME:ADDRESS`."""
    name, _, address = text.partition(":")
    parse_hostname(name)
    check_address(address, "host's address")
    return name, address


def parse_dns(text: str) -> str:
    """A name server's address."""
    check_address(text, "name server")
    return text


def parse_hostname(text: str) -> str:
    """A host name as Linux takes it: at most 64 characters of letters, digits, '-' and '.'."""
    if 0 < len(text) <= 64 and text.isascii() and text.replace("-", "a").replace(".", "a").isalnum():
        return text
    raise InvalidInput(f"host name {text!r} is not valid", "use letters, digits, '-' and '.', at most 64")


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < len(text) < 6 and 0 < int(text) < 65536


def _positive(text: str, what: str, hint: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise InvalidInput(f"{text!r} is not a positive {what}", hint)
    return number


def parse_pull(text: str) -> str:
    """When to pull; raises InvalidInput."""
    if text not in ("missing", "always", "never"):
        raise InvalidInput(f"{text!r} does not say when to pull", "choose missing, always or never")
    return text


def parse_variable(text: str) -> str:
    """A variable's name that all languages can have; raises InvalidInput."""
    from keyword import iskeyword

    if not (text.isascii() and text.isidentifier()) or iskeyword(text) or text.startswith("nbhull_"):
        raise InvalidInput(f"{text!r} is not a variable's name", "use letters, digits and '_'")
    return text
