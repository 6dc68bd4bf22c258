"""What processes of a container may do: their capabilities, system calls, paths, limits and users.

The defaults are Docker's (where Docker and Podman differ, Docker's), with no_new_privs on. Everything holds within the
user namespace of the container: no capability given here is one over the host.
"""

from __future__ import annotations

import os

from nbhull.runtime.linux import process as linux
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALL = "ALL"
UNCONFINED = "unconfined"
KEEP_GROUPS = "keep-groups"
"""as a group: the supplementary groups of who starts the container are kept, unmapped"""

PROFILE_DIGEST = "13d8538cf7055b12"
"""of the sources that filters are made by (`seccomp.digest`), so that one made by others is not used again"""


class Tmpfs(Record):
    """A file system in memory, gone with the container."""

    target: str
    options: tuple[str, ...] = ()
    """size, mode, uid, gid and nr_inodes as tmpfs(5) takes them, each `key=value`"""
    flags: int = 0
    """MOUNT_ATTR_*"""


class Device(Record):
    """A device node of the host handed in."""

    source: str
    target: str
    access: str = "rw"
    """`r`, `w` or `rw`"""


class Ulimit(Record):
    """A resource limit of every process (setrlimit(2)); -1 is no limit."""

    name: str
    soft: int
    hard: int


class Confinement(Record):
    """The security settings of a container."""

    cap_add: tuple[str, ...] = ()
    """capabilities beside the default ones, without CAP_; ALL for all"""
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    """all capabilities, no filter of system calls, nothing masked: within the user namespace"""
    seccomp: str = ""
    """a profile in Docker's JSON format, `unconfined`, or empty for the default one"""
    no_new_privileges: bool = True
    system_paths: bool = True
    """mask and write-protect the kernel's files that tell of the host or change it"""
    read_only: bool = False
    """the image's files cannot be changed"""
    tmpfs: tuple[Tmpfs, ...] = ()
    devices: tuple[Device, ...] = ()
    gpus: str = ""
    """`all`, a count, or `device=` and indices; empty for none"""
    user: str | None = None
    """`user[:group]` of processes that name none; None means root"""
    groups: tuple[str, ...] = ()
    """supplementary groups of all processes, by name or number"""
    ulimits: tuple[Ulimit, ...] = ()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Confinement:
        """The inverse of `to_dict`."""
        kinds: dict[str, type[Record]] = {"tmpfs": Tmpfs, "devices": Device, "ulimits": Ulimit}
        fields: dict[str, Any] = {}
        for key, value in data.items():
            if key in kinds:
                value = [kinds[key](**item) for item in value]
            fields[key] = tuple(value) if isinstance(value, list) else value
        return cls(**fields)


USUAL = Confinement()


def check(confinement: Confinement, image_base: str, store: str) -> None:
    """Raise InvalidInput, NotFound or HostUnable for what could not be given at a start."""
    from nbhull.runtime.errors import HostUnable, InvalidInput

    for name in (*confinement.cap_add, *confinement.cap_drop):
        if name != ALL and name not in linux.CAPABILITIES:
            raise InvalidInput(f"{name[:80]!r} is no capability", "see capabilities(7)")
    for limit in confinement.ulimits:
        if limit.name not in linux.RLIMITS:
            raise InvalidInput(f"there is no resource limit {limit.name[:80]!r}", "see setrlimit(2)")
        _, hard = linux.get_rlimit(linux.RLIMITS[limit.name])
        if hard != -1 and (limit.hard == -1 or limit.hard > hard):
            raise HostUnable(
                f"the resource limit {limit.name} cannot be raised to {limit.hard}: here it is at most {hard}",
                f"ask for {hard} at most, or raise the hard limit of who starts nbhull",
            )
    if confinement.devices or confinement.gpus:
        from nbhull.runtime import devices

        devices.mounts(confinement, image_base)
    plan(confinement, store)


def capabilities(confinement: Confinement) -> frozenset[str]:
    """The bounding set, as Docker makes it of what is added and dropped; but what is dropped by name is never had,
    so that dropping more can only tighten."""
    names = linux.DEFAULT_CAPABILITIES
    if confinement.privileged or ALL in confinement.cap_add:
        names = frozenset(linux.CAPABILITIES)
    if ALL in confinement.cap_drop:
        names = frozenset()
    return (names | (set(confinement.cap_add) - {ALL})) - set(confinement.cap_drop)


def plan(confinement: Confinement, store: str) -> dict[str, Any]:
    """What a container's init is told. Raises InvalidInput for a profile that cannot be compiled."""
    names = capabilities(confinement)
    custom = bool(confinement.seccomp)
    return {
        "capabilities": linux.capability_mask(names),
        "seccomp": seccomp_filter(confinement, names, store),
        # One of the user's may refuse what init itself needs, so init does without.
        "filter_init": not custom or not confinement.no_new_privileges,
        "no_new_privileges": confinement.no_new_privileges,
        "system_paths": confinement.system_paths and not confinement.privileged,
        "privileged": confinement.privileged,
        "read_only": confinement.read_only,
        "keep_groups": KEEP_GROUPS in confinement.groups,
        "ulimits": [(linux.RLIMITS[limit.name], limit.soft, limit.hard) for limit in confinement.ulimits],
    }


def seccomp_filter(confinement: Confinement, names: frozenset[str], store: str) -> bytes:
    """The BPF program, from the store where it was compiled before; empty for none."""
    if confinement.privileged or confinement.seccomp == UNCONFINED:
        return b""
    digest = PROFILE_DIGEST
    if confinement.seccomp:
        from hashlib import sha256

        digest = sha256(f"{PROFILE_DIGEST} {confinement.seccomp}".encode()).hexdigest()
    path = f"{store}/seccomp/{digest[:32]}-{os.uname().machine}-{linux.capability_mask(names):x}"
    try:
        with open(path, "rb") as file:
            program = file.read()
    except FileNotFoundError:
        program = b""
    if not program:  # an empty file would be no filter at all
        from nbhull.runtime.seccomp import compiled

        program = compiled(confinement.seccomp, names)
        keep(path, program)
    return program


def keep(path: str, data: bytes) -> None:
    """Write a file whole or not at all; the folder is made if it is missing."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    with open(temporary, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, path)
