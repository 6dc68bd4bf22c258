"""Pull and push: between a registry and the store's blobs, layers and catalog."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from sqlite3 import Row
from threading import Event
from typing import Protocol, TypeVar

from nbhull.runtime import policy
from nbhull.runtime.errors import HullError, InvalidInput, NotFound
from nbhull.runtime.images import reference as references
from nbhull.runtime.images.catalog import Catalog, name_of
from nbhull.runtime.images.documents import (
    LAYERS,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    choose,
    parse_config,
    parse_manifest,
)
from nbhull.runtime.images.layers import SUFFIX, Layer
from nbhull.runtime.images.reference import Reference
from nbhull.runtime.model import Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.registry.client import Repository
    from nbhull.runtime.registry.transport import Transport

T = TypeVar("T")
U = TypeVar("U")

AT_ONCE = 4
"""layers that are transferred at the same time"""


class Progress(Protocol):
    """Who is told how far a transfer is; called from several threads."""

    def begin(self, what: str, total: int) -> None:
        """A part of `total` bytes begins."""

    def advance(self, what: str, count: int) -> None:
        """So many bytes more of it are done (less, if it had to be taken up again)."""

    def end(self, what: str, outcome: str) -> None:
        """It is done, in a word."""


class Silent:
    """Tells nobody."""

    def begin(self, what: str, total: int) -> None: ...

    def advance(self, what: str, count: int) -> None: ...

    def end(self, what: str, outcome: str) -> None: ...


def parse_remote(text: str) -> Reference:
    """A reference that names its registry. Raises InvalidInput, and Denied for one that a rule does not allow."""
    reference = references.parse(text)
    if not reference.registry:
        raise InvalidInput(
            f"the image name {text[:100]!r} names no registry",
            "write it with one, like registry.example.org/team/name:tag",
        )
    policy.check_registry(reference.repository)
    return reference


def pull(catalog: Catalog, text: str, *, plain_http: bool = False, progress: Progress | None = None) -> Image:
    """Get an image from its registry; what the store has already is not asked for again.

    Raises NotFound, Denied, InvalidInput for what is malformed or not what its digest says, HostUnable when the
    registry cannot be reached. What was received stays, so that the next try goes on from there."""
    from nbhull.runtime.registry.transport import Transport

    reference, progress = parse_remote(text), progress or Silent()
    transport = Transport(reference.registry, plain_http=plain_http)
    try:
        with catalog.making():
            return receive(catalog, transport, reference, progress)
    finally:
        transport.close()


def receive(catalog: Catalog, transport: Transport, reference: Reference, progress: Progress) -> Image:
    """Get an image and make it one of the store's."""
    from nbhull.runtime.registry.client import Repository

    repository = Repository(transport, reference.path)
    wanted = reference.digest or reference.tag or "latest"
    try:
        data, media_type, digest = repository.manifest(wanted)
    except NotFound as error:
        if reference.digest:
            raise NotFound(
                f"the registry {reference.registry} has no {reference.path}@{reference.digest}",
                "that image is gone from there, and no other is taken for it: have it pushed again, or choose another",
            ) from error
        raise
    digests = [(reference.repository, digest)]
    document = parse_manifest(data, media_type)
    if isinstance(document, Index):
        entry = choose(document, str(reference))
        data, media_type, digest = repository.manifest(entry.digest)
        document = parse_manifest(data, media_type or entry.media_type)
        digests.append((reference.repository, digest))
    if isinstance(document, Index):
        raise InvalidInput(f"the index of {reference} leads to another index", "name the image by its digest")
    config = repository.small_blob(document.config.digest, document.config.size)
    diff_ids = parse_config(config).diff_ids
    if len(diff_ids) != len(document.layers):
        raise InvalidInput(f"the configuration of {reference} does not fit its layers", "have it pushed again")
    pairs = list(zip(document.layers, diff_ids, strict=True))
    layers = together(getter(catalog, repository, progress), pairs)
    catalog.blobs.add(data)
    # what is asked for by its digest takes no name: that may be another image's here, and a notebook may ask
    names = [] if reference.digest else [f"{reference.repository}:{reference.tag or 'latest'}"]
    identities = [layer.id for layer in layers]
    return catalog.register(config, identities, names, manifest=digest, digests=digests)


def getter(
    catalog: Catalog, repository: Repository, progress: Progress
) -> Callable[[tuple[Descriptor, str], Event], Layer]:
    """What gets one layer, given its descriptor and diff id."""

    def get(pair: tuple[Descriptor, str], given_up: Event) -> Layer:
        descriptor, diff_id = pair
        what = descriptor.digest.removeprefix("sha256:")[:12]
        if (there := catalog.layers.with_diff_id(diff_id)) is not None:
            progress.end(what, "already here")
            return there
        progress.begin(what, descriptor.size)

        def pieces() -> Iterator[bytes]:
            # Asked for once what an earlier try has left is read again: then the file tells where to go on.
            offset = os.stat(f"{catalog.blobs.path(descriptor.digest)}.part").st_size
            progress.advance(what, offset)
            for piece in repository.blob(descriptor.digest, descriptor.size, offset):
                check(given_up)
                yield piece
                progress.advance(what, len(piece))

        layer = catalog.layers.ingest(
            pieces(),
            digest=descriptor.digest,
            size=descriptor.size,
            diff_id=diff_id,
            media_type=descriptor.media_type,
        )
        progress.end(what, "done")
        return layer

    return get


def push(
    catalog: Catalog, source: str, target: str | None, *, plain_http: bool = False, progress: Progress | None = None
) -> str:
    """Give an image to a registry under a name there, else the one that it is called by; the digest of its manifest.

    A layer that the registry has is not sent; one that another of its repositories has is taken from there. Raises
    NotFound, Denied, HostUnable, HullError."""
    row, progress = catalog.find(source), progress or Silent()
    target = target or name_of(row, source) or ""
    reference = parse_remote(target)
    if reference.digest:
        raise InvalidInput(f"an image is pushed to a tag, and {target[:100]!r} has a digest", "leave the digest out")
    catalog.prepare(row)
    with ThreadPoolExecutor(1) as pool:
        packing = pool.submit(catalog.completed, row)
        from nbhull.runtime.registry.client import Repository
        from nbhull.runtime.registry.transport import Transport  # import meanwhile what takes as long

        row, _, layers = packing.result()
    data, manifest = manifest_of(catalog, row, layers)
    transport = Transport(reference.registry, plain_http=plain_http)
    try:
        repository = Repository(transport, reference.path, push=True)
        give = giver(catalog, repository, origins(catalog, row, reference), progress)
        unique = {one.digest: one for one in (*manifest.layers, manifest.config)}
        together(give, list(unique.values()))
        repository.put_manifest(reference.tag or "latest", data, manifest.media_type)
    finally:
        transport.close()
    digest = catalog.blobs.add(data)
    catalog.store.query(
        "insert or replace into digests values (?, ?, ?)", reference.repository, digest, row["id"]
    )
    return digest


def manifest_of(catalog: Catalog, row: Row, layers: list[Layer]) -> tuple[bytes, Manifest]:
    """An image's manifest: the one that it came with, so that its digest stays, else a new one."""
    if row["manifest"] and catalog.blobs.has(row["manifest"]):
        data = catalog.blobs.read(row["manifest"])
        manifest = parse_manifest(data)
        if isinstance(manifest, Manifest) and all(catalog.blobs.has(one.digest) for one in manifest.layers):
            return data, manifest
    size = catalog.blobs.size(row["config"])
    docker = any(layer.descriptor.media_type.startswith("application/vnd.docker.") for layer in layers)
    if docker:  # one that lost its manifest: the layers are the same under the names of the image specification
        layers = [renamed(layer) for layer in layers]
    manifest = Manifest(
        OCI_MANIFEST, Descriptor(OCI_CONFIG, row["config"], size), tuple(layer.descriptor for layer in layers)
    )
    return manifest.to_bytes(), manifest


def renamed(layer: Layer) -> Layer:
    """A layer of Docker's media type under the image specification's."""
    return replace(layer, media_type=OCI_LAYER + SUFFIX[LAYERS[layer.descriptor.media_type]])


def origins(catalog: Catalog, row: Row, reference: Reference) -> dict[str, list[str]]:
    """By digest of a blob: other repositories of the same registry that may have it, from images that came from
    there or went there."""
    found: dict[str, list[str]] = {}
    prefix = f"{reference.registry}/"
    for other in catalog.store.query("select repository, image from digests"):
        repository = other["repository"]
        if not repository.startswith(prefix) or repository == reference.repository:
            continue
        for image in catalog.store.query("select top, record from images where id = ?", other["image"]):
            for identity in catalog.store.image_layers(image):
                if blob := catalog.layers.get(identity).blob:
                    found.setdefault(blob, []).append(repository.removeprefix(prefix))
    return found


def giver(
    catalog: Catalog, repository: Repository, elsewhere: dict[str, list[str]], progress: Progress
) -> Callable[[Descriptor, Event], None]:
    """What gives one blob."""

    def give(descriptor: Descriptor, given_up: Event) -> None:
        what = descriptor.digest.removeprefix("sha256:")[:12]
        if repository.has_blob(descriptor.digest):
            progress.end(what, "already there")
            return
        if any(repository.mount(descriptor.digest, origin) for origin in elsewhere.get(descriptor.digest, [])[:2]):
            progress.end(what, "taken from another repository")
            return
        progress.begin(what, descriptor.size)
        with catalog.blobs.open(descriptor.digest) as file:


            def advance(count: int) -> None:
                check(given_up)
                progress.advance(what, count)

            repository.upload(file, descriptor.digest, descriptor.size, advance)
        progress.end(what, "done")

    return give


def together(work: Callable[[T, Event], U], items: list[T]) -> list[U]:
    """Do the same for several things at once; the results in their order. With the first failure, which is raised, the
    others are given up."""
    given_up = Event()
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="nbhull-transfer") as pool:
        futures = [pool.submit(work, item, given_up) for item in items]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in done if future.exception() is not None]
            return [future.result() for future in failed or futures]
        finally:
            given_up.set()
            for future in futures:
                future.cancel()


def check(given_up: Event) -> None:
    """Raise HullError if the transfer was given up."""
    if given_up.is_set():
        raise HullError("the transfer was given up", "try again")


__all__ = ["Progress", "Silent", "parse_remote", "pull", "push"]
