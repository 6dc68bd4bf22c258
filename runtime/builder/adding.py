"""What ADD takes besides plain files: archives of the context, which are unpacked, and files of the network."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import tempfile

from nbhull.runtime.builder import copying
from nbhull.runtime.builder.copying import Job
from nbhull.runtime.errors import Denied, HullError, InvalidInput, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from nbhull.runtime.builder.instructions import Command
    from nbhull.runtime.builder.stage import StageBuild

GIT = re.compile(r"git@|git://|ssh://|(https?://[^#?]+\.git)(#|\?|$)")
CHUNK = 1 << 20
PATIENCE = 60.0
"""seconds without a byte after which a download is given up"""
MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")


class Archive:
    """An archive of the context."""

    def __init__(self, stage: StageBuild, path: str) -> None:
        self.context = stage.build.context
        self.path = path
        self.name = posixpath.basename(path)
        self.key = f"archive {self.context.digest(path, path).hex()}"

    def job(self, job: Job) -> Job:
        """How it is unpacked: always into a folder."""
        return job.but(into=True, name="", archive=True)

    def stream(self) -> Iterator[bytes]:
        """Its bytes."""
        with open(self.context.open_file(self.path), "rb", buffering=0) as file:
            while piece := file.read(CHUNK):
                yield piece

    def close(self) -> None:
        """Nothing is held."""


class Download:
    """A file of the network, in a temporary file."""

    def __init__(self, url: str, checksum: str | None, unpack: bool) -> None:
        self.url = url
        self.unpack = unpack
        self.name = posixpath.basename(url.partition("?")[0].partition("#")[0])
        self.file: Any = None
        self.modified = 0
        self.expected = check_checksum(checksum) if checksum else None
        if self.expected is None:
            self.fetch()
        self.key = f"download {self.digest if self.expected is None else self.expected} {unpack}"

    digest = ""

    def fetch(self) -> None:
        """Download it. Raises NotFound, HullError, InvalidInput for a wrong checksum."""
        try:
            self.download()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Throw away what was downloaded."""
        if self.file is not None:
            self.file.close()
            self.file = None

    def download(self) -> None:
        """The same, without cleaning up."""
        import email.utils
        import urllib.error
        import urllib.request

        self.file = tempfile.TemporaryFile(prefix="nbhull-")  # noqa: SIM115  # closed where it was read
        whole = hashlib.sha256()
        request = urllib.request.Request(self.url, headers={"User-Agent": "nbhull"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                while piece := answer.read(CHUNK):
                    whole.update(piece)
                    self.file.write(piece)
                if stamp := answer.headers.get("Last-Modified"):
                    try:
                        self.modified = int(email.utils.parsedate_to_datetime(stamp).timestamp())
                    except (ValueError, OverflowError):
                        self.modified = 0  # a date that means nothing
        except urllib.error.HTTPError as error:
            raise NotFound(f"{self.url} answered {error.code} {error.reason}", "correct the address") from error
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise HullError(
                f"{self.url} cannot be got: {reason}",
                "see the network, and the variables https_proxy and SSL_CERT_FILE",
            ) from error
        self.digest = f"sha256:{whole.hexdigest()}"
        if self.expected and self.digest != self.expected:
            raise InvalidInput(
                f"{self.url} has the digest {self.digest}, and not {self.expected}",
                "correct --checksum, or ask who changed it",
            )

    def job(self, job: Job) -> Job:
        """How it is placed: as it is, mode 0600, unless it is to be unpacked."""
        return job.but(into=True, name="", archive=True) if self.unpack else job

    def stream(self) -> Iterator[bytes]:
        """A tar with the file in it, or the archive itself."""
        from nbhull.runtime.images import tarheaders as tar

        if self.file is None:
            self.fetch()
        size = self.file.seek(0, os.SEEK_END)
        self.file.seek(0)
        if not self.unpack:
            entry = copying.header(self.name, tar.FILE, 0o600, self.modified * 10**9)
            entry.size = size
            yield tar.write(entry)
        while piece := self.file.read(CHUNK):
            yield piece
        if not self.unpack:
            yield bytes(-size % tar.BLOCK) + tar.ZERO * 2
        self.close()


def sort(stage: StageBuild, one: Command, sources: tuple[str, ...]) -> tuple[tuple[str, ...], list[Archive | Download]]:
    """The sources of an ADD: plain files, and what is downloaded or unpacked. Raises InvalidInput, NotFound."""
    plain: list[str] = []
    extra: list[Archive | Download] = []
    checksum = stage.scope.expand(one.flags["checksum"]) if one.flags["checksum"] else None
    unpack: bool | None = one.flags["unpack"]
    """None: archives of the context are, downloads are not"""
    for source in sources:
        if GIT.match(source):
            raise InvalidInput(
                f"ADD cannot take the git repository {source!r}", "clone it beforehand, or in a RUN step"
            )
        if source.startswith(("http://", "https://")):
            bounds = stage.build.options.bounds
            if bounds is not None and not bounds.may_download:
                raise Denied(
                    f"ADD would have this machine get {source}, which a kernel's network is not", "get it in a RUN step"
                )
            name = posixpath.basename(source.partition("?")[0].partition("#")[0])
            if not name and not unpack:
                raise InvalidInput(f"{source!r} has no file name", "download it in a RUN step")
            if not stage.build.may_work and not checksum:
                from nbhull.runtime.builder.build import NeedsWork

                raise NeedsWork
            extra.append(Download(source, checksum, bool(unpack)))
            continue
        found = stage.build.context.find(source)
        archives = [path for path in found if unpack is not False and is_archive(stage, path)]
        if not archives:
            plain.append(source)
            continue
        extra += [Archive(stage, path) for path in archives]
        plain += [quoted(path) for path in found if path not in archives]
    if checksum and not any(isinstance(source, Download) for source in extra):
        raise InvalidInput("--checksum is given, and nothing is downloaded", "leave it out")
    return tuple(plain), extra


def quoted(path: str) -> str:
    """A path as a pattern that matches it alone."""
    return re.sub(r"([\[\]*?\\])", r"\\\1", path) if re.search(r"[*?\[\\]", path) else path


def is_archive(stage: StageBuild, path: str) -> bool:
    """Whether a file of the context is a tar, compressed or not, by its content."""
    context = stage.build.context
    if not context.is_file(path):
        return False
    from nbhull.runtime.images.compression import decompress

    with open(context.open_file(path), "rb", buffering=0) as file:
        try:
            first = b""
            for piece in decompress(lambda count: file.read(min(count, 65536)) or b""):
                first += piece
                if len(first) >= 512:
                    break
        except InvalidInput:
            return False
    return is_tar_header(first[:512])


def is_tar_header(block: bytes) -> bool:
    """Whether a block is a header of a tar: its checksum is right (ustar, IEEE 1003.1)."""
    if len(block) < 512 or not block[0]:
        return False
    try:
        told = int(block[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    return told == sum(block[:148]) + 8 * 32 + sum(block[156:])


def check_checksum(text: str) -> str:
    """A digest of --checksum. Raises InvalidInput."""
    if re.fullmatch(r"sha256:[0-9a-f]{64}", text) is None:
        raise InvalidInput(f"--checksum={text} is no digest", "write it like --checksum=sha256:…, with 64 digits")
    return text
