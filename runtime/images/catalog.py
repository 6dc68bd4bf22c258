"""The images of a store: how they are named, what they are made of, and what nobody needs any more.

An image is a row: its id (the hexadecimal digest of its configuration; a snapshot's is random), its layers
(`Store.layers`), and what containers need of its configuration (`record`). Names are tags, each of one image at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from sqlite3 import Row
from typing import Any

from nbhull.runtime.errors import Conflict, InvalidInput
from nbhull.runtime.images import documents
from nbhull.runtime.images.blobs import Blobs, digest_of
from nbhull.runtime.images.documents import Descriptor, ImageConfig, Manifest
from nbhull.runtime.images.layers import Layer, Layers, source_date_epoch
from nbhull.runtime.images.reference import local_name
from nbhull.runtime.images.workshop import Workshop
from nbhull.runtime.model import HOST_IMAGE, Image
from nbhull.runtime.rows import image_of
from nbhull.runtime.store import Store

BASE = "oci"
"""`base` of images whose root file system is their layers alone"""


class Catalog:
    """The images of a store; thread-safe."""

    def __init__(self, store: Store, workshop: Workshop) -> None:
        self.store = store
        self.workshop = workshop
        self.layers = Layers(store, workshop)
        self.blobs: Blobs = self.layers.blobs

    def find(self, ref: str) -> Row:
        """The row of an image by tag, id, beginning of an id, or `repository@digest`. Raises NotFound, Conflict."""
        if ref == HOST_IMAGE:
            raise InvalidInput(
                "the image 'host' is this machine itself, and cannot be moved or changed",
                "make an image of a container instead, or: nbhull bootstrap debian:bookworm",
            )
        return self.store.find("images", ref, "image")

    def get(self, ref: str) -> Image:
        """An image."""
        return image_of(self.find(ref))

    def register(
        self,
        config: bytes | dict[str, Any],
        layers: Sequence[str],
        names: Sequence[str] = (),
        *,
        parent: str | None = None,
        manifest: str | None = None,
        digests: Sequence[tuple[str, str]] = (),
    ) -> Image:
        """Make an image of a configuration (config.md) and of layers of the store, the lowest first.

        `config`: the document, or its table with `rootfs.diff_ids` still empty where layers have no digests yet: those
        are then made when something asks. `names`: its tags, taken from whoever has them; `manifest`:
        digest of a manifest that is among the blobs; `digests`: (repository, digest) under which it was got. An image
        of the same configuration that is there already stays, and takes the names."""
        checked = documents.parse_config(config) if isinstance(config, bytes) else documents.check_config(config)
        rows = [self.layers.get(identity) for identity in layers]
        complete = [row.diff_id for row in rows] == list(checked.diff_ids)
        if isinstance(config, bytes) and not complete:
            raise InvalidInput("the image's configuration does not name the layers that its manifest has", "")
        data = config if isinstance(config, bytes) else documents.canonical(config)
        identity = digest_of(data).removeprefix("sha256:") if complete else os.urandom(6).hex()
        newest_first = list(reversed(layers))
        record = {
            "base": BASE,
            "environment": None,
            "parts": [],
            "foundation": newest_first,
            "config": checked.settings(),
            **({"source": digest_of(data)} if complete else {"document": checked.document}),
        }
        digest = self.blobs.add(data) if complete else None
        names = [local_name(name) for name in names]
        with self.store.transaction():
            self.store.query(
                "insert into images (id, parent, base, created, size, record, config, manifest) "
                "values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (id) do update set "
                "manifest = coalesce(excluded.manifest, manifest)",
                identity,
                parent,
                BASE,
                time.time(),
                sum(row.size for row in rows),
                json.dumps(record),
                digest,
                manifest,
            )
            for name in names:
                self.store.set_tag(name, identity)
            for repository, one in digests:
                self.store.query("insert or replace into digests values (?, ?, ?)", repository, one, identity)
        image = self.get(identity)
        return image.but(name=names[0]) if names else image

    def import_root(
        self, pieces: Any, names: Sequence[str], settings: dict[str, Any] | None = None, comment: str = ""
    ) -> Image:
        """An image of one layer: a root file system's tar, in pieces of bytes, compressed or not; `settings`: the
        `config` table of its configuration."""
        layer = self.layers.ingest_root(pieces)
        created = now()
        history = [{"created": created, "created_by": "nbhull import", **({"comment": comment} if comment else {})}]
        return self.register(documents.make_config(settings or {}, [], history, created), [layer.id], names)

    def config(self, row: Row) -> ImageConfig:
        """An image's configuration. That of a snapshot, or of an image whose layers have no digests yet, is the one
        that it was made from, with a step of its history for each layer on top."""
        if row["config"]:
            return documents.parse_config(self.blobs.read(row["config"]))
        record = json.loads(row["record"])
        if record["base"] != BASE:
            raise Conflict(
                f"{row['name'] or row['id']} stands on this machine's own system, which is in none of its layers",
                "for an image that goes elsewhere, start from one that does: nbhull bootstrap debian:bookworm",
            )
        document = record["document"] if "document" in record else json.loads(self.blobs.read(record["source"]))
        own = len(list(self.store.chain(row["top"])))
        created = datetime.fromtimestamp(row["created"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        step = {
            "created": created,
            "created_by": "nbhull snapshot",
            **({"comment": row["note"]} if row["note"] else {}),
        }
        return documents.check_config(
            {
                **document,
                **({"created": created} if own else {}),
                "history": [*(document.get("history") or []), *([step] * own)],
            }
        )

    def prepare(self, row: Row) -> None:
        """See that the worker is there if `completed` will need it, so that it may be called in a thread."""
        layers = [self.layers.get(identity) for identity in self.store.image_layers(row)]
        if self.workshop.is_needed_to_read() and not all(
            layer.blob and self.blobs.has(layer.blob) for layer in layers
        ):
            self.workshop.worker_client()

    def completed(self, row: Row) -> tuple[Row, ImageConfig, list[Layer]]:
        """An image with all digests, made now where they are not: its row, configuration, and layers, the lowest
        first."""
        config = self.config(row)
        layers = [self.layers.packed(identity) for identity in reversed(self.store.image_layers(row))]
        if row["config"]:
            return row, config, layers
        document = dict(config.document)
        document["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
        digest = self.blobs.add(documents.canonical(document))
        self.store.query("update images set config = ? where id = ?", digest, row["id"])
        row = self.store.find("images", row["id"], "image")
        return row, documents.check_config(document), layers

    def manifest(self, row: Row, *, compressed: bool = False) -> tuple[Row, bytes, Manifest]:
        """An image's manifest: the one that it came with, if all its blobs are here, else a new one; `compressed`:
        a new one whose layers are."""
        if not compressed and row["manifest"] and self.blobs.has(row["manifest"]):
            data = self.blobs.read(row["manifest"])
            manifest = documents.parse_manifest(data)
            if isinstance(manifest, Manifest) and all(self.blobs.has(layer.digest) for layer in manifest.layers):
                return row, data, manifest
        row, _, layers = self.completed(row)
        if compressed:
            layers = [self.layers.compressed(layer.id) for layer in layers]
        config = Descriptor(documents.OCI_CONFIG, row["config"], self.blobs.size(row["config"]))
        manifest = Manifest(documents.OCI_MANIFEST, config, tuple(layer.descriptor for layer in layers))
        data = manifest.to_bytes()
        self.store.query("update images set manifest = ? where id = ?", self.blobs.add(data), row["id"])
        return self.store.find("images", row["id"], "image"), data, manifest

    @contextmanager
    def making(self) -> Iterator[None]:
        """While images are made of layers that no image has yet: nobody takes them for garbage. The worker is there,
        so that threads may be started."""
        self.workshop.worker_client()
        with open(self.store.path("images.lock"), "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    # Names

    def tag(self, ref: str, name: str) -> Image:
        """Give an image one more name, which is taken from whoever has it. Raises NotFound, InvalidInput."""
        row = self.find(ref)
        self.store.set_tag(local_name(name), row["id"])
        return image_of(row)

    def tags(self, identity: str) -> list[str]:
        """An image's names, the oldest first."""
        rows = self.store.query("select name from tags where image = ? order by created, name", identity)
        return [row["name"] for row in rows]

    def digests(self, identity: str) -> list[str]:
        """`repository@digest` of where an image was got from, or was pushed to."""
        rows = self.store.query("select * from digests where image = ? order by repository, digest", identity)
        return [f"{row['repository']}@{row['digest']}" for row in rows]


def now() -> str:
    """The time as configurations have it; $SOURCE_DATE_EPOCH where it is set."""
    epoch = source_date_epoch()
    return datetime.fromtimestamp(time.time() if epoch is None else epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def name_of(row: Any, ref: str) -> str | None:
    """The name under which an image was asked for, else its first; None if it has none."""
    try:
        name = local_name(ref)
    except InvalidInput:
        name = ""
    if name and not row["id"].startswith(ref.removeprefix("sha256:")):
        return name
    return row["name"] or None
