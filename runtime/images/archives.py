"""Images as files: the OCI image layout as a folder or a tar (image-layout.md), and what `docker save` writes.

Reading, every name, size and digest is hostile; writing, the same images give the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, Literal, Protocol

from nbhull.runtime.errors import HostUnable, HullError, InvalidInput, NotFound
from nbhull.runtime.images import compression, documents
from nbhull.runtime.images import tarheaders as tar
from nbhull.runtime.images.blobs import LARGEST_DOCUMENT, digest_of
from nbhull.runtime.images.catalog import Catalog, name_of
from nbhull.runtime.images.documents import Descriptor, Index, Manifest
from nbhull.runtime.images.layers import Layer
from nbhull.runtime.images.reference import local_name
from nbhull.runtime.images.unpack import Joined, clean, shown
from nbhull.runtime.linux.mount import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, openat2
from nbhull.runtime.model import Image

Format = Literal["oci-archive", "oci-dir", "docker-archive"]
FORMATS = ("oci-archive", "oci-dir", "docker-archive")
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
REF_NAME, FULL_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
"""annotations of an index's entries: the tag, and the whole name (annotations.md; containerd's and Docker's)"""
MOST_FILES = 100_000
PIECE = 1 << 20
SIDE_BY_SIDE = 2
"""layers that are unpacked at the same time"""


# Writing


class Sink(Protocol):
    """Where an archive's files go."""

    def add(self, name: str, data: BinaryIO, size: int) -> None: ...


class TarSink:
    """A tar, its entries as they come, owned by root, from the epoch on."""

    def __init__(self, output: BinaryIO) -> None:
        self.output = output
        self.folders: set[str] = set()

    def add(self, name: str, data: BinaryIO, size: int) -> None:
        """A file, with the folders above it."""
        above = name.split("/")[:-1]
        for folder in ("/".join(above[: depth + 1]) for depth in range(len(above))):
            if folder not in self.folders:
                self.folders.add(folder)
                entry = tar.Entry(folder.encode() + b"/", tar.FOLDER)
                entry.mode = 0o755
                self.output.write(tar.write(entry))
        entry = tar.Entry(name.encode(), tar.FILE)
        entry.size = size
        self.output.write(tar.write(entry))
        copy(data, self.output, size)
        self.output.write(bytes(-size % tar.BLOCK))

    def finish(self) -> None:
        """The archive's end."""
        self.output.write(tar.ZERO * 2)


class FolderSink:
    """A folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def add(self, name: str, data: BinaryIO, size: int) -> None:
        """A file, with the folders above it; one that is there already stays if its name is its digest."""
        path = f"{self.folder}/{name}"
        if name.startswith("blobs/") and os.path.exists(path):
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(f"{path}.part", "wb") as file:
            copy(data, file, size)
        os.rename(f"{path}.part", path)


def copy(source: BinaryIO, target: Any, size: int) -> None:
    """Copy so many bytes. Raises HullError where there are fewer."""
    left = size
    while left:
        piece = source.read(min(PIECE, left))
        if not piece:
            raise HullError("a file of the store is shorter than it was", "pull or load the image again")
        target.write(piece)
        left -= len(piece)


def save(catalog: Catalog, refs: Sequence[str], output: str, form: Format = "oci-archive") -> None:
    """Write images to a file, or for `oci-dir` to a folder; `-` is standard output.

    Raises NotFound, Conflict for images that stand on this machine's own system, HostUnable where it cannot be
    written: then no file is left."""
    rows = [catalog.find(ref) for ref in refs]
    try:
        if form == "oci-dir":
            os.makedirs(output, exist_ok=True)
            write_oci(catalog, rows, refs, FolderSink(output))
            return
        if output == "-":
            with open(1, "wb", closefd=False) as file:
                write_tar(catalog, rows, refs, file, form)
            return
        part = f"{output}.part-{os.getpid()}"
        try:
            with open(part, "xb") as file:
                write_tar(catalog, rows, refs, file, form)
            os.rename(part, output)
        except BaseException:
            if os.path.exists(part):
                os.unlink(part)
            raise
    except OSError as error:
        raise HostUnable(f"cannot write {output!r}: {error.strerror}", "choose another place") from error


def write_tar(catalog: Catalog, rows: Sequence[Any], refs: Sequence[str], file: BinaryIO, form: Format) -> None:
    """Write images to a tar."""
    sink = TarSink(file)
    (write_docker if form == "docker-archive" else write_oci)(catalog, rows, refs, sink)
    sink.finish()


def write_oci(catalog: Catalog, rows: Sequence[Any], refs: Sequence[str], sink: Sink) -> None:
    """The files of an image layout."""
    entries, written = [], set()
    for row, ref in zip(rows, refs, strict=True):
        row, data, manifest = catalog.manifest(row)
        digest = digest_of(data)
        annotations = {}
        if (name := name_of(row, ref)) is not None:
            annotations = {FULL_NAME: name, REF_NAME: parse_tag(name)}
        entries.append(Descriptor(manifest.media_type, digest, len(data), annotations))
        for blob in (manifest.config, *manifest.layers):
            if blob.digest not in written:
                written.add(blob.digest)
                with catalog.blobs.open(blob.digest) as file:
                    sink.add(f"blobs/sha256/{blob.digest[7:]}", file, blob.size)
        if digest not in written:
            written.add(digest)
            sink.add(f"blobs/sha256/{digest[7:]}", io.BytesIO(data), len(data))
    for path, document in (
        ("index.json", Index(documents.OCI_INDEX, tuple(entries)).to_bytes()),
        ("oci-layout", LAYOUT),
    ):
        sink.add(path, io.BytesIO(document), len(document))


def write_docker(catalog: Catalog, rows: Sequence[Any], refs: Sequence[str], sink: Sink) -> None:
    """The files of a docker-archive: layers plain, each named by its diff id."""
    listed, written = [], set()
    for row, ref in zip(rows, refs, strict=True):
        row, _, layers = catalog.completed(row)
        for layer in layers:
            assert layer.diff_id is not None
            if layer.diff_id not in written:
                written.add(layer.diff_id)
                add_plain(catalog, layer, sink)
        data = catalog.blobs.read(row["config"])
        if row["config"] not in written:
            written.add(row["config"])
            sink.add(f"{row['config'][7:]}.json", io.BytesIO(data), len(data))
        name = name_of(row, ref)
        tags = [] if name is None else [name if ":" in name.rpartition("/")[2] else f"{name}:latest"]
        names = [f"{layer.diff_id[7:]}.tar" for layer in layers if layer.diff_id]
        listed.append({"Config": f"{row['config'][7:]}.json", "RepoTags": tags, "Layers": names})
    data = documents.canonical(listed)
    sink.add("manifest.json", io.BytesIO(data), len(data))


def add_plain(catalog: Catalog, layer: Layer, sink: Sink) -> None:
    """A layer's plain tar, decompressed on the way; twice where its length is not known, since it stands before."""
    name = f"{(layer.diff_id or '')[7:]}.tar"
    with catalog.blobs.open(layer.blob or "") as file:
        if compression.kind_of(file.read(6)) == "none":
            file.seek(0)
            sink.add(name, file, layer.blob_size or 0)
            return
        file.seek(0)
        size = sum(map(len, compression.decompress(file.read, floor=1 << 62)))
        file.seek(0)
        sink.add(name, Joined(compression.decompress(file.read, floor=1 << 62)), size)  # type: ignore[arg-type]


def parse_tag(name: str) -> str:
    """The tag in a name."""
    return name.rpartition(":")[2] if ":" in name.rpartition("/")[2] else "latest"


# Reading


class Files(Protocol):
    """The files of an archive."""

    def names(self) -> list[str]: ...

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """A file, at its beginning, and its bytes. Raises NotFound."""
        ...


class FolderFiles:
    """Those of a folder."""

    def __init__(self, folder: str) -> None:
        self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def names(self) -> list[str]:
        return os.listdir(self.fd)

    def open(self, name: str) -> tuple[BinaryIO, int]:
        try:
            fd = openat2(self.fd, name, os.O_RDONLY | os.O_NONBLOCK, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            raise NotFound(f"the image layout has no {name!r}: {error.strerror}", "copy the whole folder") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise InvalidInput(f"{name!r} in the image layout is no file", "copy the folder again")
        return open(fd, "rb", buffering=0), os.fstat(fd).st_size


class Seekable:
    """A tar's file as a source of headers."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size

    def take(self, count: int) -> bytes:
        return self.file.read(count)

    def skip(self, count: int) -> None:
        if self.file.seek(count, os.SEEK_CUR) > self.size:
            raise tar.damaged("it is cut off")


class TarFiles:
    """Those of a tar, which are found by their headers and then read where they lie."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.places: dict[str, tuple[int, int]] = {}
        self.links: dict[str, str] = {}
        reader = tar.Reader(Seekable(file))
        for _ in range(MOST_FILES):
            entry = reader.next()
            if entry is None:
                return
            name = clean(entry.name).decode(errors="surrogateescape")
            if entry.kind == tar.FILE:
                self.places[name] = (file.tell(), entry.size)
            elif entry.kind == tar.HARD_LINK:
                self.links[name] = os.path.normpath(entry.link.decode(errors="surrogateescape"))
            elif entry.kind == tar.SYMBOLIC_LINK:
                target = os.path.join(os.path.dirname(name), entry.link.decode(errors="surrogateescape"))
                self.links[name] = os.path.normpath(target)
        raise InvalidInput(f"the archive has more than {MOST_FILES} files", "it is no archive of images")

    def names(self) -> list[str]:
        return [*self.places, *self.links]

    def open(self, name: str) -> tuple[BinaryIO, int]:
        path = os.path.normpath(name)
        place = self.places.get(path) or self.places.get(self.links.get(path, ""))
        if place is None:
            raise NotFound(f"the archive has no file {shown(name.encode(errors='replace'))}", "get the archive again")
        file = open(f"/proc/self/fd/{self.file.fileno()}", "rb", buffering=0)  # noqa: SIM115  # who asked closes it
        file.seek(place[0])
        return file, place[1]


def read_document(files: Files, name: str) -> bytes:
    """A small file. Raises NotFound, InvalidInput."""
    file, size = files.open(name)
    with file:
        if size > LARGEST_DOCUMENT:
            raise InvalidInput(f"{name!r} in the archive is too large", "it is no archive of images")
        return file.read(size)


def read_blob(files: Files, descriptor: Descriptor) -> bytes:
    """A small blob, verified."""
    data = read_document(files, blob_name(descriptor.digest))
    if len(data) != descriptor.size or digest_of(data) != descriptor.digest:
        raise InvalidInput(f"the archive's {descriptor.digest} has another digest or size", "get the archive again")
    return data


def blob_name(digest: str) -> str:
    """Where a blob lies in an image layout."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def load(catalog: Catalog, source: str, names: Sequence[str] = ()) -> list[Image]:
    """Take in the images of an archive, told by its content; `-` is standard input. `names`: instead of the archive's,
    for an archive of one image.

    Raises NotFound, and InvalidInput for what is malformed or does not have its digest: then nothing is taken in of
    that image."""
    if source != "-" and not os.path.exists(source):
        raise NotFound(f"there is no file {source!r}", "give the path of an archive, or of an image layout")
    if source != "-" and os.path.isdir(source):
        return load_files(catalog, FolderFiles(source), names)
    with open(0 if source == "-" else source, "rb", buffering=0, closefd=source != "-") as given:
        file = seekable(catalog, given)
        with file:
            return load_files(catalog, TarFiles(file), names)


def seekable(catalog: Catalog, given: BinaryIO) -> BinaryIO:
    """The plain tar that a stream is, or holds, as a file that can be sought in."""
    if given.seekable():
        kind = compression.kind_of(given.read(6))
        given.seek(0)
        if kind == "none":
            return open(os.dup(given.fileno()), "rb", buffering=0)
    # A temporary file of the store, since it may be large.
    spool = tempfile.TemporaryFile(dir=catalog.blobs.folder, buffering=0)  # noqa: SIM115  # the caller closes it
    try:
        for piece in compression.decompress(given.read):
            spool.write(piece)
    except OSError as error:
        spool.close()
        raise HostUnable(f"the archive cannot be read: {error.strerror}", "make room, or: nbhull prune") from error
    spool.seek(0)
    return spool


def load_files(catalog: Catalog, files: Files, names: Sequence[str]) -> list[Image]:
    """Take in the images that are among files."""
    there = files.names()
    with catalog.making():
        if "index.json" in there:
            return load_oci(catalog, files, names)
        if "manifest.json" in there:
            return load_docker(catalog, files, names)
    raise InvalidInput("it is neither an image layout nor a docker-archive", "for a root file system: nbhull import")


def load_oci(catalog: Catalog, files: Files, names: Sequence[str]) -> list[Image]:
    """Take in the images of an image layout."""
    index = documents.parse_manifest(read_document(files, "index.json"))
    if not isinstance(index, Index):
        raise InvalidInput("the image layout's index.json is no index", "get the archive again")
    loaded = []
    for entry in index.manifests:
        data, found = read_blob(files, entry), entry
        document = documents.parse_manifest(data, entry.media_type)
        if isinstance(document, Index):
            found = documents.choose(document, "the archive's image")
            data = read_blob(files, found)
            document = documents.parse_manifest(data, found.media_type)
        if not isinstance(document, Manifest):
            raise InvalidInput("an index of the archive leads to one more index", "get the archive again")
        config = read_blob(files, document.config)
        diff_ids = documents.parse_config(config).diff_ids
        if len(diff_ids) != len(document.layers):
            raise documents.malformed("image configuration", "it has not as many layers as its manifest")

        def ingest(pair: tuple[Descriptor, str]) -> Layer:
            descriptor, diff_id = pair
            return ingest_file(catalog, files, blob_name(descriptor.digest), diff_id, descriptor)

        layers = in_parallel(ingest, list(zip(document.layers, diff_ids, strict=True)))
        manifest = catalog.blobs.add(data)
        given = entry.annotations.get(FULL_NAME) or entry.annotations.get(REF_NAME) or ""
        tags = list(names) or ([given] if is_name(given) and given != "latest" else [])
        loaded.append(catalog.register(config, [layer.id for layer in layers], tags, manifest=manifest))
    if not loaded:
        raise InvalidInput("the archive has no images in it", "get the archive again")
    return loaded


def load_docker(catalog: Catalog, files: Files, names: Sequence[str]) -> list[Image]:
    """Take in the images of a docker-archive."""
    listed = load_list(read_document(files, "manifest.json"))
    loaded = []
    for item in listed:
        config = read_document(files, item["Config"])
        diff_ids = documents.parse_config(config).diff_ids
        if len(diff_ids) != len(item["Layers"]):
            raise documents.malformed("image configuration", "it has not as many layers as manifest.json")

        def ingest(pair: tuple[str, str]) -> Layer:
            return ingest_file(catalog, files, *pair)

        layers = in_parallel(ingest, list(zip(item["Layers"], diff_ids, strict=True)))
        tags = list(names) or [tag for tag in item.get("RepoTags") or [] if is_name(tag)]
        loaded.append(catalog.register(config, [layer.id for layer in layers], tags))
    return loaded


def load_list(data: bytes) -> list[dict[str, Any]]:
    """The entries of a docker-archive's manifest.json. Raises InvalidInput."""
    try:
        listed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise documents.malformed("archive's manifest.json", "it is not valid JSON") from error

    def is_right(item: Any) -> bool:
        return (
            isinstance(item, dict)
            and isinstance(item.get("Config"), str)
            and isinstance(item.get("Layers"), list)
            and all(isinstance(layer, str) for layer in item["Layers"])
            and isinstance(item.get("RepoTags") or [], list)
        )

    if not isinstance(listed, list) or not listed or not all(map(is_right, listed)):
        raise documents.malformed("archive's manifest.json", "it is not a list of images")
    return listed


def ingest_file(catalog: Catalog, files: Files, name: str, diff_id: str, descriptor: Descriptor | None = None) -> Layer:
    """Take in a layer, unless it is there already."""
    there = catalog.layers.with_diff_id(diff_id)
    if there is not None and there.blob and catalog.blobs.has(there.blob):
        return there
    file, size = files.open(name)
    if descriptor is not None and size != descriptor.size:
        file.close()
        raise InvalidInput(f"the archive's {descriptor.digest} has another size", "get the archive again")

    def pieces() -> Iterator[bytes]:
        left = size
        while left and (piece := file.read(min(PIECE, left))):
            left -= len(piece)
            yield piece

    with file:
        return catalog.layers.ingest(
            pieces(),
            digest=descriptor.digest if descriptor else None,
            size=size,
            diff_id=diff_id,
            media_type=descriptor.media_type if descriptor else None,
            restart=True,
        )


def in_parallel(work: Callable[[Any], Layer], items: list[Any]) -> list[Layer]:
    """Do a thing with each; the results in order, the first exception raised once all have ended."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        futures = [pool.submit(work, item) for item in items]
        return [future.result() for future in futures]


def is_name(text: str) -> bool:
    """Whether a name from an archive can be given to an image here."""
    try:
        local_name(text)
    except InvalidInput:
        return False
    return True
