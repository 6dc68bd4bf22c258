"""What COPY and ADD bring into an image: the files they name, their digest, and a tar stream of them.

The names in the stream are relative to the destination; what the destination is, a folder or a file, is known only
where the image's files are, so that the stream begins with what to decide there (`Job`).
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat

from nbhull.runtime.builder import ignore
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbhull.runtime.builder.context import Context, Entry
    from nbhull.runtime.builder.ignore import Ignore
    from nbhull.runtime.images import tarheaders as tar

CHUNK = 1 << 20
SELF = "."
"""name of the destination itself"""


class Job(Record):
    """How a stream of files becomes files of an image."""

    target: str
    """absolute path, links in it followed within the image"""
    into: bool = True
    """the target is a folder, made where it is missing; otherwise it is one only if it exists as one"""
    name: str = ""
    """of the one file in the stream, if the target turns out to be a folder (`into` is False)"""
    owner: str | None = None
    """`user[:group]` of everything, and of folders made on the way, by the image's own /etc/passwd; None keeps the
    stream's, and makes folders root's"""
    mode: int | None = None
    """of everything in the stream; None keeps the stream's"""
    archive: bool = False
    """the stream is an archive to unpack, not made by us: links are its own business, special files are left out"""
    epoch: int | None = None
    """seconds: the time of everything in the stream, and of the folders made on the way"""


class Item(Record):
    """One source of the context."""

    path: str
    """in the context"""
    name: str
    """what it is called in the destination; SELF for a folder whose content goes there"""
    parents: tuple[str, ...] = ()
    """folders of the context to be made above it, with their modes (`--parents`)"""


class Text(Record):
    """One heredoc that becomes a file."""

    name: str
    content: bytes


def items(context: Context, sources: tuple[str, ...], parents: bool) -> list[Item]:
    """The files that sources name. Raises NotFound."""
    found: list[Item] = []
    for source in sources:
        pivot, keep, below = source.partition("/./") if parents else (source, "", "")
        for path in context.find(f"{pivot}/{below}" if keep else source):
            if parents:
                base = ignore.clean("/" + pivot) if keep else "."
                found.append(with_parents(path, base))
            elif context.is_folder(path):
                found.append(Item(path, SELF))
            else:
                # the name that was asked for, even where it is a link to another
                asked = posixpath.basename(path if ignore.WILD.search(source) else ignore.clean("/" + source))
                found.append(Item(path, asked))
    if not found and sources:
        raise InvalidInput(f"no file of the context matches {' '.join(sources)}", "correct the pattern")
    return found


def with_parents(path: str, base: str) -> Item:
    """A source that keeps the folders it lies in, from `base` on."""
    name = path if base == "." else path[len(base) + 1 :] if path != base else SELF
    parts = path.split("/")[:-1]
    skip = 0 if base == "." else base.count("/") + 1
    return Item(path, name, tuple("/".join(parts[: length + 1]) for length in range(skip, len(parts))))


def digest(context: Context, chosen: list[Item], texts: list[Text], excluded: Ignore | None) -> str:
    """A digest of all that will be copied: of names in the destination, kinds, modes and content."""
    whole = hashlib.sha256()
    for item in chosen:
        whole.update(repr((item.name, len(item.parents))).encode())
        for parent in item.parents:
            whole.update(b"%o" % stat.S_IMODE(context.existing(parent).st_mode))
        whole.update(context.digest(item.path, item.path, excluded))
    for text in texts:
        whole.update(repr((text.name, len(text.content))).encode() + text.content)
    return whole.hexdigest()


def stream(
    context: Context | None, chosen: list[Item], texts: list[Text], excluded: Ignore | None
) -> Iterator[bytes]:
    """A tar of it, in pieces; everything belongs to root."""
    from nbhull.runtime.images import tarheaders as tar

    for text in texts:
        entry = header(text.name, tar.FILE, 0o644, 0)
        entry.size = len(text.content)
        yield tar.write(entry) + text.content + bytes(-len(text.content) % tar.BLOCK)
    for item in chosen:
        assert context is not None
        for depth, parent in enumerate(item.parents):
            status = context.existing(parent)
            name = "/".join(item.name.split("/")[: depth + 1])
            yield tar.write(header(f"{name}/", tar.FOLDER, stat.S_IMODE(status.st_mode), status.st_mtime_ns))
        strip = len(item.path) + 1
        for one in context.walk(item.path, excluded):
            inner = "" if one.path == item.path else one.path if item.path == "." else one.path[strip:]
            name = inner if item.name == SELF else f"{item.name}/{inner}" if inner else item.name
            yield from entry_of(context, one, name or SELF)
    yield tar.ZERO * 2


def header(name: str, kind: bytes, mode: int, mtime: int) -> tar.Entry:
    """An entry of root's."""
    from nbhull.runtime.images import tarheaders as tar

    entry = tar.Entry(os.fsencode(name), kind)
    entry.mode = mode
    entry.mtime = mtime
    return entry


def entry_of(context: Context, one: Entry, name: str) -> Iterator[bytes]:
    """One file of the context."""
    from nbhull.runtime.images import tarheaders as tar

    mtime = one.key[2]
    if one.is_folder:
        yield tar.write(header(f"{name}/", tar.FOLDER, one.mode, mtime))
    elif one.kind == stat.S_IFLNK:
        entry = header(name, tar.SYMBOLIC_LINK, 0o777, mtime)
        entry.link = os.fsencode(one.target)
        yield tar.write(entry)
    else:
        fd = context.open_file(one.path)
        with open(fd, "rb", buffering=0) as file:
            entry = header(name, tar.FILE, one.mode, mtime)
            entry.size = os.fstat(fd).st_size
            yield tar.write(entry)
            left = entry.size
            while left:
                data = file.read(min(CHUNK, left))
                if not data:
                    raise InvalidInput(f"{one.path!r} in the context shrank while it was copied", "build again")
                left -= len(data)
                yield data
        if entry.size % tar.BLOCK:
            yield bytes(-entry.size % tar.BLOCK)


def destination(text: str, folder: str) -> tuple[str, bool]:
    """The absolute path of a destination, seen from the working folder, and whether it says that it is a folder."""
    path = posixpath.normpath(posixpath.join(folder or "/", text))
    path = "/" + path.lstrip("/")
    last = text.rpartition("/")[2]
    return path, last in ("", ".", "..")


def parse_mode(text: str) -> int:
    """The mode of --chmod. Raises InvalidInput."""
    if not text or len(text) > 5 or any(char not in "01234567" for char in text) or int(text, 8) > 0o7777:
        raise InvalidInput(f"--chmod={text} is no mode", "write it in octal, like --chmod=755")
    return int(text, 8)
