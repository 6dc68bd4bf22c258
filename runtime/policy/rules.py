"""Rules, and what they make of a container's spec."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from nbhull.runtime.errors import Denied
from nbhull.runtime.launcher.limiter import DEFAULT_PIDS
from nbhull.runtime.limits import Limits
from nbhull.runtime.model import ContainerSpec, Mount
from nbhull.runtime.network import MODES

if TYPE_CHECKING:
    from nbhull.runtime.confinement import Confinement
    from nbhull.runtime.model import Network

LIMITS = ("memory", "cpus", "pids", "disk", "inodes")


class Rule(NamedTuple):
    """One line of a file."""

    key: str
    value: Any
    text: str
    """the value as it is written"""
    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}: {self.key} = {self.text}"


class Policy:
    """The rules of all files."""

    def __init__(self, rules: list[Rule]) -> None:
        """`rules`: those of the file that binds the others first."""
        self.rules = rules

    def all(self, key: str) -> list[Rule]:
        """The rules of a key, which all must be met."""
        return [rule for rule in self.rules if rule.key == key]

    def default(self, key: str) -> Any:
        """A default: that of the last file which has one."""
        rules = self.all(key)
        return rules[-1].value if rules else None

    def apply(self, spec: ContainerSpec) -> ContainerSpec:
        """The spec with the defaults that hold. Raises Denied, naming the rule that it breaks."""
        fields = {name: getattr(spec, name) for name in ContainerSpec._fields}
        fields["limits"] = self.limits(spec.limits)
        fields["network"] = self.network(spec.network)
        fields["mounts"] = tuple(self.mount(mount) for mount in spec.mounts)
        if spec.publish:
            self.refuse_unless("network.publish", "publish ports")
        self.check_confinement(spec.confinement)
        return ContainerSpec(**fields)

    def limits(self, asked: Limits) -> Limits:
        """The limits: those asked for, else the defaults, else the most that is allowed."""
        fields = {name: getattr(asked, name) for name in Limits._fields}
        for name in LIMITS:
            bounds = self.all(f"limits.{name}.max")
            if fields[name] is None:
                fields[name] = self.default(f"limits.{name}.default")
            if fields[name] is None:
                least = min((bound.value for bound in bounds), default=None)
                fields[name] = None if name == "pids" and least and least >= DEFAULT_PIDS else least
            if fields[name] is None:
                continue
            for bound in bounds:
                if fields[name] > bound.value:
                    raise denied(f"the container is to have {name} {fields[name]}", bound)
        swap = fields["memory_swap"]
        for bound in self.all("limits.memory.max") if swap is not None else ():
            if swap == -1 or swap > bound.value:
                raise denied(f"the container is to have memory and swap of {swap if swap >= 0 else 'any size'}", bound)
        return Limits(**fields)

    def bound(self, name: str, value: Any) -> str:
        """The rule that a limit of this value comes from; empty where it comes from none."""
        rules = [*self.all(f"limits.{name}.max"), *self.all(f"limits.{name}.default")]
        return next((str(rule) for rule in rules if rule.value == value), "")

    def network(self, asked: Network | None) -> Network | None:
        """The network: the one asked for, else the default, no wider than is allowed."""
        chosen: Network | None = asked or self.default("network.default")
        for bound in self.all("network.max"):
            if chosen is None and bound.value == "none":
                chosen = "none"
            if MODES.index(chosen or "nat") < MODES.index(bound.value):
                raise denied(f"the container is to have the network {chosen!r}", bound)
        return chosen

    def fallback(self) -> Network:
        """The network where none was asked for, and none of a container's own can be had."""
        chosen = self.default("network.fallback")
        is_allowed = all(bound.value == "host" for bound in self.all("network.max"))
        return "host" if is_allowed and chosen != "none" else "none"

    def mount(self, mount: Mount) -> Mount:
        """A mount whose folder, all links followed, or whose volume is allowed."""
        if mount.is_volume:
            for rule in self.all("volumes.allowed"):
                if not any(fnmatchcase(mount.source, pattern) for pattern in rule.value):
                    raise denied(f"the container is to have the volume {mount.source!r}", rule)
            return mount
        real = os.path.realpath(mount.source)
        for rule in self.all("mounts.allowed"):
            places = [(folder(text), text.endswith(":ro")) for text in rule.value]
            matching = [read_only for place, read_only in places if within(real, place)]
            if not matching:
                raise denied(f"the container is to have the folder {mount.source!r}", rule)
            if all(matching) and not mount.read_only:
                raise denied(f"the container is to have the folder {mount.source!r} to write in", rule)
            mount = Mount(real, mount.target, mount.read_only)
        return mount

    def check_confinement(self, confinement: Confinement) -> None:
        """Raise Denied for a security setting that opens more than is allowed."""
        for rule in self.all("capabilities.allowed"):
            for name in confinement.cap_add:
                if name not in rule.value and "ALL" not in rule.value:
                    raise denied(f"the container is to have the capability {name}", rule)
        for rule in self.all("devices.allowed"):
            for device in confinement.devices:
                if not any(fnmatchcase(os.path.realpath(device.source), pattern) for pattern in rule.value):
                    raise denied(f"the container is to have the device {device.source!r}", rule)
        if confinement.gpus:
            self.refuse_unless("gpus.allowed", "have GPUs")
        if confinement.privileged:
            self.refuse_unless("security.privileged", "be privileged")
        if confinement.seccomp or not confinement.no_new_privileges or not confinement.system_paths:
            self.refuse_unless("security.unconfined", "be less confined than usual")

    def refuse_unless(self, key: str, what: str) -> None:
        """Raise Denied where a flag is false."""
        for rule in self.all(key):
            if not rule.value:
                raise denied(f"the container is to {what}", rule)

    def check_image(self, ref: str, names: list[str]) -> None:
        """Raise Denied for an image of which no name matches a pattern; one without a tag means all tags."""
        for rule in self.all("images.allowed"):
            patterns = [*rule.value, *(f"{pattern}:*" for pattern in rule.value)]
            if not any(fnmatchcase(name, pattern) for name in names for pattern in patterns):
                raise denied(f"the image {ref!r} is to be run", rule)

    def check_registry(self, name: str) -> None:
        """Raise Denied for a REGISTRY/REPOSITORY that matches no pattern; a registry alone means all that it has."""
        for rule in self.all("registries.allowed"):
            if not any(fnmatchcase(name, p) or fnmatchcase(name, f"{p}/*") for p in rule.value):
                raise denied(f"the image {name!r} is to be exchanged with its registry", rule)


def denied(what: str, rule: Rule) -> Denied:
    """The refusal that a rule demands."""
    return Denied(f"{what}, which is not allowed by {rule}", "ask for what the rule allows, or have it changed")


def folder(text: str) -> str:
    """The folder of a rule, `~` and links resolved."""
    return os.path.realpath(os.path.expanduser(text.removesuffix(":ro")))


def within(path: str, place: str) -> bool:
    """Whether a path without links is a folder, or lies in it."""
    return path == place or path.startswith(place.rstrip("/") + "/")
