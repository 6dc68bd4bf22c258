"""What a kernel's container is made from: the kernelspec's settings, narrowed by the notebook's.

The kernelspec (`metadata.kernel_provisioner.config`) is written by whoever administers it and may
set everything. A notebook (`metadata.container`) is hostile input. Key by key:

| key                                     | in a notebook                                                   |
|-----------------------------------------|-----------------------------------------------------------------|
| image, kernel, auto                     | chosen freely                                                   |
| memory, cpus, pids, disk, inodes        | may tighten; what is looser is cut to the limit, with a notice  |
| network                                 | may tighten, in the order host, nat, none; a wider one is denied |
| cap_drop, read_only                     | may tighten: dropped beside the kernelspec's; true only         |
| all else that is known                  | denied                                                          |
| anything else                           | invalid input                                                   |
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, cast

from nbhull.kernel.occasions import USUAL, Occasions, parse_occasions
from nbhull.runtime import limits, policy
from nbhull.runtime.confinement import Confinement, Device, Tmpfs, Ulimit
from nbhull.runtime.confinement_options import (
    from_options,
    parse_capability,
    parse_device,
    parse_gpus,
    parse_group,
    parse_security_opt,
    parse_tmpfs,
    parse_ulimit,
)
from nbhull.runtime.errors import Denied, InvalidInput
from nbhull.runtime.limits import Limits
from nbhull.runtime.model import HOST_IMAGE, ContainerSpec, Mount, Network, is_name, parse_bytes, parse_name
from nbhull.runtime.network import MODES, check_address

Control = Literal["siblings", "self", "none", "replay"]
T = TypeVar("T")

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_PATH = 4095


@dataclass(frozen=True)
class KernelConfig:
    """The validated settings of one kernel."""

    image: str = HOST_IMAGE
    """name of the image that the container is made from"""
    kernel: str = "python3"
    """name of the kernelspec inside the image"""
    memory: int | None = None
    """bytes"""
    cpus: float | None = None
    """cores"""
    pids: int | None = None
    """processes and threads"""
    network: Network | None = None
    """None means `nat` where it can be had, else `host`"""
    mounts: tuple[Mount, ...] = ()
    """folders and named volumes, beside the notebook's own folder"""
    environment: dict[str, str] = field(default_factory=dict)
    """variables for the kernel"""
    prefix: str | None = None
    """of the Python environment that shows through in the image `host`"""
    control: Control = "siblings"
    """what the kernel may ask for: all about its own container and, within its own bounds, cells in other
    containers and builds (`siblings`); all about its own container (`self`); or nothing (`none`). `replay` is said of
    kernels alone that run cells again: what they ask is passed over"""
    host_settings: bool = True
    """hand in what the host has to reach the network: proxies, certificates, settings of pip, npm and apt"""
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[tuple[str, Any], ...] = ()
    privileged: bool = False
    read_only: bool = False
    tmpfs: tuple[Tmpfs, ...] = ()
    devices: tuple[Device, ...] = ()
    gpus: str = ""
    group_add: tuple[str, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    dns: tuple[str, ...] = ()
    """addresses of name servers in place of the machine's"""
    memory_swap: int | None = None
    """these, and the others of `runtime.limits.Limits`, are as that has them"""
    cpu_shares: int | None = None
    cpuset: str | None = None
    blkio_weight: int | None = None
    device_read_bps: tuple[str, ...] = ()
    device_write_bps: tuple[str, ...] = ()
    device_read_iops: tuple[str, ...] = ()
    device_write_iops: tuple[str, ...] = ()
    disk: int | None = None
    """bytes of the container's own files"""
    inodes: int | None = None
    auto: Occasions = USUAL
    """when snapshots are taken without being asked for"""

    @property
    def limits(self) -> Limits:
        """The limits as the engine takes them."""
        return Limits(**{name: getattr(self, name) for name in Limits._fields})

    @property
    def confinement(self) -> Confinement:
        """The security settings as the engine takes them, which are those of `nbhull run`'s options."""
        values = {key: getattr(self, key) for key in CONFINING}
        return from_options({**values, "device": self.devices, "ulimit": self.ulimits})


KEYS = tuple(f.name for f in fields(KernelConfig))
LIMITS = ("memory", "cpus", "pids", "disk", "inodes")
"""what a notebook may tighten"""
CONFINING = ("cap_add", "cap_drop", "security_opt", "privileged", "read_only", "tmpfs", "gpus", "group_add")
CHOSEN_BY_NOTEBOOK = ("image", "kernel", "auto", *LIMITS, "network", "cap_drop", "read_only")


def from_kernelspec(settings: Mapping[str, Any]) -> KernelConfig:
    """The settings of a kernelspec. Raises InvalidInput that names the key."""
    values = validated(settings, "the kernelspec")
    rules = policy.load() if "image" not in values else None
    if rules is not None and (image := rules.default("images.default")):
        values["image"] = image
    config = KernelConfig(**values)
    config.limits.check()
    return config


def within_policy(config: KernelConfig) -> tuple[KernelConfig, dict[str, str]]:
    """A kernelspec's settings with the defaults and bounds of the configuration files, and the rules from which
    bounds come, by key. Raises Denied for what they do not allow, naming the rule."""
    rules = policy.load()
    if rules is None:
        return config, {}
    spec = rules.apply(ContainerSpec(limits=config.limits, network=config.network))
    sources = {key: rules.bound(key, getattr(spec.limits, key)) for key in LIMITS}
    bounded = {key: getattr(spec.limits, key) for key in LIMITS}
    return replace(config, network=spec.network, **bounded), {k: v for k, v in sources.items() if v}


def narrow(
    config: KernelConfig,
    notebook: Mapping[str, Any],
    sources: Mapping[str, str] | None = None,
    who: str = "the notebook's metadata",
) -> tuple[KernelConfig, list[str]]:
    """`config` with what a notebook, or `who` else, asks for, and the notices that its reader should see.
    `sources`: the rules that bounds come from, where it is not the kernelspec.

    Raises InvalidInput for a malformed setting, Denied for one that would widen access.
    """
    for key in notebook:
        if key in KEYS and key not in CHOSEN_BY_NOTEBOOK:
            raise Denied(
                f"{who} asks for container.{key}, which only a kernelspec may set",
                f"set {key} in the kernelspec, or remove it from {who}",
            )
    asked = validated(notebook, who)
    allowed = config.network or "nat"
    if "network" in asked and MODES.index(asked["network"]) < MODES.index(allowed):
        raise Denied(
            f"{who} asks for container.network {asked['network']!r}, but its kernelspec allows "
            f"{allowed!r} at most",
            f"choose a kernelspec with that network, or remove network from {who}",
        )
    if asked.get("read_only") is False and config.read_only:
        raise Denied(
            f"{who} asks for container.read_only false, but its kernelspec says true",
            f"choose another kernelspec, or remove read_only from {who}",
        )
    if "cap_drop" in asked:
        asked["cap_drop"] = (*config.cap_drop, *asked["cap_drop"])
    notices = []
    for key in LIMITS:
        allowed = getattr(config, key)
        if key in asked and allowed is not None and asked[key] > allowed:
            source = (sources or {}).get(key, f"its kernelspec allows {allowed}")
            notices.append(f"The notebook asks for {key} {notebook[key]}; {source}, which holds.")
            del asked[key]
    if "memory" in asked and config.memory_swap is not None and config.memory_swap >= 0:
        asked["memory_swap"] = max(asked["memory"], config.memory_swap - ((config.memory or 0) - asked["memory"]))
    return replace(config, **asked), notices


def validated(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings in the types of KernelConfig; raises InvalidInput that names the key."""
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in KEYS:
            raise InvalidInput(
                f"{where} has an unknown container setting {str(key)[:80]!r}", "known are " + ", ".join(KEYS)
            )
        if value is None:
            continue
        try:
            values[key] = PARSERS[key](value)
        except InvalidInput as error:
            raise InvalidInput(f"{where} sets {key} wrongly: {error.message}", error.hint) from error
    return values


def parse_cpus(value: Any) -> float:
    """Cores, such as 1.5; raises InvalidInput."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise InvalidInput(f"cpus {str(value)[:80]!r} is not a number", "write it like 1.5")
    try:
        cpus = float(value)
    except (ValueError, OverflowError):
        cpus = math.nan
    if not 0.01 <= cpus <= 1e6:
        raise InvalidInput(f"cpus {str(value)[:80]!r} is not a positive number", "write it like 1.5, at least 0.01")
    return cpus


def parse_flag(value: Any) -> bool:
    """True or false; raises InvalidInput."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{str(value)[:80]!r} is neither true nor false", "write true or false, without quotes")
    return value


def each(parse: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """A parser of lists, from one of what is in them."""

    def parse_all(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise InvalidInput(f"{str(value)[:80]!r} is not a list", 'write it like ["…"]')
        return tuple(parse(item) for item in value)

    return parse_all


def parse_network(value: Any) -> Network:
    """`host`, `nat` or `none`; raises InvalidInput."""
    if value not in MODES:
        raise InvalidInput(f"network {str(value)[:80]!r} is not known", "choose host, nat or none")
    return cast(Network, value)


def parse_dns(value: Any) -> tuple[str, ...]:
    """A list of addresses; raises InvalidInput."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise InvalidInput("dns is not a list of addresses", 'write it like ["192.0.2.1"]')
    for address in value:
        check_address(address, "name server")
    return tuple(value)


def parse_control(value: Any) -> Control:
    """`siblings`, `self` or `none`; raises InvalidInput."""
    if value not in ("siblings", "self", "none"):
        raise InvalidInput(f"control policy {str(value)[:80]!r} is not known", "choose siblings, self or none")
    return cast(Control, value)


def parse_path(value: Any, what: str = "path") -> str:
    """An absolute path without `.` and `..`; raises InvalidInput."""
    if (
        not isinstance(value, str)
        or not value.startswith("/")
        or "\0" in value
        or len(value.encode("utf-8", "surrogatepass")) > MAX_PATH
        or any(part in (".", "..") for part in value.split("/"))
    ):
        raise InvalidInput(f"{what} {str(value)[:80]!r} is not an absolute path", "write it like /data/measurements")
    return value.rstrip("/") or "/"


def parse_memory(value: Any) -> int:
    """Bytes; raises InvalidInput."""
    if not isinstance(value, int | str) or len(str(value)) > 40:
        raise InvalidInput(f"memory limit {str(value)[:80]!r} is not a size", "write it like 512m or 2g")
    return parse_bytes(value)


def parse_mounts(value: Any) -> tuple[Mount, ...]:
    """A list of mounts as `parse_mount` takes them; raises InvalidInput."""
    if not isinstance(value, list | tuple):
        raise InvalidInput("mounts is not a list", 'write it like [{"source": "/data", "read_only": true}]')
    return tuple(parse_mount(item) for item in value)


def parse_mount(item: Any) -> Mount:
    """One mount: `{"source": …, "target": …, "read_only": …}` or `source[:target[:ro]]`; the target is
    the source where it is not given. A named volume is a source without a slash, with a target. Raises InvalidInput."""
    if isinstance(item, str):
        source, _, rest = item.partition(":")
        target, _, mode = rest.partition(":")
        if mode not in ("", "ro", "rw"):
            raise InvalidInput(f"mount mode {mode[:80]!r} is not known", "choose ro or rw")
        item = {"source": source, "read_only": mode == "ro"} | ({"target": target} if target else {})
    if not isinstance(item, dict) or not set(item) <= {"source", "target", "read_only"}:
        raise InvalidInput("a mount is not of the right form", 'write it like {"source": "/data", "read_only": true}')
    read_only = item.get("read_only", False)
    if not isinstance(read_only, bool):
        raise InvalidInput("read_only of a mount is neither true nor false", "write true or false, without quotes")
    if is_name(item.get("source")) and "target" in item:
        return Mount(item["source"], parse_path(item["target"], "mount target"), read_only)
    source = parse_path(item.get("source"), "mount source")
    return Mount(source, parse_path(item.get("target", source), "mount target"), read_only)


def parse_environment(value: Any) -> dict[str, str]:
    """Variables for the kernel; raises InvalidInput."""
    if not isinstance(value, dict):
        raise InvalidInput("environment is not a table of variables", 'write it like {"NAME": "value"}')
    for name, text in value.items():
        if not isinstance(name, str) or VARIABLE.fullmatch(name) is None:
            raise InvalidInput(f"{str(name)[:80]!r} is not a variable's name", "use letters, digits and '_'")
        if not isinstance(text, str) or "\0" in text:
            raise InvalidInput(f"variable {name} is not text", 'write its value in quotes: "1"')
    return dict(value)


PARSERS: dict[str, Callable[[Any], Any]] = {
    "image": lambda value: parse_image(value),
    "kernel": lambda value: parse_name(value, "kernelspec name"),
    "memory": parse_memory,
    "cpus": parse_cpus,
    "pids": limits.parse_pids,
    "memory_swap": limits.parse_memory_swap,
    "cpu_shares": limits.parse_cpu_shares,
    "cpuset": lambda value: limits.parse_cpuset(str(value)),
    "blkio_weight": limits.parse_blkio_weight,
    "device_read_bps": each(limits.parse_device_bps),
    "device_write_bps": each(limits.parse_device_bps),
    "device_read_iops": each(limits.parse_device_iops),
    "device_write_iops": each(limits.parse_device_iops),
    "disk": limits.parse_disk,
    "inodes": limits.parse_inodes,
    "network": parse_network,
    "dns": parse_dns,
    "mounts": parse_mounts,
    "environment": parse_environment,
    "prefix": parse_path,
    "control": parse_control,
    "host_settings": parse_flag,
    "cap_add": each(parse_capability),
    "cap_drop": each(parse_capability),
    "security_opt": each(parse_security_opt),
    "privileged": parse_flag,
    "read_only": parse_flag,
    "tmpfs": each(parse_tmpfs),
    "devices": each(parse_device),
    "gpus": parse_gpus,
    "group_add": each(parse_group),
    "ulimits": each(parse_ulimit),
    "auto": parse_occasions,
}


def parse_image(value: Any) -> str:
    """An image's name, tag or id; raises InvalidInput."""
    if not isinstance(value, str) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.:/@-]{0,255}", value) is None:
        raise InvalidInput(f"image {str(value)[:80]!r} is not a name", "`nbhull images` lists the images")
    return value
