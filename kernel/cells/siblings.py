"""The containers that a kernel's cells run in: within what the kernel itself may have, and never outliving it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from nbhull.kernel.cells import building
from nbhull.kernel.cells.running import Cell, cell_in, run_cell
from nbhull.kernel.config import CHOSEN_BY_NOTEBOOK, LIMITS, narrow, parse_mounts, validated
from nbhull.kernel.streams import Stream
from nbhull.runtime import policy
from nbhull.runtime.errors import Conflict, Denied, InvalidInput, NotFound
from nbhull.runtime.limits import Limits
from nbhull.runtime.model import ContainerSpec, Mount
from nbhull.runtime.verbs.results import Result, human_size

if TYPE_CHECKING:
    from nbhull.kernel.contained import ContainedKernel

CELL = "the cell"
CELL_OF = "nbhull.cell-of"
"""label of a cell's container: the name of its kernel's"""
MAY_ASK = (*(key for key in CHOSEN_BY_NOTEBOOK if key not in ("image", "kernel")), "mounts", "host_settings")
"""settings that a cell may choose, each within the kernel's own"""
MAY_BUILD_WITH = ("network", "host_settings")
"""the same of a build"""
PATIENCE = 10.0
"""seconds that a build may take to end, before its kernel's end waits no longer"""
AT_ONCE = 8
"""containers that one kernel's cells have at the same time"""


class Siblings:
    """Those of one kernel. Thread-safe."""

    def __init__(self, kernel: ContainedKernel) -> None:
        self.kernel = kernel
        self.lock = Lock()
        self.running: dict[str, Limits] = {}
        """what each may use, by its name"""
        self.builds: set[building.Ongoing] = set()
        self.count = 0

    def run(self, params: Mapping[str, Any], stream: Stream) -> dict[str, Any]:
        """Run a cell, as a kernel asks for it. Raises HullError, and AskerGone."""
        check_allowed(self.kernel)
        cell = cell_in(params)
        settings, with_folder = params.get("settings", {}), params.get("with_folder", True)
        if not isinstance(settings, dict) or not isinstance(with_folder, bool):
            raise InvalidInput("settings are not a table, or with_folder is neither true nor false")
        with self.place(settings) as (name, limits):
            spec = sibling_spec(self.kernel, cell, name, limits, settings, with_folder=with_folder)
            return run_cell(self.kernel.engine, spec, within(self.kernel, cell, spec), stream, self.is_needed(name))

    def build(self, params: Mapping[str, Any], stream: Stream) -> Result:
        """Build an image, as a kernel asks for it. Raises HullError, and AskerGone."""
        check_allowed(self.kernel)
        request, settings = building.request_in(params), params.get("settings", {})
        if not isinstance(settings, dict):
            raise InvalidInput("settings are not a table")
        for key in settings:
            if key not in MAY_BUILD_WITH:
                raise Denied(
                    f"the build asks for {str(key)[:80]}, which only a kernelspec may set", "leave it out"
                )
        network = {key: value for key, value in settings.items() if key == "network"}
        config, _ = narrow(self.kernel.config, network, who="the build")
        if settings.get("host_settings") is False:
            config = replace(config, host_settings=False)
        folder = self.kernel.folder
        owner = folder.path if folder.mount is not None else self.kernel.name
        ongoing = building.Ongoing()
        with self.place({}) as (_, limits):
            bounds = building.bounds_of(owner, limits, config)
            with self.lock:
                self.builds.add(ongoing)
            try:
                folders = [mount for mount in self.kernel.handed_in() if not mount.is_volume]
                return building.build(self.kernel.engine, request, bounds, folders, config, stream, ongoing)
            finally:
                with self.lock:
                    self.builds.discard(ongoing)
                ongoing.done.set()

    @contextmanager
    def place(self, settings: Mapping[str, Any]) -> Iterator[tuple[str, Limits]]:
        """A name for one more, and what it may use while the block runs. Raises Denied, Conflict, InvalidInput."""
        with self.lock:
            container = self.kernel.container
            if container is None:
                raise Conflict("the kernel is being stopped", "start it again")
            if len(self.running) >= AT_ONCE:
                raise Conflict(f"{AT_ONCE} cells of this kernel run already", "wait for one of them")
            limits = bounded(container.spec.limits, settings, list(self.running.values()))
            self.count += 1
            name = f"{container.name}-cell-{self.count}"
            self.running[name] = limits
        try:
            yield name, limits
        finally:
            with self.lock:
                self.running.pop(name, None)

    def is_needed(self, name: str) -> Callable[[str], None]:
        """A check, for when its container is made, that the kernel has not ended meanwhile. Raises Conflict."""

        def check(_: str) -> None:
            with self.lock:
                if name not in self.running:
                    raise Conflict("the kernel was stopped", "start it again")

        return check

    def end(self) -> None:
        """Remove the containers of all cells that run, and end all builds."""
        with self.lock:
            names, self.running = list(self.running), {}
            builds = list(self.builds)
        for one in builds:
            one.end()
        for one in builds:
            one.done.wait(PATIENCE)
        for name in names:
            with suppress(NotFound):  # it is not made yet, or gone
                self.kernel.engine.remove(name, force=True)


def check_allowed(kernel: ContainedKernel) -> None:
    """Raise Denied where this kernel may have nothing run beside it."""
    if kernel.config.control != "siblings":
        raise Denied(
            f"the kernelspec lets this kernel control its own container alone (control: {kernel.config.control})",
            'set "control": "siblings" in it',
        )
    policy.check_siblings()


def bounded(own: Limits, settings: Mapping[str, Any], taken: list[Limits]) -> Limits:
    """The limits of a new container: those asked for, else the kernel's. All together have the kernel's at most.
    Raises Denied, naming the limit and the rule that it comes from."""
    asked = validated({key: value for key, value in settings.items() if key in LIMITS}, CELL)
    fields = {name: getattr(own, name) for name in Limits._fields}
    for key in LIMITS:
        allowed = getattr(own, key)
        if allowed is None:
            fields[key] = asked.get(key)
            continue
        left = allowed - sum(getattr(limits, key) or 0 for limits in taken)
        wanted = asked.get(key, left)
        if wanted > allowed:
            raise Denied(
                f"{CELL} is to have {key} {shown(key, wanted)}, but its kernel has {key} {shown(key, allowed)}"
                f"{rule_of(key, allowed)}",
                "ask for no more than the kernel has, or have its limit raised",
            )
        if wanted > left or left <= 0:
            raise Conflict(
                f"{CELL} is to have {key} {shown(key, wanted)}, but cells that run use {key} "
                f"{shown(key, allowed - left)} of the {shown(key, allowed)} that they have together",
                "wait for them, or give each a part",
            )
        fields[key] = wanted
    if fields["memory_swap"] is not None and fields["memory_swap"] >= 0:
        fields["memory_swap"] = max(fields["memory"], own.memory_swap - (own.memory - fields["memory"]))
    return Limits(**fields)


def shown(key: str, value: float) -> str:
    """A limit for people."""
    return human_size(int(value)) if key in ("memory", "disk") else f"{value:g}"


def rule_of(key: str, value: Any) -> str:
    """The rule that a kernel's limit comes from, as the end of a sentence; empty if it is the kernelspec's or the
    notebook's."""
    rules = policy.load()
    rule = rules.bound(key, value) if rules is not None else ""
    return f" ({rule})" if rule else ""


def sibling_spec(
    kernel: ContainedKernel, cell: Cell, name: str, limits: Limits, settings: Mapping[str, Any], *, with_folder: bool
) -> ContainerSpec:
    """The container of a cell. Raises Denied for what is wider than the kernel's own, and InvalidInput."""
    for key in settings:
        if key not in MAY_ASK:
            raise Denied(
                f"{CELL} asks for {str(key)[:80]}, which only a kernelspec may set",
                "leave it out, or run the cell in a kernel that has it",
            )
    choices = {key: value for key, value in settings.items() if key not in (*LIMITS, "mounts", "host_settings")}
    config, _ = narrow(kernel.config, choices, who=CELL)
    own = kernel.handed_in()
    mounts = [*(own if with_folder else ()), *kernel.mounts]
    for asked in parse_mounts(settings.get("mounts", [])):
        mount = shared(asked, own)
        mounts = [*(other for other in mounts if other.target != mount.target), mount]
    return ContainerSpec(
        image=cell.image,
        name=name,
        limits=limits,
        network=config.network,
        dns=config.dns,
        mounts=tuple(mounts),
        environment=config.prefix,
        host_settings=config.host_settings and settings.get("host_settings") is not False,
        confinement=config.confinement,
        labels={CELL_OF: kernel.name},
        transient=True,
    )


def shared(asked: Mount, own: list[Mount]) -> Mount:
    """A folder or volume of the kernel's, handed in at another path. Only whole ones: the way to a folder below may be
    changed by the kernel while it is being followed. Raises Denied."""
    for mount in own:
        if asked.source == (mount.source if asked.is_volume else mount.target.rstrip("/")):
            return Mount(mount.source, asked.target, asked.read_only or mount.read_only)
    known = ", ".join(mount.target for mount in own) or "none"
    raise Denied(
        f"{CELL} is to have the {'volume' if asked.is_volume else 'folder'} {asked.source!r}, which is none of those "
        "that its kernel was given",
        f"its kernel has: {known}; they are handed in by themselves, too",
    )


def within(kernel: ContainedKernel, cell: Cell, spec: ContainerSpec) -> Cell:
    """The cell with the kernel's own user and folder, where it names none and the folder is there."""
    own = kernel.handed_in()
    if not own or not set(own) <= set(spec.mounts):
        return cell
    cwd = kernel.folder.path if kernel.folder.mount is not None else None
    return cell.placed(kernel.config.confinement.user or "0", cwd)
