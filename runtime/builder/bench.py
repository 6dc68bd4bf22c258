"""What the worker does for a build, on the image's own files and inside the containers' user namespace."""

from __future__ import annotations

import os
import stat

from nbhull.runtime.builder.copying import Job
from nbhull.runtime.builder.placing import Picker, Placer, is_folder
from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.images import unpack
from nbhull.runtime.images.pack import Packer
from nbhull.runtime.launcher import overlay
from nbhull.runtime.linux.mount import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, make_filesystem, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WITHIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class Bench:
    """The requests of builds; a part of the worker, each served in a fork."""

    store: int
    stage: overlay.Stage

    def open(self, path: str, flags: int = os.O_RDONLY | os.O_DIRECTORY) -> int:
        """A folder of the store."""
        return openat2(self.store, path, flags, WITHIN)

    def merged(self, lowers: list[str], upper: str = "", work: str = "") -> int:
        """The root of what folders of the store are together, the top first; with `upper` it can be written to."""
        folders = [self.stage.path(lower) for lower in lowers]
        if upper and not lowers:
            return self.open(upper)
        if upper:
            mount = overlay.make_overlay(folders, self.stage.path(upper), self.stage.path(work), self.stage.base)
        elif len(lowers) == 1:
            return self.open(lowers[0])
        else:
            options: list[tuple[str, str | None]] = [("userxattr", None), ("index", "off"), ("metacopy", "off")]
            mount = make_filesystem("overlay", [*options, *(("lowerdir+", folder) for folder in folders)])
        return openat2(mount, ".", os.O_RDONLY | os.O_DIRECTORY)

    def do_open_layer(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Make the folders that a new layer is written into."""
        part = self.open(request["path"])
        for name, mode in (("root", 0o755), ("work", 0o700)):
            os.mkdir(name, mode, dir_fd=part)
        return {}

    def do_place(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Write the files of a stream (the first descriptor) onto layers."""
        source = descriptors[0]
        root = self.merged(request["lowers"], request["upper"], request["work"])
        placer = Placer(root, Job(**request["job"]))
        placer.unpack(unpack.Pieces(lambda count: os.read(source, count), {}))
        return {}

    def do_files(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Write a tar of what layers are together into the first descriptor."""
        packer = Packer(self.merged(request["lowers"]), whiteouts=False, cross=True)
        with open(descriptors[0], "wb", closefd=False) as file:
            file.writelines(packer.pieces())
        return {}

    def do_pick(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Write files of one image onto the layers of another."""
        if not request["origin"]:
            raise NotFound("there is nothing to copy from: it has no files", "correct --from")
        picker = Picker(
            self.merged(request["origin"]), tuple(request["sources"]), tuple(request["excluded"]), request["parents"]
        )
        job = Job(**request["job"])
        if picker.only_file and not request["is_folder"]:
            job = job.but(into=False, name=os.fsdecode(picker.only_file))
        elif not request["is_folder"] and not request["parents"] and len(picker.chosen) > 1:
            raise InvalidInput(
                f"{len(picker.chosen)} sources go to {job.target!r}, which does not end in '/'",
                f"write it as {job.target}/",
            )
        root = self.merged(request["lowers"], request["upper"], request["work"])
        Placer(root, job).unpack(unpack.Pieces(unpack.Joined(picker.pieces()).read, {}))
        return {}

    def do_look(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Whether a folder of changes has any, and the bytes of its files, none of which is left younger than `epoch`
        (seconds, or None)."""
        root = self.open(request["path"])
        latest = None if request["epoch"] is None else request["epoch"] * 10**9
        size = 0
        for _, folders, names, fd in os.fwalk(".", topdown=False, dir_fd=root):
            for name in (*names, *folders):
                status = os.lstat(name, dir_fd=fd)
                size += status.st_size if stat.S_ISREG(status.st_mode) else 0
                if latest is not None and status.st_mtime_ns > latest:
                    os.utime(name, ns=(latest, latest), dir_fd=fd, follow_symlinks=False)
        empty = not os.listdir(root) and not any(name.startswith("user.overlay.opaque") for name in os.listxattr(root))
        return {"empty": int(empty), "size": size}

    def do_write(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Write a stream (the first descriptor) into a new file of the store."""
        above, _, name = request["path"].rpartition("/")
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=self.open(above)), "wb") as file:
            while piece := os.read(descriptors[0], 1 << 20):
                file.write(piece)
            os.fchown(file.fileno(), request["uid"], request["gid"])
            os.fchmod(file.fileno(), request["mode"])
        return {}

    def do_folder(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Make a folder of the store, if it is not there."""
        above, _, name = request["path"].rpartition("/")
        folder = self.open(above)
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            return {}
        fd = openat2(folder, name, os.O_RDONLY | os.O_DIRECTORY, WITHIN)
        os.fchown(fd, request["uid"], request["gid"])
        os.fchmod(fd, request["mode"])
        return {}

    def do_kind(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Whether a path within layers is a folder. Raises NotFound where there is nothing."""
        root = self.merged(request["lowers"])
        if is_folder(root, request["path"]):
            return {"folder": 1}
        try:
            fd = openat2(root, request["path"], os.O_PATH)
        except OSError as error:
            raise NotFound(f"there is no {request['path']!r} to mount: {error.strerror}", "correct source=") from error
        return {"folder": int(stat.S_ISDIR(os.fstat(fd).st_mode))}
