"""The build context: the files that COPY and ADD take from, what is left out of it, and digests of what is in it.

Digests depend on names, kinds, modes and content alone: never on where the context lies, on times or on owners.

A context may change while it is read, by somebody who means no good: its files are opened below its descriptor, so that
no link that was put in a folder's place leads out of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import time

from nbhull.runtime import usermap
from nbhull.runtime.builder import ignore
from nbhull.runtime.builder.ignore import Ignore
from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.linux.mount import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = ("Containerfile", "Dockerfile")
IGNORES = (".containerignore", ".dockerignore")
CHUNK = 1 << 20
SETTLED = 2 * 10**9
"""nanoseconds since a file's last change after which its digest is remembered: one changed again within the same tick
of the clock would look the same"""
LARGEST_IGNORE = 1 << 20
"""bytes of an ignore file"""
PLAIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
"""how a path whose links were followed already is opened"""
DEEPEST = 250
"""folders in each other"""
LINKS = 40
"""symbolic links followed in one path, at most (the kernel's own bound)"""


class Entry:
    """A file of a context."""

    __slots__ = ("key", "kind", "mode", "path", "size", "target")

    def __init__(self, path: str, status: os.stat_result, target: str = "") -> None:
        self.path = path
        """relative to the context, `.` for the context itself"""
        self.kind = stat.S_IFMT(status.st_mode)
        self.mode = stat.S_IMODE(status.st_mode)
        self.size = status.st_size
        self.target = target
        """of a symbolic link"""
        self.key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.kind == stat.S_IFDIR


class Context:
    """A folder with what it leaves out. Close it to have its digests remembered."""

    def __init__(self, fd: int, name: str, excluded: Ignore, memory: str = "", *, is_guarded: bool = False) -> None:
        """`fd`: a folder, the context's from here on; `name`: its path, for messages; `memory`: file that keeps digests
        from build to build; empty keeps none. `is_guarded`: it is read for a container's
        root, so that what this one may not read is not read, whatever this process may."""
        self.is_guarded = is_guarded
        self.name = name
        self.excluded = excluded
        self.fd = fd
        self.memory = memory
        self.known: dict[str, tuple[tuple[int, int, int, int], bytes]] = read_memory(memory)
        self.learned: dict[str, tuple[tuple[int, int, int, int], bytes]] = {}

    def close(self) -> None:
        """Keep what was learned."""
        if self.learned and self.memory:
            write_memory(self.memory, self.known | self.learned)
        self.learned = {}
        os.close(self.fd)

    def open_file(self, path: str) -> int:
        """A descriptor of a regular file, whose links were followed already. Raises InvalidInput."""
        fd = self.open_below(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidInput(f"{path!r} in the context is no regular file any more", "build again")
        return fd

    def open_below(self, path: str, flags: int) -> int:
        """Open what is in the context, whose links were followed already. Raises InvalidInput."""
        try:
            if not self.is_guarded:
                return openat2(self.fd, path, flags, PLAIN)
            return self.open_guarded(path.split("/"), flags)
        except OSError as error:
            raise InvalidInput(
                f"{path!r} in the context cannot be read: {error.strerror}", "change its mode, or leave it out"
            ) from error

    def open_guarded(self, parts: list[str], flags: int) -> int:
        """The same, folder by folder, each looked at once it is open, so that it cannot become another one."""
        fd = os.dup(self.fd)
        try:
            for number, part in enumerate(parts, 1):
                is_last = number == len(parts)
                below = os.open(
                    part,
                    (flags if is_last else os.O_PATH | os.O_DIRECTORY) | os.O_NOFOLLOW | os.O_CLOEXEC,
                    dir_fd=fd,
                )
                os.close(fd)
                fd = below
                if not is_open_to_container(os.fstat(fd), 0o4 if is_last else 0o1):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return fd
        except BaseException:
            os.close(fd)
            raise

    def open_folder(self, path: str) -> int:
        """A descriptor of a folder, whose links were followed already. Raises InvalidInput."""
        return self.open_below(path, os.O_RDONLY | os.O_DIRECTORY)

    def status(self, path: str) -> os.stat_result | None:
        """Of a file or link, whose folders' links were followed already; None where there is none."""
        try:
            fd = openat2(self.fd, path, os.O_PATH | os.O_NOFOLLOW, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        except OSError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def existing(self, path: str) -> os.stat_result:
        """The same; raises NotFound where there is none."""
        status = self.status(path)
        if status is None:
            raise self.missing(path)
        return status

    def is_folder(self, path: str) -> bool:
        """Whether a path, whose links were followed already, is a folder."""
        status = self.status(path)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_file(self, path: str) -> bool:
        """Whether a path, whose links were followed already, is a regular file."""
        status = self.status(path)
        return status is not None and stat.S_ISREG(status.st_mode)

    def matches(self, path: str) -> tuple[bool, ...]:
        """Which patterns of the ignore file match a path or a folder above it."""
        found: tuple[bool, ...] | None = None
        parts = path.split("/")
        for length in range(1, len(parts) + 1):
            found = self.excluded.matched("/".join(parts[:length]), found)
        return found or ()

    def find(self, source: str) -> list[str]:
        """The paths that a source of COPY names, wildcards replaced, in order of their names.

        Raises NotFound for a path that does not exist or is left out; wildcards may match nothing."""
        source = ignore.clean("/" + source)
        if source == ".":
            return [source]
        if not ignore.WILD.search(source):
            resolved = self.resolve(source)
            if resolved is None:
                raise self.missing(source)
            return [resolved]
        found = [""]
        for part in source.split("/"):
            found = [path for folder in found for path in self.expand(folder, part)]
        return [path for path in map(self.resolve, found) if path is not None]

    def expand(self, folder: str, part: str) -> Iterator[str]:
        """The paths in a folder whose last part a pattern matches."""
        pattern = re.compile(ignore.translate(re.sub(r"\*+", "*", part)), re.DOTALL)
        here = self.resolve(folder) if folder else "."
        if here is None or not self.is_folder(here):
            return
        fd = self.open_folder(here)
        try:
            names = sorted(os.listdir(fd))
        finally:
            os.close(fd)
        for name in names:
            if pattern.fullmatch(name):
                yield f"{folder}/{name}" if folder else name

    def missing(self, source: str) -> NotFound:
        """Why a source is not there."""
        if self.excluded and self.status(source) is not None:
            return NotFound(f"{source!r} is left out of the context by its ignore file", "take it back in by '!' there")
        return NotFound(f"{source!r} is not in the context {self.name!r}", "paths are relative to the context's folder")

    def resolve(self, path: str) -> str | None:
        """Where a path leads, links followed with the context as root; None where there is nothing, or where
        it is left out, links on the way included."""
        done: list[str] = []
        left = path.split("/")[::-1]
        links = 0
        while left:
            part = left.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if done:
                    done.pop()
                continue
            here = "/".join([*done, part])
            try:
                target = os.readlink(here, dir_fd=self.fd)
            except FileNotFoundError:
                return None
            except OSError:  # EINVAL: no link
                done.append(part)
                continue
            if self.leaves_out(here):
                return None
            links += 1
            if links > LINKS:
                raise InvalidInput(f"{path!r} leads through too many symbolic links", "does a link lead to itself?")
            if target.startswith("/"):
                done = []
            left += target.split("/")[::-1]
        found = "/".join(done) or "."
        return None if found != "." and self.leaves_out(found) and not self.excluded.needs_look(found) else found

    def leaves_out(self, path: str) -> bool:
        """Whether the ignore file leaves a path out."""
        return bool(self.excluded) and self.excluded.excludes(self.matches(path))

    def walk(self, path: str, more: Ignore | None = None) -> Iterator[Entry]:
        """A file, or a folder and all that is in it, folders before what is in them, sorted by name. `more`: what else
        is left out, of paths relative to the folder."""
        first = Entry(path, self.existing(path))
        yield first
        if first.is_folder:
            above = self.matches(path) if self.excluded and path != "." else None
            yield from self.walk_folder(path, above, "", None, more)

    def walk_folder(
        self,
        folder: str,
        above: tuple[bool, ...] | None,
        inner: str,
        inner_above: tuple[bool, ...] | None,
        more: Ignore | None,
    ) -> Iterator[Entry]:
        """What is in a folder."""
        if folder.count("/") > DEEPEST:
            raise InvalidInput(f"folders in the context are nested more than {DEEPEST} deep", "leave them out")
        prefix = "" if folder == "." else f"{folder}/"
        for entry in self.listed(folder):
            name, path = entry.path, prefix + entry.path
            out, look = False, False
            matched, inner_matched = None, None
            if self.excluded:
                matched = self.excluded.matched(path, above)
                out = self.excluded.excludes(matched)
                look = out and self.excluded.needs_look(path)
            if more:
                inner_path = f"{inner}/{name}" if inner else name
                inner_matched = more.matched(inner_path, inner_above)
                if more.excludes(inner_matched):
                    look = (look or not out) and more.needs_look(inner_path)
                    out = True
            else:
                inner_path = ""
            if out and not look:
                continue
            entry.path = path
            if entry.is_folder:
                below = self.walk_folder(path, matched, inner_path, inner_matched, more)
                if out:  # only for the sake of what is taken back in
                    inside = next(below, None)
                    if inside is None:
                        continue
                    yield entry
                    yield inside
                else:
                    yield entry
                yield from below
            elif not out and entry.kind in (stat.S_IFLNK, stat.S_IFREG):
                yield entry
            elif not out and entry.kind != stat.S_IFSOCK:
                raise InvalidInput(f"{path!r} in the context is a device or a pipe", "leave it out by the ignore file")

    def listed(self, folder: str) -> list[Entry]:
        """What is in a folder, sorted by name; their paths are their names. The folder is not kept open meanwhile."""
        fd = self.open_folder(folder)
        found = []
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    is_link = stat.S_ISLNK(status.st_mode)
                    found.append(Entry(entry.name, status, os.readlink(entry.name, dir_fd=fd) if is_link else ""))
        except OSError as error:
            raise InvalidInput(f"{folder!r} in the context changed while it was read", "build again") from error
        finally:
            os.close(fd)
        return sorted(found, key=lambda entry: entry.path)

    def digest(self, path: str, base: str, more: Ignore | None = None) -> bytes:
        """The digest of a file or folder tree, its names relative to `base`."""
        whole = hashlib.sha256()
        strip = 0 if base == "." else len(base) + 1
        for entry in self.walk(path, more):
            name = "." if entry.path == base else entry.path[strip:]
            whole.update(f"{len(os.fsencode(name))} {entry.kind:o} {entry.mode:o} ".encode())
            whole.update(os.fsencode(name))
            if entry.target:
                whole.update(b"%d " % len(os.fsencode(entry.target)) + os.fsencode(entry.target))
            elif not entry.is_folder:
                whole.update(self.content_digest(entry))
        return whole.digest()

    def content_digest(self, entry: Entry) -> bytes:
        """The SHA-256 of a regular file's content, remembered by its inode, size and times."""
        known = self.known.get(entry.path)
        if known is not None and known[0] == entry.key:
            return known[1]
        with open(self.open_file(entry.path), "rb", buffering=0) as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if time.time_ns() - max(entry.key[2], entry.key[3]) > SETTLED:
            self.learned[entry.path] = (entry.key, digest)
        return digest


def read_memory(path: str) -> dict[str, tuple[tuple[int, int, int, int], bytes]]:
    """Remembered digests by path; none where the file is missing or cut off."""
    import marshal

    try:
        with open(path, "rb") as file:
            data = marshal.loads(file.read())
        os.utime(path)  # `prune` goes by when it was last of use
    except (FileNotFoundError, EOFError, ValueError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}


def write_memory(path: str, digests: dict[str, tuple[tuple[int, int, int, int], bytes]]) -> None:
    """Keep digests for the next build."""
    import marshal

    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    beside = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    with open(beside, "xb") as file:
        file.write(marshal.dumps(digests))
    os.rename(beside, path)


def find_file(context: str, file: str | None) -> str:
    """The Containerfile's path: `file`, else the context's own. Raises NotFound."""
    if file is not None:
        if os.path.isfile(file):
            return file
        inside = os.path.join(context, file)
        if os.path.isfile(inside):
            return inside
        raise NotFound(f"there is no Containerfile at {file!r}", "give its path with -f")
    for name in FILES:
        if os.path.isfile(f"{context}/{name}"):
            return f"{context}/{name}"
    raise NotFound(
        f"there is no Containerfile or Dockerfile in {context!r}", "give its path with -f, or another context folder"
    )


def has_file(context: str) -> bool:
    """Whether a context has a Containerfile of its own."""
    return any(os.path.isfile(f"{context}/{name}") for name in FILES)


def find_ignore(folder: int, file: str) -> tuple[str, str]:
    """The ignore file that counts for a Containerfile, its name and its text: one beside it of its own name (`-f x` has
    `x.containerignore`, `x.dockerignore`), else the context's; `file` is empty for a Containerfile without a path. Two
    empty texts where there is none. Raises InvalidInput."""
    for path in (file + suffix for suffix in IGNORES if file):
        if os.path.isfile(path):
            return os.path.basename(path), read_ignore(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path)
    for name in IGNORES:
        try:
            return name, read_ignore(openat2(folder, name, os.O_RDONLY | os.O_NONBLOCK), name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InvalidInput(f"{name} of the context cannot be read: {error.strerror}", "see its mode") from error
    return "", ""


def read_ignore(fd: int, name: str) -> str:
    """The text of an ignore file. Raises InvalidInput for what is none."""
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidInput(f"{name} is no regular file", "replace it by one")
        data = file.read(LARGEST_IGNORE + 1)
    if len(data) > LARGEST_IGNORE:
        raise InvalidInput(f"{name} is larger than {LARGEST_IGNORE >> 20} MiB", "is it the right file?")
    return data.decode("utf-8", "surrogateescape")


def is_open_to_container(status: os.stat_result, bit: int) -> bool:
    """Whether a container's root may do to a file what `bit` says of a mode's last digit. Its ids are those below
    WIDTH where this process is root; any other user may read no more than the container's root does."""
    if os.geteuid() != 0 or status.st_uid < usermap.WIDTH:
        return True
    return bool(status.st_mode & (bit << 3 | bit if status.st_gid < usermap.WIDTH else bit))


def open_context(
    folder: str, file: str, memory: str = "", fd: int | None = None, *, is_guarded: bool = False
) -> Context:
    """The context for a Containerfile; `file` is its path, empty where it has none. `fd`: the folder, where it is open
    already; stays the caller's. Raises NotFound, and InvalidInput for a wrong ignore file."""
    if fd is not None:
        fd = os.dup(fd)
    else:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(
                f"the context {folder!r} is no folder", "give the folder that COPY takes its files from"
            ) from error
    try:
        name, text = find_ignore(fd, file)
        return Context(fd, folder, ignore.parse(text, name), memory, is_guarded=is_guarded)
    except BaseException:
        os.close(fd)
        raise
