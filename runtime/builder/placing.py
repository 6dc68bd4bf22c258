"""Files become part of an image: run by the worker, inside the containers' user namespace, on the image's merged tree.

What is decided here is what depends on the image's files: where links lead, and whether a destination is a folder.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator

from nbhull.runtime import accounts
from nbhull.runtime.builder import ignore
from nbhull.runtime.builder.copying import SELF, Job
from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.images import tarheaders as tar
from nbhull.runtime.images.pack import Packer
from nbhull.runtime.images.unpack import RESOLVE, Unpacker, clean
from nbhull.runtime.linux.mount import openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Placer(Unpacker):
    """Writes a stream of files into an image's tree, as COPY and ADD do."""

    def __init__(self, root: int, job: Job) -> None:
        """`root`: descriptor of the merged tree's root. Raises InvalidInput where the destination is in the way."""
        self.tree = root
        self.job = job
        self.account = None if job.owner is None else resolve_owner(root, job.owner)
        target = job.target
        if job.into or is_folder(root, target):
            self.is_new = not is_folder(root, target)
            base = make_folders(root, target, self.account, job.epoch)
            self.file_name = os.fsencode(job.name)
        else:
            above, _, name = target.rpartition("/")
            base = make_folders(root, above or "/", self.account, job.epoch)
            self.is_new = True
            self.file_name = os.fsencode(name)
        super().__init__(base, whiteouts=False, owner=self.account)

    def write(self, entry: tar.Entry, pieces: Any, reader: tar.Reader) -> None:
        """Write one entry, with the owner, the mode and the time that the job wants."""
        if self.job.mode is not None and entry.kind != tar.SYMBOLIC_LINK:
            entry.mode = self.job.mode
        if self.job.epoch is not None:
            entry.mtime = self.job.epoch * 10**9
        if not self.job.into:
            entry.name = self.file_name
        elif not clean(entry.name) and not self.is_new:
            return  # a destination that was there keeps its owner and mode
        super().write(entry, pieces, reader)

    def write_folder(self, folder: int, path: bytes, name: bytes, entry: tar.Entry) -> None:
        """A folder; where the image has a link to a folder, the link stays and is followed."""
        try:
            status = os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            status = None
        if status is not None and stat.S_ISLNK(status.st_mode) and is_folder(self.root, os.fsdecode(path)):
            return
        if status is not None and not stat.S_ISDIR(status.st_mode) and not self.job.archive:
            raise InvalidInput(
                f"{os.fsdecode(path)!r} is a folder, and in the image there is a file in its place",
                "remove that file in a step before, or copy to another folder",
            )
        super().write_folder(folder, path, name, entry)

    def clear(self, folder: int, path: bytes, name: bytes) -> None:
        """Take away what is in a file's place; a folder of the image is not taken away by a copy."""
        try:
            status = os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode) and not self.job.archive:
            raise InvalidInput(
                f"{os.fsdecode(path)!r} is a file, and in the image there is a folder in its place",
                "remove that folder in a step before, or copy to another name",
            )
        super().clear(folder, path, name)

    def set_times(self) -> None:
        """Give all folders their times; those that links lead away from have gone their own way."""
        for path, mtime in self.times.items():
            fd = openat2(self.root, os.fsdecode(path or b"."), os.O_RDONLY | os.O_DIRECTORY, RESOLVE)
            try:
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)


def is_folder(root: int, path: str) -> bool:
    """Whether a path leads to a folder within a tree."""
    try:
        os.close(openat2(root, path or "/", os.O_PATH | os.O_DIRECTORY, RESOLVE))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def make_folders(root: int, path: str, owner: tuple[int, int] | None, epoch: int | None) -> int:
    """A descriptor of a folder of the tree, made with those above it where they are missing. Raises InvalidInput."""
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    done = ""
    for part in [part for part in path.split("/") if part]:
        done = f"{done}/{part}"
        try:
            following = openat2(root, done, os.O_RDONLY | os.O_DIRECTORY, RESOLVE)
        except FileNotFoundError:
            try:
                os.mkdir(part, 0o755, dir_fd=here)
            except FileExistsError:
                raise InvalidInput(
                    f"{done!r} in the image is a link that leads nowhere", "make the folder that it leads to before"
                ) from None
            following = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            os.fchmod(following, 0o755)
            if owner is not None:
                os.fchown(following, *owner)
            if epoch is not None:
                os.utime(following, ns=(epoch * 10**9, epoch * 10**9))
        except NotADirectoryError:
            raise InvalidInput(
                f"{done!r} in the image is no folder", "copy to another folder, or remove it in a step before"
            ) from None
        os.close(here)
        here = following
    return here


def resolve_owner(root: int, text: str) -> tuple[int, int]:
    """The ids of `user[:group]`; a number without a group is the group's, too (as Docker has it)."""

    def read(path: str) -> str:
        try:
            fd = openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, RESOLVE)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return ""
            return file.read(1 << 20).decode(errors="replace")

    account = accounts.resolve(read, f"{text}:{text}" if text.isdigit() else text)
    return account.uid, account.gid


class Picker(Packer):
    """Packs parts of one image's tree for another (`COPY --from`)."""

    def __init__(self, root: int, sources: tuple[str, ...], excluded: tuple[str, ...], parents: bool) -> None:
        """`sources` as COPY has them, relative to the tree's root. Raises NotFound, InvalidInput."""
        super().__init__(root, whiteouts=False, cross=True)
        self.excluded = ignore.from_patterns(excluded)
        self.renamed: dict[bytes, bytes] = {}
        self.chosen: list[tuple[bytes, bytes]] = []
        """(path within the tree, name in the stream; empty for a folder whose content is meant)"""
        self.only_file = b""
        """the name of the one file that is copied, if it is but one"""
        for source in sources:
            pivot, keep, below = source.partition("/./") if parents else (source, "", "")
            whole = ignore.clean(f"/{pivot}/{below}" if keep else f"/{source}")
            found = self.find(whole)
            if not found and not ignore.WILD.search(whole):
                raise NotFound(f"there is no {source!r} to copy from", "paths are taken from the root, /")
            base = ignore.clean("/" + pivot) if keep else "."
            for path in found:
                real = os.fsencode(self.real(path))
                if parents:
                    name = path if base == "." else path.removeprefix(base + "/")
                    self.chosen.append((real, os.fsencode(name)))
                elif is_folder(root, path):
                    self.chosen.append((real, b""))
                else:
                    self.chosen.append((real, os.fsencode(posixpath.basename(path))))
        if not self.chosen:
            raise NotFound(f"no file matches {' '.join(sources)}", "correct the pattern")
        if len(self.chosen) == 1 and self.chosen[0][1] and not parents:
            self.only_file = self.chosen[0][1]

    def find(self, source: str) -> list[str]:
        """The paths that a source names, wildcards replaced."""
        if not ignore.WILD.search(source):
            return [source] if exists(self.root, source) else []
        import re

        found = [""]
        for part in source.split("/"):
            pattern = re.compile(ignore.translate(re.sub(r"\*+", "*", part)), re.DOTALL)
            found = [
                f"{folder}/{name}" if folder else name
                for folder in found
                for name in self.names(folder)
                if pattern.fullmatch(name)
            ]
        return [path for path in found if exists(self.root, path)]

    def names(self, folder: str) -> list[str]:
        """What is in a folder; nothing if it is none."""
        try:
            fd = openat2(self.root, folder or "/", os.O_RDONLY | os.O_DIRECTORY, RESOLVE)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)

    def real(self, path: str) -> str:
        """Where a path leads in the tree, links followed."""
        done: list[str] = []
        left = path.split("/")[::-1]
        links = 0
        while left:
            part = left.pop()
            if part in ("", ".", ".."):
                done = done[:-1] if part == ".." else done
                continue
            above = openat2(self.root, "/".join(done) or "/", os.O_PATH | os.O_DIRECTORY, RESOLVE)
            try:
                target = os.readlink(part, dir_fd=above)
            except OSError:  # EINVAL: no link
                done.append(part)
                continue
            finally:
                os.close(above)
            links += 1
            if links > 40:
                raise InvalidInput(f"{path!r} leads through too many symbolic links", "does a link lead to itself?")
            done = [] if target.startswith("/") else done
            left += target.split("/")[::-1]
        return "/".join(done)

    def blocks(self) -> Iterator[bytes]:
        """Headers and data of all that was chosen, renamed."""
        for path, name in self.chosen:
            self.from_path, self.to_name = path, name
            self.matched: dict[bytes, tuple[bool, ...]] = {}
            folder = is_folder(self.root, os.fsdecode(path))
            pending: list[tuple[bytes, bool]] = [(path, folder)]
            while pending:
                here, folder = pending.pop()
                if here != path and self.leaves_out(here, folder):
                    continue
                if folder:
                    found, some = self.folder(here)
                    pending += reversed(found)
                    yield some
                else:
                    yield from self.other(here)
        yield tar.ZERO * 2

    def leaves_out(self, path: bytes, folder: bool) -> bool:
        """Whether --exclude leaves out a path, which is then not looked into either."""
        if not self.excluded:
            return False
        relative = path[len(self.from_path) :].lstrip(b"/")
        above = self.matched.get(relative.rpartition(b"/")[0]) if b"/" in relative else None
        matched = self.excluded.matched(os.fsdecode(relative), above)
        self.matched[relative] = matched
        if not self.excluded.excludes(matched):
            return False
        return not (folder and self.excluded.needs_look(os.fsdecode(relative)))

    def entry(self, path: bytes, kind: bytes, status: os.stat_result, fd: int | None) -> tar.Entry:
        """An entry under its name in the destination."""
        is_directory = kind == tar.FOLDER
        inner = path.rstrip(b"/")[len(self.from_path) :].lstrip(b"/")
        name = b"/".join(part for part in (self.to_name, inner) if part) or SELF.encode()
        made = super().entry(path, kind, status, fd)
        made.name = name + b"/" if is_directory else name
        self.renamed[path.rstrip(b"/")] = name
        return made

    def link_name(self, path: bytes) -> bytes:
        """What a file that was packed before is called in the destination."""
        return self.renamed[path]


def exists(root: int, path: str) -> bool:
    """Whether a path leads to something within a tree."""
    try:
        os.close(openat2(root, path or "/", os.O_PATH, RESOLVE))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
