"""One container's groups, across all hierarchies that it is in."""

from __future__ import annotations

import os

from nbhull.runtime.cgroups.base import Version, remove_when_empty
from nbhull.runtime.cgroups.hierarchies import Hierarchies, Place
from nbhull.runtime.cgroups.v1 import Version1
from nbhull.runtime.cgroups.v2 import Version2
from nbhull.runtime.errors import HostUnable
from nbhull.runtime.linux.process import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

VERSIONS: dict[int, Version] = {1: Version1(), 2: Version2()}


class Group:
    """A container's groups; empty where there are none."""

    def __init__(self, places: dict[str, Place]) -> None:
        """`places`: the group's own folders, by controller."""
        self.places = places
        self.parts = [
            (VERSIONS[number], {c: place.folder for c, place in places.items() if place.version == number})
            for number in sorted({place.version for place in places.values()})
        ]

    def folders(self) -> list[str]:
        """The folders, each once."""
        return list(dict.fromkeys(place.folder for place in self.places.values()))

    def open_procs(self) -> list[int]:
        """Descriptors through which a process enters the groups by writing `0`; the caller closes them."""
        return [os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in self.folders()]

    def remove(self) -> None:
        """Delete the groups, whose processes have ended; idempotent."""
        for folder in self.folders():
            remove_when_empty(folder)

    def configure(self, limits: dict[str, Any]) -> None:
        """Set limits, which `Hierarchies.require` has found to be possible. Raises HostUnable for one that
        the kernel refuses."""
        for version, folders in self.parts:
            for setting in version.settings(limits, folders):
                if setting.controller not in folders:
                    continue  # the other version's
                paths = [f"{folders[setting.controller]}/{file}" for file in setting.files]
                path = next((path for path in paths if os.path.exists(path)), None)
                if path is None and setting.optional:
                    continue
                if path is None:
                    raise HostUnable(
                        f"the kernel has no {os.path.basename(paths[0])}, so this limit cannot be enforced",
                        "boot with swapaccount=1" if "sw" in setting.files[0] else "leave the limit out",
                    )
                try:
                    write_file(path, setting.text)
                except OSError as error:
                    raise HostUnable(
                        f"the limit {setting.text!r} cannot be written to {path}: {error.strerror}",
                        "choose another limit",
                    ) from error

    def usage(self) -> dict[str, float]:
        """What the container uses now, by the field names of `model.Usage`; unknown ones are left out."""
        found: dict[str, float] = {}
        for version, folders in self.parts:
            found |= version.usage(folders)
        return found

    def events(self) -> dict[str, int]:
        """How often it has met its limits so far: `oom_kills`, `memory_hits`, `pids_hits`; unknown ones left out."""
        found: dict[str, int] = {}
        for version, folders in self.parts:
            found |= version.events(folders)
        return found

    def open_events(self, limited: Iterable[str]) -> list[tuple[int, int]]:
        """Descriptors, with their poll(2) events, that tell that `events` have changed; the caller closes them."""
        names = set(limited)
        return [opened for version, folders in self.parts for opened in version.open_events(folders, names)]

    def freeze(self, frozen: bool) -> bool:
        """Stop or continue all processes, and wait until it is so; False where no freezer is at hand."""
        place = self.places.get("freezer")
        if place is None:
            return False
        VERSIONS[place.version].freeze(place.folder, frozen)
        return True


def create(hierarchies: Hierarchies, name: str, controllers: Iterable[str] | None = None) -> Group:
    """Make the groups of one container, in all hierarchies or those of some controllers (others that
    share them come along); nothing is left behind by a failure (HostUnable)."""
    chosen = hierarchies.places if controllers is None else {c: hierarchies.places[c] for c in controllers}
    folders = {place.folder for place in chosen.values()}
    group = Group(
        {
            controller: Place(place.version, f"{place.folder}/nbhull-{name}")
            for controller, place in hierarchies.places.items()
            if place.folder in folders
        }
    )
    try:
        for folder in group.folders():
            os.mkdir(folder)
    except OSError as error:
        group.remove()
        raise HostUnable(f"cannot make the cgroup {error.filename}: {error.strerror}", "run `nbhull doctor`") from error
    return group
