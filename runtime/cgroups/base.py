"""What the versions of cgroups have in common: settings, files, and groups that go."""

from __future__ import annotations

import errno
import os
import time

from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.linux.process import write_file
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PERIOD = 100_000
"""microseconds; the scheduler's bandwidth period, the kernel's default"""
DEVICE_RATES = {
    "device_read_bps": ("read_bps_device", "rbps"),
    "device_write_bps": ("write_bps_device", "wbps"),
    "device_read_iops": ("read_iops_device", "riops"),
    "device_write_iops": ("write_iops_device", "wiops"),
}
"""by the limit's name: the file blkio.throttle.… of v1, and the key in io.max of v2"""


class Setting(Record):
    """One file of a group to write."""

    controller: str
    files: tuple[str, ...]
    """names that kernels have for it; the first that exists is written"""
    text: str
    optional: bool = False
    """nothing is lost where the kernel has no such file"""


class Version:
    """What one version of cgroups does its own way. `folders` are a group's, by controller."""

    number = 0

    def settings(self, limits: dict[str, Any], folders: dict[str, str]) -> list[Setting]:
        """What to write for the limits (by the names of `limits.Limits`), in order."""
        raise NotImplementedError

    def usage(self, folders: dict[str, str]) -> dict[str, float]:
        """What the group uses, by the field names of `model.Usage`; what is not known is left out."""
        raise NotImplementedError

    def events(self, folders: dict[str, str]) -> dict[str, int]:
        """How often the group has met its limits: `oom_kills` (processes killed), `memory_hits` and `pids_hits`."""
        raise NotImplementedError

    def open_events(self, folders: dict[str, str], limited: set[str]) -> list[tuple[int, int]]:
        """Descriptors, each with the poll(2) events that tell that `events` have changed, for the
        controllers that `limited` names. The caller closes them."""
        raise NotImplementedError

    def freeze(self, folder: str, frozen: bool) -> None:
        """Stop or continue all processes, and wait until it is so."""
        raise NotImplementedError


def swap_total(limits: dict[str, Any]) -> int:
    """Bytes of memory and swap together: as given, else the memory limit, so that there is no swap; -1: no limit."""
    total: int | None = limits.get("memory_swap")
    return int(limits["memory"]) if total is None else total


def has_swap() -> bool:
    """Whether this machine swaps at all."""
    return len(read("/proc/swaps").splitlines()) > 1


def device_rates(limits: dict[str, Any]) -> list[tuple[str, str, int]]:
    """The (limit's name, device number, rate) of each limit of a block device, from texts like `/dev/sda:1048576`."""
    found = []
    for name in DEVICE_RATES:
        for text in limits.get(name) or ():
            path, _, rate = text.rpartition(":")
            found.append((name, device_number(path), int(rate)))
    return found


def device_number(path: str) -> str:
    """`MAJOR:MINOR` of a block device. Raises NotFound, InvalidInput."""
    import stat

    try:
        status = os.stat(path)
    except OSError as error:
        raise NotFound(f"cannot limit the device {path!r}: {error.strerror}", "`lsblk` lists block devices") from error
    if not stat.S_ISBLK(status.st_mode):
        raise InvalidInput(f"{path!r} is not a block device", "`lsblk` lists block devices")
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def counters(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    fields = [line.split() for line in text.splitlines()]
    return {field[0]: int(field[1]) for field in fields if len(field) == 2 and field[1].isdigit()}


def number_in(path: str) -> int | None:
    """The number that a file holds; None for `max`, for what v1 has in its place, and where there is no such file."""
    text = read(path).strip()
    return int(text) if text.isdigit() and int(text) < 1 << 62 else None


def read(path: str) -> str:
    """A file's text; empty if there is none."""
    try:
        with open(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


def thaw(folder: str) -> None:
    """Let frozen processes go on, so that they can end: cgroup v1 delivers not even SIGKILL to them."""
    try:
        write_file(f"{folder}/freezer.state", "THAWED")
    except FileNotFoundError:
        pass  # v2, another controller's folder, or gone already


def remove_when_empty(folder: str, patience: float = 5.0) -> None:
    """rmdir(2) a group whose processes were just killed: it is busy until the last one is gone."""
    deadline = time.monotonic() + patience
    while True:
        try:
            os.rmdir(folder)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.002)
