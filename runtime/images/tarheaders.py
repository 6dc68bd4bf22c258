"""Headers of tar archives, read and written: POSIX ustar and pax (pax(1), IEEE 1003.1), GNU's long names and numbers.

Everything read is hostile: every length is bounded before it is read, every number checked. Names are bytes, as the
kernel's are.
"""

from __future__ import annotations

from typing import Protocol

from nbhull.runtime.errors import InvalidInput

BLOCK = 512
ZERO = bytes(BLOCK)
METADATA = 1 << 20
"""bytes that the extended headers of one entry may have"""
EXTENSIONS = 16
"""extended headers that one entry may have"""
LARGEST = 1 << 50
LONGEST_PATH = 4096
SECONDS = 1 << 40
"""times are cut to this many seconds around the epoch"""

FILE, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
CONTIGUOUS, OLD_FILE = b"7", b"\0"
PAX, PAX_GLOBAL, GNU_NAME, GNU_LINK, GNU_SPARSE = b"x", b"g", b"L", b"K", b"S"
KINDS = (FILE, HARD_LINK, SYMBOLIC_LINK, CHARACTER, BLOCK_DEVICE, FOLDER, FIFO)
XATTR = b"SCHILY.xattr."
MEND = "make the archive again, with GNU tar or another tool that writes pax"


class Source(Protocol):
    """Where an archive's bytes come from."""

    def take(self, count: int) -> bytes:
        """The next `count` bytes, fewer only at the end."""
        ...

    def skip(self, count: int) -> None:
        """Pass over the next `count` bytes. Raises InvalidInput if there are not so many."""
        ...


class Entry:
    """One entry of an archive."""

    __slots__ = ("device", "gid", "kind", "link", "mode", "mtime", "name", "size", "uid", "xattrs")

    def __init__(self, name: bytes, kind: bytes) -> None:
        self.name = name
        """as it stands in the archive"""
        self.kind = kind
        """one of KINDS"""
        self.link = b""
        """what a link points to"""
        self.mode = 0o644
        self.uid = self.gid = 0
        self.size = 0
        """bytes of data behind the header"""
        self.mtime = 0
        """nanoseconds since the epoch"""
        self.device = (0, 0)
        self.xattrs: dict[bytes, bytes] = {}


class Reader:
    """The entries of an archive one by one; who wants an entry's data takes it from `source`, and tells `used`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.left = 0
        """bytes of the entry's data not yet taken"""
        self.padding = 0

    def used(self, count: int) -> None:
        """So many bytes of the entry's data were taken from the source."""
        self.left -= count

    def next(self) -> Entry | None:
        """The next entry; None at the end. Raises InvalidInput for a malformed archive."""
        pax: dict[bytes, bytes] = {}
        long: dict[bytes, bytes] = {}
        extended, extensions = 0, 0
        while True:
            self.source.skip(self.left + self.padding)
            self.left = self.padding = 0
            header = self.source.take(BLOCK)
            if header in (b"", ZERO):
                if extensions:
                    raise damaged("it ends behind an extended header")
                return None
            entry = parse(header)
            if entry.kind in KINDS:
                break
            extended, extensions = extended + entry.size, extensions + 1
            if extended > METADATA or extensions > EXTENSIONS:
                raise damaged("an entry's extended headers are too long")
            data = self.source.take(entry.size)
            if len(data) < entry.size:
                raise damaged("it is cut off")
            self.padding = -entry.size % BLOCK
            if entry.kind == PAX:
                pax.update(parse_pax(data))
            elif entry.kind != PAX_GLOBAL:
                long[entry.kind] = data.rstrip(b"\0")
        entry.name = long.get(GNU_NAME, entry.name)
        entry.link = long.get(GNU_LINK, entry.link)
        apply_pax(entry, pax)
        if len(entry.name) > LONGEST_PATH or len(entry.link) > LONGEST_PATH:
            raise damaged("a path in it is longer than 4096 bytes")
        if entry.kind == FILE and entry.name.endswith(b"/"):
            entry.kind = FOLDER  # as archives from before POSIX have it
        if entry.kind != FILE:
            # A hard link may carry its target's size without its data; no other has any.
            entry.size = 0
        self.left, self.padding = entry.size, -entry.size % BLOCK
        return entry


def damaged(why: str) -> InvalidInput:
    """The error for an archive that cannot be read."""
    return InvalidInput(f"the tar archive cannot be read: {why}", MEND)


def parse(header: bytes) -> Entry:
    """The entry of a plain header. Raises InvalidInput."""
    if len(header) < BLOCK:
        raise damaged("it is cut off")
    checksum = number(header[148:156])
    total = sum(header) - sum(header[148:156]) + 8 * 32
    if checksum != total:
        signed = total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])
        if checksum != signed:
            raise damaged("a header's checksum is wrong")
    kind = header[156:157]
    if kind in (OLD_FILE, CONTIGUOUS):
        kind = FILE
    name = text(header[:100])
    magic = header[257:263]
    if magic == b"ustar\0" and header[345]:
        name = text(header[345:500]) + b"/" + name
    entry = Entry(name, kind)
    entry.link = text(header[157:257])
    entry.mode = number(header[100:108]) & 0o7777
    entry.uid, entry.gid = number(header[108:116]), number(header[116:124])
    entry.size = number(header[124:136])
    seconds = number(header[136:148])
    entry.mtime = max(-SECONDS, min(SECONDS, seconds)) * 10**9
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.device = (number(header[329:337]), number(header[337:345]))
    if kind == GNU_SPARSE:
        raise damaged(f"{entry.name!r} is stored as a sparse file, which is not supported")
    if kind not in KINDS and kind not in (PAX, PAX_GLOBAL, GNU_NAME, GNU_LINK):
        raise damaged(f"{entry.name!r} is of the unknown type {kind!r}")
    check(entry)
    return entry


def check(entry: Entry) -> None:
    """Refuse sizes and ids that cannot be."""
    if not 0 <= entry.size <= LARGEST:
        raise damaged(f"{entry.name!r} has the impossible size {entry.size}")
    if not (0 <= entry.uid < 1 << 32 and 0 <= entry.gid < 1 << 32):
        raise damaged(f"{entry.name!r} has the impossible owner {entry.uid}:{entry.gid}")


def text(field: bytes) -> bytes:
    """A field up to its first NUL."""
    return field.partition(b"\0")[0]


def number(field: bytes) -> int:
    """A number: octal, or GNU's base 256, which begins with 0x80 (0xff where it is negative)."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True)
        return value if field[0] == 0xFF else value + (1 << (8 * len(field) - 1))
    digits = field.strip(b" \0")
    if not digits:
        return 0
    digits = digits.partition(b"\0")[0].rstrip(b" ")
    if digits.translate(None, b"01234567"):
        raise damaged("a header's number is not octal")
    return int(digits, 8)


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """The records `LENGTH KEY=VALUE\\n` of an extended header."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 10)
        length = data[position:space] if space > 0 else b""
        if not length.isdigit() or length.startswith(b"0"):
            if not data[position:].strip(b"\0"):
                break
            raise damaged("an extended header is malformed")
        end = position + int(length)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals or not key:
            raise damaged("an extended header is malformed")
        records[key] = value
        position = end
    return records


def apply_pax(entry: Entry, records: dict[bytes, bytes]) -> None:
    """Let an extended header's records override those of the plain one."""
    for key, value in records.items():
        if key in (b"path", b"linkpath"):
            if b"\0" in value:
                raise damaged("a name has a NUL byte in it")
            if key == b"path":
                entry.name = value
            else:
                entry.link = value
        elif key in (b"size", b"uid", b"gid"):
            if not value.isdigit() or len(value) > 18:
                raise damaged("an extended header's number is malformed")
            setattr(entry, key.decode(), int(value))
        elif key == b"mtime":
            entry.mtime = parse_time(value)
        elif key.startswith(XATTR):
            entry.xattrs[key[len(XATTR) :]] = value
        elif key.startswith(b"GNU.sparse."):
            raise damaged(f"{entry.name!r} is stored as a sparse file, which is not supported")
    check(entry)


def parse_time(value: bytes) -> int:
    """Nanoseconds from decimal seconds."""
    whole, _, fraction = value.partition(b".")
    negative = whole.startswith(b"-")
    if not whole.lstrip(b"-").isdigit() or len(whole) > 20 or (fraction and not fraction.isdigit()):
        raise damaged("a time is malformed")
    seconds = max(-SECONDS, min(SECONDS, int(whole)))
    nanoseconds = int(fraction[:9].ljust(9, b"0") or b"0")
    return seconds * 10**9 + (-nanoseconds if negative else nanoseconds)


def write(entry: Entry) -> bytes:
    """The header of an entry, with an extended one before it where a plain one does not hold everything.

    Times are cut to whole seconds, as other tools do."""
    records: dict[bytes, bytes] = {XATTR + name: value for name, value in entry.xattrs.items()}
    name, link = entry.name, entry.link
    prefix = b""
    if len(name) > 100:
        cut = name.rfind(b"/", 0, 156)
        if cut > 0 and 0 < len(name) - cut - 1 <= 100:
            prefix, name = name[:cut], name[cut + 1 :]
        else:
            records[b"path"], name = name, name[:100]
    if not entry.name.isascii():
        records[b"path"] = entry.name
    if len(link) > 100 or not link.isascii():
        records[b"linkpath"], link = entry.link, link[:100]
    numbers = {b"uid": entry.uid, b"gid": entry.gid, b"size": entry.size, b"mtime": entry.mtime // 10**9}
    for key, limit in ((b"uid", 8**7), (b"gid", 8**7), (b"size", 8**11), (b"mtime", 8**11)):
        if not 0 <= numbers[key] < limit:
            records[key], numbers[key] = b"%d" % numbers[key], 0
    extended = b""
    if records:
        data = b"".join(pax_record(key, records[key]) for key in sorted(records))
        extended = plain(b"PaxHeaders/entry", PAX, b"", 0o644, 0, 0, len(data), 0, (0, 0), b"")
        extended += data + bytes(-len(data) % BLOCK)
    return extended + plain(
        name,
        entry.kind,
        link,
        entry.mode,
        numbers[b"uid"],
        numbers[b"gid"],
        numbers[b"size"],
        numbers[b"mtime"],
        entry.device,
        prefix,
    )


def pax_record(key: bytes, value: bytes) -> bytes:
    """A record, whose length counts its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) + rest != length:
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def plain(
    name: bytes,
    kind: bytes,
    link: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    device: tuple[int, int],
    prefix: bytes,
) -> bytes:
    """A ustar header."""
    header = b"".join(
        (
            name.ljust(100, b"\0"),
            b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime),
            b" " * 8,
            kind,
            link.ljust(100, b"\0"),
            b"ustar\x0000",
            bytes(64),
            b"%07o\0%07o\0" % device,
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]
