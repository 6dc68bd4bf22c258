"""Device nodes of the host handed in, NVIDIA's GPUs with their driver's libraries among them.

What a container may do with a device is told by its node alone: no node can be made in a user namespace (mknod(2)
is refused there), and every other mount is nodev. Imported only where a device is asked for.
"""

from __future__ import annotations

import os
import re
import stat

from nbhull.runtime.confinement import KEEP_GROUPS, Confinement, Device
from nbhull.runtime.errors import HostUnable, InvalidInput, NotFound
from nbhull.runtime.linux.process import has_capability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GPU = re.compile(r"nvidia(\d+)")
SHARED = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")
"""nodes that every user of a GPU needs, where they are"""
LIBRARY_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
LIBRARY = re.compile(r"lib(cuda|cudadebugger|nv(idia|cuvid|optix|rm)[\w-]*)\.so(\.[\d.]+)?")
PROGRAMS = ("nvidia-smi", "nvidia-debugdump", "nvidia-persistenced", "nvidia-cuda-mps-control")


def mounts(confinement: Confinement, image_base: str) -> list[dict[str, Any]]:
    """What a start mounts for a container's devices and GPUs.

    Raises NotFound, InvalidInput and HostUnable where one cannot be handed in as it was asked for."""
    wanted = [inner for device in confinement.devices for inner in expanded(device)]
    found = []
    if confinement.gpus:
        wanted += gpu_devices(confinement.gpus)
        if image_base != "host":  # there the driver shows through with /usr
            found += [library_mount(path) for path in driver_files()]
    if wanted and not has_capability("MKNOD"):
        for device in wanted:
            refuse_inaccessible(device, keep_groups=KEEP_GROUPS in confinement.groups)
    return found + [
        {"kind": "device", "at": d.target, "source": d.source, "owned": True, "access": d.access} for d in wanted
    ]


def expanded(device: Device) -> list[Device]:
    """A device, or all of a folder."""
    try:
        kind = os.stat(device.source).st_mode
    except OSError as error:
        raise NotFound(
            f"cannot hand in the device {device.source!r}: {error.strerror}", "give the path of an existing device"
        ) from error
    if stat.S_ISDIR(kind):
        found = [
            Device(path, device.target + path[len(device.source) :], device.access)
            for folder, _, names in os.walk(device.source)
            for path in (os.path.join(folder, name) for name in sorted(names))
            if is_device(path)
        ]
        if not found:
            raise InvalidInput(f"the folder {device.source!r} has no devices in it", "give the path of a device")
        return found
    if not is_device(device.source):
        raise InvalidInput(f"{device.source!r} is no device", "hand in other files by -v")
    return [device]


def is_device(path: str) -> bool:
    """Whether a path is a device node, links followed."""
    kind = os.stat(path).st_mode
    return stat.S_ISCHR(kind) or stat.S_ISBLK(kind)


def refuse_inaccessible(device: Device, *, keep_groups: bool) -> None:
    """An ordinary user's device is the host's own node: the container gets what the user may do with it, no more, and
    no less than that either."""
    needed = {"r": os.R_OK, "w": os.W_OK, "rw": os.R_OK | os.W_OK}[device.access]
    if not os.access(device.source, needed):
        raise InvalidInput(
            f"this user may not open the device {device.source!r} for {device.access}",
            f"see its owner and group: ls -l {device.source}",
        )
    status = os.stat(device.source)
    if status.st_uid == os.getuid():
        bits = status.st_mode >> 6
    else:
        bits = status.st_mode >> 3 if status.st_gid == os.getgid() else status.st_mode
    if not keep_groups and bits & needed != needed:
        raise InvalidInput(
            f"the device {device.source!r} is open to this user by a supplementary group alone, which containers lose",
            f"add --group-add {KEEP_GROUPS}",
        )
    if device.access != "rw" and os.access(device.source, os.R_OK | os.W_OK):
        raise InvalidInput(
            f"the device {device.source!r} cannot be handed in for {device.access!r} only: this user may do both",
            "hand it in for rw, or start as root, who can make a node of its own",
        )


def gpu_devices(wanted: str, folder: str = "/dev") -> list[Device]:
    """The nodes of the GPUs: `all`, the first so many, or `device=` and their indices.

    Raises HostUnable where there are none, NotFound for one that is not there."""
    names = sorted(os.listdir(folder))
    gpus = {int(match[1]): name for name in names if (match := GPU.fullmatch(name))}
    if not gpus:
        raise HostUnable(
            f"no NVIDIA GPU can be handed in: there is no {folder}/nvidia0",
            "install NVIDIA's driver and load its module (nvidia-smi makes the nodes), or leave out --gpus",
        )
    if wanted == "all":
        chosen = sorted(gpus)
    elif wanted.startswith("device="):
        chosen = [int(index) for index in wanted.removeprefix("device=").split(",")]
    else:
        chosen = sorted(gpus)[: int(wanted)]
        if len(chosen) < int(wanted):
            raise NotFound(f"{wanted} GPUs are asked for, and {len(gpus)} are here", "ask for fewer, or for all")
    for index in chosen:
        if index not in gpus:
            raise NotFound(f"there is no GPU {index}", "one of: " + ", ".join(map(str, sorted(gpus))))
    paths = [gpus[index] for index in chosen] + [name for name in SHARED if name in names]
    capabilities = f"{folder}/nvidia-caps"
    if os.path.isdir(capabilities):
        paths += [f"nvidia-caps/{name}" for name in sorted(os.listdir(capabilities))]
    return [Device(f"{folder}/{path}", f"/dev/{path}") for path in paths]


def driver_files() -> list[str]:
    """The driver's libraries and programs on this machine."""
    found = [f"/usr/bin/{name}" for name in PROGRAMS if os.path.exists(f"/usr/bin/{name}")]
    for folder in LIBRARY_FOLDERS:
        if os.path.isdir(folder) and not os.path.islink(folder):
            found += [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if LIBRARY.fullmatch(name)]
    return found


def library_mount(path: str) -> dict[str, Any]:
    """A read-only bind of one of the system's files at its own path."""
    return {
        "kind": "bind",
        "at": path,
        "source": os.path.realpath(path),
        "owned": False,
        "read_only": True,
        "recursive": False,
    }
