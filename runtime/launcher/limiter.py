"""The part of a launcher that gives containers their cgroups and cores, and tells which limits they have met."""

from __future__ import annotations

import os
import select
import time

from nbhull.runtime import cgroups, cores
from nbhull.runtime.launcher.quota import Quotas

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PIDS = 4096
"""processes and threads of a container for which no limit is given, where that can be had: a fork bomb stops"""
SELDOM = ("cpuset", "io")
"""controllers that are entered only for a limit: on v1 each takes time, and gives nothing else"""
EVENTS = "events"
"""a file of `name=number` lines, the limits and how often they were met (`cgroups.Group.events`): in a container's
socket folder while it runs, in its folder of the store once it has ended"""
STATUS = "status"
"""a file in a container's folder of the store: how its main process ended (`ends.STATUS`)"""
LATER = (50, 500)
"""milliseconds after which counts are looked at again"""
TOLD = ("memory", "pids", "disk", "inodes")
"""limits that a kernel is told of when one is met"""


class Limiter:
    """Limits of all containers of a launcher."""

    def __init__(self, folder: str, store: str, poll: select.poll, *, keep_spare: bool) -> None:
        """`folder`: the launcher's; `poll`: where descriptors are watched for it, which come to `tell`."""
        self.folder = folder
        self.store = store
        self.poll = poll
        self.keep_spare = keep_spare
        self.spare: cgroups.Group | None = None
        """the groups of the holder's spare init"""
        self.hierarchies = cgroups.probe()
        self.groups: dict[str, cgroups.Group] = {}
        """of each container that runs, or is about to"""
        self.cores = cores.Chooser()
        self.quotas = Quotas()
        self.told: dict[str, dict[str, int]] = {}
        """by container: its limits"""
        self.later: list[tuple[float, str]] = []
        """moments at which to look again at a container's counts"""
        self.watched: dict[int, str] = {}
        """by descriptor that tells of a limit that was met: the container"""

    def make_spare(self, pids: list[int]) -> cgroups.Group:
        """The groups for a spare init; `pids`: the launcher's processes."""
        self.hierarchies.claim(pids)
        usual = [name for name in self.hierarchies.places if name not in SELDOM]
        return cgroups.create(self.hierarchies, os.urandom(6).hex(), usual)

    def start(self, request: dict[str, Any], pids: list[int], *, may_take_spare: bool) -> cgroups.Group:
        """Give the container of a start's request its groups, limits and cores, and write into the request what the
        holder must know of that: `spare`, `processes`, `cores`, `views`. Raises HostUnable for a limit that cannot
        be enforced; what was made by then goes with `forget`."""
        name, limits = request["container"], request["limits"]
        try:
            os.unlink(f"{self.store}/containers/{name}/{STATUS}")
        except FileNotFoundError:
            pass  # it starts for the first time, or had no main process
        group = self.take_spare(limits, pids, may_take_spare)
        request["spare"] = group is not None
        if group is None:
            group = self.make_groups(limits, pids)
        self.groups[name] = group
        if "pids" in group.places:
            limits = {"pids": DEFAULT_PIDS, **limits}
        group.configure(limits)
        self.told[name] = {key: limits[key] for key in TOLD if key in limits}
        for fd, events in group.open_events(cgroups.controllers_of(limits)):
            if events & select.POLLPRI:
                os.read(fd, 4096)  # what was before does not count
            self.watched[fd] = name
            self.poll.register(fd, events)
        self.quotas.add(name, f"{self.store}/containers/{name}", limits.get("disk"), limits.get("inodes"))
        request["processes"] = 0 if "pids" in group.places else DEFAULT_PIDS
        request["cores"] = self.cores.choose(name, limits)
        request["views"] = cores.views(request["cores"]) if request["cores"] else {}
        return group

    def take_spare(self, limits: dict[str, Any], pids: list[int], may: bool) -> cgroups.Group | None:
        """The spare init's groups, if it may be taken and has those that the limits need."""
        needed = cgroups.controllers_of(limits)
        if needed:
            self.hierarchies.claim(pids)
        self.hierarchies.require(limits)
        group = self.spare
        if not may or group is None or any(name not in group.places for name in needed):
            return None
        self.spare = None
        return group

    def give_back(self, name: str) -> None:
        """A start failed before its init was asked for anything: it is spare again."""
        self.spare, self.groups[name] = self.groups[name], cgroups.Group({})

    def make_groups(self, limits: dict[str, Any], pids: list[int]) -> cgroups.Group:
        """New groups; in a launcher of a one-shot command only what the limits need, and none without any,
        since each of v1's hierarchies takes its time to be entered."""
        needed = cgroups.controllers_of(limits)
        if self.keep_spare:
            self.hierarchies.claim(pids)
            needed += [name for name in self.hierarchies.places if name not in (*SELDOM, *needed)]
        elif needed:
            needed += [name for name in ("freezer", "cpuacct") if name in self.hierarchies.places]
        return cgroups.create(self.hierarchies, os.urandom(6).hex(), needed)

    def usage(self, name: str) -> dict[str, float]:
        """What a container uses, and how often it has met its limits."""
        used = self.quotas.usage(name)
        self.write_events(name)
        return {**used, **self.groups[name].usage(), **self.events(name)}

    def events(self, name: str) -> dict[str, int]:
        """How often a container has met its limits."""
        return self.groups[name].events() | self.quotas.events(name)

    def tell(self, fd: int) -> None:
        """A container has met a limit: its kernel finds that in its socket folder."""
        name = self.watched[fd]
        os.read(fd, 4096)  # which arms it again
        self.write_events(name)
        # v1 tells that memory has run out before it has killed and counted anything
        self.later += [(time.monotonic() + delay / 1000, name) for delay in LATER]

    def tell_later(self) -> None:
        """Look again at what was looked at too early."""
        now = time.monotonic()
        due = {name for moment, name in self.later if moment <= now}
        self.later = [(moment, name) for moment, name in self.later if moment > now]
        for name in due & self.told.keys():
            self.write_events(name)

    def write_events(self, name: str) -> None:
        """Write what a container has met into its socket folder, if that has changed."""
        text = flat(self.told[name] | self.events(name))
        if cgroups.read(f"{self.folder}/{name}/{EVENTS}") == text:
            return
        # Whatever stands at these names is the container's doing: made anew, and renamed over, it leads nowhere.
        new = f"{self.folder}/{name}/.{os.urandom(8).hex()}"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "w") as file:
            file.write(text)
        os.rename(new, f"{self.folder}/{name}/{EVENTS}")

    def forget(self, name: str) -> None:
        """A container has ended: its groups go."""
        for fd in [fd for fd, owner in self.watched.items() if owner == name]:
            del self.watched[fd]
            self.poll.unregister(fd)
            os.close(fd)
        self.cores.release(name)
        limits = self.told.pop(name, {})
        if name in self.groups:
            self.note_end(name, self.events(name), limits)
            self.groups.pop(name).remove()
        self.quotas.forget(name)

    def note_end(self, name: str, events: dict[str, int], limits: dict[str, int]) -> None:
        """Leave in the container's folder when it ended and which limits it met, for who asks why."""
        try:
            with open(f"{self.store}/containers/{name}/{EVENTS}", "w") as file:
                file.write(flat({"ended": int(time.time()), **limits, **events}))
        except FileNotFoundError:
            pass  # the container has been removed meanwhile, or there was none


def flat(values: dict[str, int]) -> str:
    """Lines of a name and a number."""
    return "".join(f"{name}={value}\n" for name, value in values.items())
