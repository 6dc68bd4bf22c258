"""What a container may use at most, and what programs in it are told of that."""

from __future__ import annotations

from nbhull.runtime import cores
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "JULIA_NUM_THREADS",
    "GOMAXPROCS",
    "LOKY_MAX_CPU_COUNT",
    "PYTHON_CPU_COUNT",
)
"""variables that libraries take the size of their thread pools from; the last is os.cpu_count's (Python 3.13)"""


class Limits(Record):
    """What a container may use at most; None, or an empty tuple, means no limit of its own."""

    memory: int | None = None
    """bytes of memory, swap included"""
    cpus: float | None = None
    """cores, such as 1.5"""
    pids: int | None = None
    """processes and threads; None means 4,096 where that can be had"""
    memory_swap: int | None = None
    """bytes of memory and swap together; None means `memory`, so no swap; -1 means swap without limit"""
    cpu_shares: int | None = None
    """weight against other containers while cores are short, 2 to 262,144; 1,024 is the usual one"""
    cpuset: str | None = None
    """the cores it may use, such as `0-2,5`"""
    blkio_weight: int | None = None
    """weight against others while a disk is busy, 10 to 1,000"""
    device_read_bps: tuple[str, ...] = ()
    """bytes a second of block devices, each as `/dev/sda:1048576`; so for the next three, iops being operations"""
    device_write_bps: tuple[str, ...] = ()
    device_read_iops: tuple[str, ...] = ()
    device_write_iops: tuple[str, ...] = ()
    disk: int | None = None
    """bytes of the container's own files"""
    inodes: int | None = None
    """how many files and folders of its own it may have"""

    @staticmethod
    def from_dict(fields: dict[str, Any]) -> Limits:
        """The inverse of `to_dict`, also after a way through JSON."""
        values: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in fields.items()}
        return Limits(**values)

    def check(self) -> None:
        """Raise InvalidInput for limits that contradict each other."""
        if self.memory_swap is not None:
            if self.memory is None:
                raise InvalidInput("memory-swap is given without memory", "give a memory limit too")
            if self.memory_swap != -1 and self.memory_swap < self.memory:
                raise InvalidInput(
                    f"memory-swap {self.memory_swap} is smaller than memory {self.memory}, which it includes",
                    "give the sum of memory and swap",
                )

    def has_quota(self) -> bool:
        """Whether the container's own files are limited."""
        return self.disk is not None or self.inodes is not None

    def given(self) -> dict[str, Any]:
        """The limits that are set, as plain data."""
        return {name: value for name, value in self.to_dict().items() if value not in (None, [])}


def from_values(values: dict[str, Any]) -> Limits:
    """The limits that the options of a verb give. Raises InvalidInput where they contradict each other."""
    names = {"pids": "pids_limit", "cpuset": "cpuset_cpus"}
    fields = {name: values.get(names.get(name, name)) for name in Limits._fields if name not in ("disk", "inodes")}
    fields |= dict(values.get("storage_opt") or ())
    limits = Limits(**{name: value for name, value in fields.items() if value is not None})
    limits.check()
    return limits


def environment(limits: Limits) -> dict[str, str]:
    """Variables that make thread pools fit a limit of cores."""
    count = cores.count(limits.cpus, limits.cpuset)
    return {} if count is None else dict.fromkeys(THREADS, str(count))


def parse_cpuset(text: str) -> str:
    """A list of cores, written as the kernel does. Raises InvalidInput."""
    return cores.write(cores.parse(text))


def parse_pids(text: str | int) -> int:
    """A positive count; raises InvalidInput."""
    try:
        return parse_whole(text, "pids limit", 1, 999_999_999)
    except InvalidInput as error:
        raise InvalidInput(f"{str(text)[:80]!r} is not a positive whole number", "write it like 200") from error


def parse_whole(text: str | int, what: str, least: int, most: int) -> int:
    """A whole number within bounds; raises InvalidInput."""
    digits = str(text)
    is_whole = digits.isascii() and digits.isdigit() and len(digits) < 19
    if isinstance(text, bool) or not is_whole or not least <= int(text) <= most:
        raise InvalidInput(f"{what} {str(text)[:80]!r} is not a whole number from {least} to {most}")
    return int(text)


def parse_cpu_shares(text: str | int) -> int:
    """A weight as Docker has it; raises InvalidInput."""
    return parse_whole(text, "cpu shares", 2, 262_144)


def parse_blkio_weight(text: str | int) -> int:
    """A weight as Docker has it; raises InvalidInput."""
    return parse_whole(text, "blkio weight", 10, 1000)


def parse_memory_swap(text: str | int) -> int:
    """Bytes, or -1; raises InvalidInput."""
    from nbhull.runtime.model import parse_bytes

    return -1 if str(text).strip() == "-1" else parse_bytes(text, "memory-swap limit")


def parse_disk(text: str | int) -> int:
    """Bytes of a disk quota; raises InvalidInput."""
    from nbhull.runtime.model import parse_bytes

    return parse_bytes(text, "disk quota")


def parse_inodes(text: str | int) -> int:
    """A count of files and folders; raises InvalidInput."""
    return parse_whole(text, "inode quota", 1, 10**15)


def parse_storage_opt(text: str) -> tuple[str, int]:
    """`size=10g` as Docker has it, or `inodes=100000`; raises InvalidInput."""
    name, _, value = str(text).partition("=")
    if name == "size":
        return "disk", parse_disk(value)
    if name == "inodes":
        return "inodes", parse_inodes(value)
    raise InvalidInput(f"storage option {str(text)[:80]!r} is not known", "write size=10g or inodes=100000")


def parse_device_bps(text: str) -> str:
    """`/dev/sda:10m` as `/dev/sda:10485760`; raises InvalidInput."""
    from nbhull.runtime.model import parse_bytes

    device, _, rate = device_and_rate(text)
    return f"{device}:{parse_bytes(rate, 'rate')}"


def parse_device_iops(text: str) -> str:
    """`/dev/sda:100`; raises InvalidInput."""
    device, _, rate = device_and_rate(text)
    return f"{device}:{parse_whole(rate, 'rate', 1, 10**12)}"


def device_and_rate(text: str) -> tuple[str, str, str]:
    """The two sides of the last colon. Raises InvalidInput."""
    device, colon, rate = str(text).rpartition(":")
    if not colon or not device.startswith("/"):
        raise InvalidInput(f"{str(text)[:80]!r} is not of the form DEVICE:RATE", "write it like /dev/sda:10m")
    return device, colon, rate
