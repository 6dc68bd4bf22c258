"""The nouns of the engine as plain, validated data: what a container, a process and an image are."""

from __future__ import annotations

from nbhull.runtime.confinement import Confinement
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.limits import Limits as Limits
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Network = Literal["host", "nat", "none"]
    Protocol = Literal["tcp", "udp"]
    State = Literal["created", "running", "stopped"]
else:
    Network = Protocol = State = str  # the names are imported where the module typing is not


LONGEST_NAME = 128
"""characters of what a container, a snapshot or a tag may be called (the OCI distribution spec's tag grammar)"""

EMPTY: dict[str, str] = {}
"""a default that nobody changes"""

HOST_IMAGE = "host"
"""The embedded default image: this machine's own system and Python environment, read-only."""

UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_bytes(text: str | int, what: str = "memory limit") -> int:
    """A size in bytes from `536870912`, `512m`, `512 MB`, `0.5GiB` (units are powers of 1,024).

    Raises InvalidInput for anything else, and for sizes that are not positive.
    """
    import re

    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", str(text).lower())
    if isinstance(text, bool) or match is None:
        raise InvalidInput(f"{what} {str(text)!r} is not a size", "write it like 512m or 2g")
    size = int(float(match[1]) * UNITS[match[2]])
    if size <= 0:
        raise InvalidInput(f"{what} {str(text)!r} is not positive", "write it like 512m or 2g")
    return size


def is_word(text: str, others: str) -> bool:
    """Whether `text` is made of ASCII letters, digits and, but for the first one, `others`."""
    return text[:1].isalnum() and text.isascii() and all(c.isalnum() or c in others for c in text)


def is_name(text: object) -> bool:
    """Whether it is a valid name for a container, a snapshot or a tag."""
    return isinstance(text, str) and len(text) <= LONGEST_NAME and is_word(text, "_.-")


def parse_name(text: str, what: str = "name") -> str:
    """`text`, if it is a valid name; raises InvalidInput otherwise (the text is shown escaped)."""
    if not is_name(text):
        raise InvalidInput(
            f"{what} {text!r} is not valid", "use letters, digits, '_', '.', '-', at most 128, no leading '.' or '-'"
        )
    return text


class Mount(Record):
    """A folder or file of the host, or a named volume, handed in to a container at `target`, an absolute path."""

    source: str
    """an absolute path, or the name of a volume"""
    target: str
    read_only: bool = False

    @property
    def is_volume(self) -> bool:
        """Whether it is a named volume."""
        return not self.source.startswith("/")


class Port(Record):
    """A port of the machine that leads to one of a container."""

    outside: int
    inside: int
    protocol: Protocol = "tcp"
    address: str = ""
    """of the machine, on which it is published; empty means all of them"""


class ContainerSpec(Record):
    """All that a container is made from."""

    image: str = HOST_IMAGE
    """an image's or a snapshot's name or id"""
    name: str | None = None
    """a name of its own, unique among containers; None takes one from the id"""
    hostname: str | None = None
    limits: Limits = Limits()
    network: Network | None = None
    """None means `nat` where it can be had, else `host`"""
    publish: tuple[Port, ...] = ()
    dns: tuple[str, ...] = ()
    """addresses of name servers in place of the machine's"""
    hosts: tuple[tuple[str, str], ...] = ()
    """pairs of a name and an address for hosts(5)"""
    mounts: tuple[Mount, ...] = ()
    env: dict[str, str] = EMPTY
    """environment of every process in it, over the image's own"""
    environment: str | None = None
    """for the image `host`: the prefix of the Python environment that shows through, such as
    sys.prefix of the Jupyter server; None means the environment that nbhull itself runs in"""
    labels: dict[str, str] = EMPTY
    host_settings: bool = True
    """hand in what the host has to reach the network: proxies, certificates, settings of pip, npm and apt"""
    confinement: Confinement = Confinement()
    transient: bool = False
    """it is removed when its command ends, so its files need not outlive a crash of the machine, and are not
    written to the disk for its end"""


class ProcessSpec(Record):
    """A process to start in a running container."""

    argv: tuple[str, ...]
    env: dict[str, str] = EMPTY
    """over the container's environment"""
    cwd: str | None = None
    """absolute path inside; None means the image's working folder. Must exist"""
    user: str | None = None
    """`user[:group]` inside, by name or number; None means the container's"""
    tty: bool = False
    """make standard input (a terminal) the controlling terminal"""


class Image(Record):
    """An image or snapshot in the store."""

    id: str
    name: str
    """its tag; `host` for the embedded image"""
    parent: str | None
    """id of the image it was snapshotted from"""
    created: float
    """seconds since the epoch"""
    size: int | None
    """bytes of its own layer; None until it was listed, since that takes as long as it has files"""
    base: str = "host"
    """`host`, or `oci` for one whose layers are its whole root file system"""
    note: str = ""
    """what somebody wrote about it"""
    pinned: bool = False
    """never removed without being asked for"""
    auto: str = ""
    """what it was made for without being asked for, such as `reset`; removed when there are many"""

    road: str = ""
    """of a snapshot just taken: `moved` (the container went on upon new files, which takes as long whatever it has
    written) or `copied` (its changed files were copied)"""
    reason: str = ""
    """why they had to be copied"""


class End(Record):
    """How a container ended."""

    when: float
    """seconds since the epoch"""
    status: int | None
    """of its main process, as `subprocess.Popen.returncode` has it; None where it had none"""
    reason: str
    """in a sentence, where it was not the command that ended well by itself"""
    short: str
    """in a few words"""


class Container(Record):
    """A container as the store's index knows it."""

    id: str
    name: str
    image: str
    """name of the image it was made from"""
    state: State
    created: float
    socket_folder: str
    """a private folder present at the same absolute path inside and outside, for Unix sockets;
    empty unless running. It goes when the container stops"""
    spec: ContainerSpec
    snapshot: str | None = None
    """id of the snapshot that it was last reset to or snapshotted as"""
    end: End | None = None
    """of one that has stopped, how it ended, where that was seen"""
    notices: tuple[str, ...] = ()
    """what who started it should know, such as a network other than the usual; of `Engine.start` alone"""

    def has_volume(self, name: str) -> bool:
        """Whether a volume of that name is mounted in it."""
        return any(mount.is_volume and mount.source == name for mount in self.spec.mounts)


class Usage(Record):
    """What a container uses now; None where the machine cannot tell."""

    memory: int | None = None
    """bytes, without the file cache that the kernel can drop at once (as Docker counts)"""
    memory_limit: int | None = None
    swap: int | None = None
    pids: int | None = None
    pids_limit: int | None = None
    cpu_seconds: float | None = None
    io_read: int | None = None
    """bytes from block devices"""
    io_written: int | None = None
    disk: int | None = None
    """bytes of its own files, where they have a quota"""
    disk_limit: int | None = None
    disk_project: int | None = None
    """the file system's project that keeps the quota; None where the files are measured"""
    inodes: int | None = None
    oom_kills: int | None = None
    """processes killed for lack of memory"""
    memory_hits: int | None = None
    """how often the memory limit was met"""
    pids_hits: int | None = None
    """how often a process or thread was refused"""
    disk_hits: int | None = None
    """how often it went over its disk quota"""
