"""What a container's file system is composed of: from an image's record and a spec to a list of mounts."""

from __future__ import annotations

import os

from nbhull.runtime import hostimage, network
from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.files import remove_tree
from nbhull.runtime.model import ContainerSpec
from nbhull.runtime.snapshots import chains, generations
from nbhull.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.limits import Limits

    ImageRecord = dict[str, Any]

ROOT, ETC = "root", "etc"
"""keys of the parts that every image, and the image `host`, has"""
OWN_ROOT = "oci"
"""`base` of images whose root file system is their layers alone"""
OF_VOLUME, DATA = "volume", "data"
"""`base` of the snapshots of volumes, and the key of the one part that these have"""
PLACES = ("/proc", "/sys", "/dev", "/run")
"""what is mounted on in every container"""


def host_record(environment: str | None) -> ImageRecord:
    """What the store keeps of a container, or snapshot, of the image `host`."""
    prefix = os.path.normpath(environment or hostimage.current_environment())
    return {"base": "host", "environment": prefix, "parts": hostimage.environment_parts(prefix)}


def skeleton(store: Store) -> str:
    """The image's lowest layer, made on first use; a path relative to the store."""
    name = hostimage.skeleton_name()
    folder = store.path("skeletons", name)
    if not os.path.isdir(folder):
        temporary = f"{folder}.{os.getpid()}.{os.urandom(4).hex()}"
        os.mkdir(temporary, 0o755)
        hostimage.build_skeleton(temporary)
        try:
            os.rename(temporary, folder)
        except OSError:
            remove_tree(temporary)
            if not os.path.isdir(folder):
                raise
    return f"skeletons/{name}"


def keys(record: ImageRecord) -> list[str]:
    """The names of a container's writable parts, or of a volume's one part."""
    if record["base"] == OF_VOLUME:
        return [DATA]
    if record["base"] == OWN_ROOT:
        return [ROOT]
    return [ROOT, ETC, *(part["key"] for part in record["parts"] if part["kind"] == "overlay")]


def image_folders(record: ImageRecord) -> list[tuple[str, bool]]:
    """The folders that an image's configuration speaks of, as mount points, which are there if nothing else is."""
    config = record["config"]
    wanted = [*PLACES, *config["volumes"], f"/{config['working_dir'].strip('/')}"]
    paths = [os.path.normpath("/" + path.lstrip("/")) for path in wanted]
    return [(path, True) for path in paths if path != "/"]


def make_folder(folder: str, limits: Limits) -> None:
    """The folder of a new container, of a project of its own where that is to keep its quota."""
    os.mkdir(folder, 0o700)
    if limits.has_quota():
        from nbhull.runtime import projects

        projects.assign(folder)


def release_folder(folder: str, limits: Limits) -> None:
    """The folder is about to go, and with it its quota."""
    if limits.has_quota():
        from nbhull.runtime import projects

        projects.release(folder)


def make_mountpoints(folder: str, targets: list[tuple[str, bool]]) -> None:
    """A layer with just the (path, is a folder) that will be mounted on, so that they need not be made in
    the container's own files."""
    os.mkdir(folder, 0o755)
    for target, is_folder in targets:
        path = folder + target
        os.makedirs(path if is_folder else os.path.dirname(path), 0o755, exist_ok=True)
        if not is_folder and not os.path.lexists(path):
            with open(path, "x"):
                pass
    for name, mode in hostimage.FOLDERS.items():
        if os.path.isdir(f"{folder}/{name}"):
            os.chmod(f"{folder}/{name}", mode)  # this layer's folders lie over the skeleton's


def make_files(folder: str, record: ImageRecord, hostname: str, identity: str) -> None:
    """The layer of each container's own files: those of /etc, which the image `host` has an overlay of its own for."""
    os.mkdir(folder, 0o755)
    etc = etc_folder(folder, record)
    if etc != folder:
        os.mkdir(etc, 0o755)
    write_files(etc, {"hostname": f"{hostname}\n", "machine-id": f"{identity:0<32}\n"})
    os.symlink("/proc/self/mounts", f"{etc}/mtab")


def etc_folder(folder: str, record: ImageRecord) -> str:
    """Where the files of /etc lie in the layer of a container's own files."""
    return f"{folder}/etc" if record["base"] == OWN_ROOT else folder


def make_network_files(folder: str, spec: ContainerSpec, record: ImageRecord, plan: network.Plan) -> None:
    """Those that say how its network is at this start: hosts(5), resolv.conf(5)."""
    hosts, resolver = network.hosts(plan, record["hostname"], spec.hosts), network.resolv_conf(plan, spec.dns)
    write_files(etc_folder(folder, record), {"hosts": hosts, "resolv.conf": resolver})


def hand_settings(folder: str, spec: ContainerSpec, record: ImageRecord) -> dict[str, str]:
    """The variables of the host's settings; their files, in a new folder, for images that have none of the host's."""
    if not spec.host_settings:
        return {}
    if record["base"] != OWN_ROOT:
        return hostimage.network_environment()
    from nbhull.runtime import hostsettings

    settings = hostsettings.read()
    os.mkdir(folder, 0o755)
    for path, content in settings.files.items():
        with open(f"{folder}/{os.path.basename(path)}", "xb") as file:
            file.write(content)
    return settings.env


def write_files(folder: str, files: dict[str, str]) -> None:
    """Write files that all may read."""
    for name, text in files.items():
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)


def is_same_base(one: ImageRecord, other: ImageRecord) -> bool:
    """Whether what was changed on one can be put on the other."""
    return all(one.get(key) == other.get(key) for key in ("base", "environment", "foundation"))


def check_mounts(spec: ContainerSpec, record: ImageRecord) -> list[tuple[str, bool]]:
    """The (target, is a folder) of all that will be mounted. Raises NotFound, InvalidInput."""
    targets = [(part["at"], True) for part in record["parts"]]
    targets += [(mount["at"], mount["folder"]) for mount in record.get("step", ())]
    for mount in spec.mounts:
        for path in (mount.target,) if mount.is_volume else (mount.source, mount.target):
            if not os.path.isabs(path) or "\0" in path or os.path.normpath(path) != path.rstrip("/"):
                raise InvalidInput(
                    f"the mount's path {path!r} is not a plain absolute path", "write it from / on, without `..`"
                )
        if mount.is_volume:
            refuse_target(mount.target, record, ("/run",))
            targets.append((mount.target, True))
            continue
        if not os.path.exists(mount.source):
            raise NotFound(f"the folder {mount.source!r} to mount does not exist", "make it, or correct the mount")
        if not os.access(mount.source, os.R_OK):
            raise InvalidInput(
                f"the folder {mount.source!r} to mount cannot be read by this user",
                "change its mode, or correct the mount",
            )
        refuse_target(mount.target, record, ("/run",))
        targets.append((mount.target, os.path.isdir(mount.source)))
    for tmpfs in spec.confinement.tmpfs:
        refuse_target(tmpfs.target, record)
        targets.append((tmpfs.target, True))
    if record["base"] == OWN_ROOT:
        return targets + image_folders(record)
    return [
        (path, is_folder)
        for path, is_folder in targets
        if not hostimage.is_system(path) and not hostimage.within(path, "/etc")
    ]


def refuse_target(target: str, record: ImageRecord, also: tuple[str, ...] = ()) -> None:
    """Nothing is mounted over what every container has of its own. Raises InvalidInput."""
    system = () if record["base"] == OWN_ROOT else (f"/{name}" for name in hostimage.SYSTEM)
    own = ("/", "/etc", *system, *also)
    if target.split("/")[1] in ("proc", "sys", "dev") or target in own:
        raise InvalidInput(f"nothing can be mounted on {target!r}", "choose another target")


def compose(
    store: Store, identity: str, spec: ContainerSpec, record: ImageRecord, top: str | None, socket_folder: str
) -> dict[str, Any]:
    """The `root`, `mounts` and `generation` of a start request; `top`: id of the newest of the snapshots' layers."""
    own = generations.own(store, identity, record)
    root, *parts = writable_parts(store, identity, record, top, own)
    for part in (root, *parts):
        part["volatile"] = spec.transient
    mounts = [*parts, *(part for part in record["parts"] if part["kind"] != "overlay")]
    if record["base"] != OWN_ROOT:
        mounts += hostimage.system_mounts()
    if "step" in record:  # of a build: what is not the step's own would end in the image, or be missed in it
        return {"root": root, "mounts": record["step"], "generation": own[-1], "empty_run": False}
    if named := [mount for mount in spec.mounts if mount.is_volume]:
        from nbhull.runtime import volumes

        mounts += volumes.mounts(record["volumes"], named)
    folders = [(m.source, m.target, m.read_only) for m in spec.mounts if not m.is_volume]
    handed_in = [*folders, (socket_folder, socket_folder, False)]
    for source, target, read_only in handed_in:
        mounts.append(
            {
                "kind": "bind",
                "at": target.rstrip("/"),
                "source": source,
                "owned": True,
                "read_only": read_only,
                "recursive": False,
            }
        )
    if record["base"] == OWN_ROOT and spec.host_settings:
        from nbhull.runtime.hostsettings import FOLDER

        mounts.append(
            {
                "kind": "bind",
                "at": FOLDER,
                "source": f"containers/{identity}/host",
                "owned": False,
                "read_only": True,
                "recursive": False,
            }
        )
    mounts += library_mounts()
    mounts += [
        {"kind": "tmpfs", "at": tmpfs.target, "options": tmpfs.options, "flags": tmpfs.flags, "owned": False}
        for tmpfs in spec.confinement.tmpfs
    ]
    if spec.confinement.devices or spec.confinement.gpus:
        from nbhull.runtime import devices

        mounts += devices.mounts(spec.confinement, record["base"])
    mounts.sort(key=lambda mount: mount["at"].count("/"))
    return {"root": root, "mounts": mounts, "generation": own[-1]}


def writable_parts(
    store: Store, identity: str, record: ImageRecord, top: str | None, own: list[int]
) -> list[dict[str, Any]]:
    """The overlays of a container, the root first; `top`: its newest layer of a snapshot; `own`: its generations, of
    which the last is written to."""
    here = f"containers/{identity}"
    current = generations.folder(identity, own[-1])
    chain = chains.folders(store, top, record.get("foundation", []))

    def writable(
        key: str, at: str, lowers: list[str], source: str | None = None, *, owned: bool = False
    ) -> dict[str, Any]:
        below = [f"{generations.folder(identity, number)}/{key}" for number in reversed(own[:-1])]
        below += [f"{folder}/{key}" for folder in chain if os.path.isdir(store.path(folder, key))]
        part = {
            "kind": "overlay",
            "key": key,
            "at": at,
            "owned": owned,
            "lowers": [*below, *lowers],
            "upper": f"{current}/{key}",
            "work": f"{current}{generations.WORK}/{key}",
            "like": below[0] if below and not os.listdir(store.path(current, key)) else "",
        }
        return part if source is None else {**part, "source": source}

    if record["base"] == OWN_ROOT:
        root = writable(ROOT, "/", [f"{here}/mountpoints"])
        foundation = len(record["foundation"]) + 1  # the image's layers lie below the container's own files
        root["lowers"].insert(len(root["lowers"]) - foundation, f"{here}/files")
        parts = [root]
    else:
        parts = [
            writable(ROOT, "/", [f"{here}/mountpoints", skeleton(store)]),
            writable(ETC, "/etc", [f"{here}/files"], "/etc"),
        ]
    for part in record["parts"]:
        if part["kind"] == "overlay":
            parts.append(writable(part["key"], part["at"], [], part["source"], owned=part["owned"]))
    return parts


LIBRARY = "/run/nbhull/lib"


def library_mounts() -> list[dict[str, Any]]:
    """nbhull's own package, read-only at /run/nbhull/lib/nbhull, so that any image's kernel can have `%container`.

    Its folders one by one, since in an editable installation they are links."""
    import nbhull

    package = os.path.dirname(os.path.abspath(nbhull.__file__))
    return [
        {
            "kind": "bind",
            "at": f"{LIBRARY}/nbhull/{name}",
            "source": os.path.realpath(f"{package}/{name}"),
            "owned": True,
            "read_only": True,
            "recursive": False,
        }
        for name in ("__init__.py", "kernel", "magics", "runtime")
    ]
