"""The build context: the files that COPY and ADD take from, what is left out of it, and digests of what is in it.

Digests depend on names, kinds, modes and content alone: never on where the context lies, on times or on owners.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import time

from nbhull.runtime.builder import ignore
from nbhull.runtime.builder.ignore import Ignore
from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.linux.mount import openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = ("Containerfile", "Dockerfile")
IGNORES = (".containerignore", ".dockerignore")
CHUNK = 1 << 20
SETTLED = 2 * 10**9
"""nanoseconds since a file's last change after which its digest is remembered: one changed again within the same tick
of the clock would look the same"""
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

    def __init__(self, root: str, excluded: Ignore, memory: str = "") -> None:
        """`root`: an existing folder; `memory`: file that keeps digests from build to build; empty keeps none."""
        self.root = root
        self.excluded = excluded
        self.fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.memory = memory
        self.known: dict[str, tuple[tuple[int, int, int, int], bytes]] = read_memory(memory)
        self.learned: dict[str, tuple[tuple[int, int, int, int], bytes]] = {}

    def close(self) -> None:
        """Keep what was learned."""
        if self.learned and self.memory:
            write_memory(self.memory, self.known | self.learned)
        self.learned = {}
        os.close(self.fd)

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
        if here is None or not os.path.isdir(f"{self.root}/{here}"):
            return
        for name in sorted(os.listdir(f"{self.root}/{here}")):
            if pattern.fullmatch(name):
                yield f"{folder}/{name}" if folder else name

    def missing(self, source: str) -> NotFound:
        """Why a source is not there."""
        if self.excluded and os.path.lexists(f"{self.root}/{source}"):
            return NotFound(f"{source!r} is left out of the context by its ignore file", "take it back in by '!' there")
        return NotFound(f"{source!r} is not in the context {self.root!r}", "paths are relative to the context's folder")

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
        status = os.stat(path, dir_fd=self.fd, follow_symlinks=False)
        first = Entry(path, status, os.readlink(path, dir_fd=self.fd) if stat.S_ISLNK(status.st_mode) else "")
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
        prefix = "" if folder == "." else f"{folder}/"
        with os.scandir(f"{self.root}/{folder}") as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = prefix + entry.name
            out, look = False, False
            matched, inner_matched = None, None
            if self.excluded:
                matched = self.excluded.matched(path, above)
                out = self.excluded.excludes(matched)
                look = out and self.excluded.needs_look(path)
            if more:
                inner_path = f"{inner}/{entry.name}" if inner else entry.name
                inner_matched = more.matched(inner_path, inner_above)
                if more.excludes(inner_matched):
                    look = (look or not out) and more.needs_look(inner_path)
                    out = True
            else:
                inner_path = ""
            if out and not look:
                continue
            status = entry.stat(follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFDIR:
                below = self.walk_folder(path, matched, inner_path, inner_matched, more)
                if out:  # only for the sake of what is taken back in
                    first = next(below, None)
                    if first is None:
                        continue
                    yield Entry(path, status)
                    yield first
                else:
                    yield Entry(path, status)
                yield from below
            elif not out and kind == stat.S_IFLNK:
                yield Entry(path, status, os.readlink(entry.path))
            elif not out and kind == stat.S_IFREG:
                yield Entry(path, status)
            elif not out and kind != stat.S_IFSOCK:
                raise InvalidInput(f"{path!r} in the context is a device or a pipe", "leave it out by the ignore file")

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
        try:
            fd = openat2(self.fd, entry.path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise InvalidInput(
                f"{entry.path!r} in the context cannot be read: {error.strerror}", "change its mode, or leave it out"
            ) from error
        with open(fd, "rb", buffering=0) as file:
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


def find_ignore(context: str, file: str) -> tuple[str, str]:
    """The ignore file that counts for a Containerfile, its path and its text: one beside it of its own name (`-f x` has
    `x.containerignore`, `x.dockerignore`), else the context's. Two empty texts where there is none."""
    for path in (*(file + suffix for suffix in IGNORES), *(f"{context}/{name}" for name in IGNORES)):
        try:
            with open(path, encoding="utf-8", errors="surrogateescape") as opened:
                return path, opened.read()
        except FileNotFoundError:
            continue
    return "", ""


def open_context(folder: str, file: str, memory: str = "") -> Context:
    """The context for a Containerfile. Raises NotFound, and InvalidInput for a wrong ignore file."""
    if not os.path.isdir(folder):
        raise NotFound(f"the context {folder!r} is no folder", "give the folder that COPY takes its files from")
    path, text = find_ignore(folder, file)
    return Context(os.path.realpath(folder), ignore.parse(text, os.path.basename(path)), memory)
