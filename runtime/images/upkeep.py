"""What images and containers take up, and what nobody needs any more.

A layer is needed by the images and containers that are made of it, a blob by layers and images. Rows go first, files
after; files without a row (of a process that was killed) are garbage, too.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from sqlite3 import Row
from typing import Any

from nbhull.runtime.composition import OF_VOLUME
from nbhull.runtime.errors import Conflict, InvalidInput
from nbhull.runtime.images import leftovers
from nbhull.runtime.images.catalog import BASE, Catalog
from nbhull.runtime.images.reference import local_name
from nbhull.runtime.store import IMAGES

YOUNG = 3600.0
"""seconds for which what no row names is left alone: a process may be about to write the row"""


@dataclass(frozen=True)
class Share:
    """What one kind of thing takes up."""

    kind: str
    count: int
    active: int
    """those in use"""
    size: int
    """bytes on disk, what is shared counted once"""
    reclaimable: int
    """bytes that `prune --all` frees"""


def remove(catalog: Catalog, ref: str, *, force: bool = False) -> list[str]:
    """Take a name from an image, and delete the image with its last name. What was done, in words.

    Raises NotFound; Conflict where containers or other images need it, or, without `force`, where it has several
    names and is given by its id."""
    row = catalog.find(ref)
    names = catalog.tags(row["id"])
    by_name = next((name for name in (local_or_none(ref), ref) if name in names), None)
    if by_name is not None and len(names) > 1:
        catalog.store.query("delete from tags where name = ?", by_name)
        return [f"untagged {by_name}"]
    if by_name is None and len(names) > 1 and not force:
        raise Conflict(
            f"the image has {len(names)} names: {', '.join(names)}", f"remove them one by one, or: nbhull rmi -f {ref}"
        )
    users = users_of(catalog, row)
    if users:
        raise Conflict(f"the image {by_name or ref} is in use by {', '.join(users[:5])}", "remove what uses it first")
    forget(catalog, row["id"])
    with alone(catalog) as can:
        if can:
            collect(catalog)
    return [*(f"untagged {name}" for name in names), f"deleted {row['id']}"]


def local_or_none(ref: str) -> str | None:
    """The form in which a name is kept; None for an id or a digest."""
    try:
        return local_name(ref)
    except InvalidInput:
        return None


def users_of(catalog: Catalog, row: Row) -> list[str]:
    """The containers that are made of an image, by their names, and the images made of containers of it."""
    layers = set(catalog.store.image_layers(row))
    containers = [
        f"container {container['name']}"
        for container in catalog.store.query("select name, image, snapshot, record from containers")
        if container["snapshot"] == row["id"]
        or (layers and layers <= set(catalog.store.container_layers(container)))
    ]
    return containers


def forget(catalog: Catalog, identity: str) -> None:
    """Delete an image's rows; a volume that stood on it stands on the one above."""
    with catalog.store.transaction():
        catalog.store.query(
            "update volumes set snapshot = (select parent from images where id = ?) where snapshot = ?",
            identity,
            identity,
        )
        for statement in (
            "delete from tags where image = ?",
            "delete from digests where image = ?",
            "delete from images where id = ?",
        ):
            catalog.store.query(statement, identity)


@contextmanager
def alone(catalog: Catalog) -> Iterator[bool]:
    """Whether nobody else makes images, for as long as the block runs."""
    with open(catalog.store.path("images.lock"), "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def needed(catalog: Catalog, *, cache: bool = True) -> tuple[set[str], set[str]]:
    """The ids of layers, and the digests of blobs, that something needs; `cache`: what builds remember, too."""
    store = catalog.store
    layers: set[str] = {row["layer"] for row in store.query("select layer from steps")} if cache else set()
    blobs: set[str] = set()
    layers |= store.needed_layers()
    for row in store.query("select config, manifest from images"):
        blobs.update(digest for digest in (row["config"], row["manifest"]) if digest)
        if row["manifest"] and catalog.blobs.has(row["manifest"]):
            document = json.loads(catalog.blobs.read(row["manifest"]))
            blobs.update(layer["digest"] for layer in document.get("layers", []))
    for row in store.query("select record from containers union all select record from images"):
        record = json.loads(row["record"])
        if "source" in record:
            blobs.add(record["source"])
    for row in store.query("select id, blob from layers where blob is not null"):
        if row["id"] in layers:
            blobs.add(row["blob"])
    return layers, blobs


def collect(catalog: Catalog, *, cache: bool = True) -> int:
    """Delete layers, blobs and folders that nothing needs, without `cache` what builds remember, too; the bytes that
    this frees. Only while `alone`."""
    store = catalog.store
    if not cache:
        store.query("delete from steps")
    layers, blobs = needed(catalog, cache=cache)
    unneeded = [row["id"] for row in store.query("select id from layers") if row["id"] not in layers]
    with store.transaction():
        for identity in unneeded:
            store.query("delete from layers where id = ?", identity)
    dropped = {f"layers/{identity}" for identity in unneeded}
    known = {f"containers/{row['id']}" for row in store.query("select id from containers")}
    known |= {f"layers/{identity}" for identity in layers}
    known |= {f"volumes/{row['id']}" for row in store.query("select id from volumes")}
    there = [f"{kind}/{name}" for kind in ("layers", "containers", "volumes") for name in os.listdir(store.path(kind))]
    garbage = [path for path in there if path not in known and (path in dropped or is_old(store.path(path)))]
    freed = 0
    if garbage:
        freed += int(catalog.workshop.ask("measure", paths=garbage)["size"])
        for path in garbage:
            catalog.workshop.ask("delete", path=path)
    kept = {digest.removeprefix("sha256:") for digest in blobs}
    for name in os.listdir(catalog.blobs.folder):
        path = f"{catalog.blobs.folder}/{name}"
        if name not in kept and (not name.endswith(".part") or is_old(path)):
            try:
                freed += os.lstat(path).st_blocks * 512
                os.unlink(path)
            except FileNotFoundError:
                pass  # a download that ended this moment
    return freed


def is_old(path: str) -> bool:
    """Whether what no row names has been so for longer than anything takes to get its row."""
    try:
        return time.time() - os.lstat(path).st_mtime > YOUNG
    except FileNotFoundError:
        return False


def prune(catalog: Catalog, *, everything: bool = False, keep: int | None = None) -> tuple[list[str], int]:
    """Delete images without a name (with `everything`: all that no container uses, and what builds remember), all
    garbage, and what builds have left and not used for long (`keep`: so that at most that many bytes are left of it):
    the images' ids, and the bytes that this frees. Raises Conflict while images are being made."""
    with alone(catalog) as can:
        if not can:
            raise Conflict("an image is being pulled, loaded or built", "try again when that has ended")
        gone = []
        for row in catalog.store.query(f"{IMAGES} from images order by created"):
            unnamed = row["base"] == BASE and not row["name"]
            if row["base"] == OF_VOLUME:
                continue  # data, which nobody has asked to lose
            if (unnamed or (everything and not row["pinned"])) and not users_of(catalog, row):
                forget(catalog, row["id"])
                gone.append(row["id"])
        freed = leftovers.prune(catalog.workshop, catalog.store, everything=everything, keep=keep)
        return gone, freed + collect(catalog, cache=not everything)


def usage(catalog: Catalog) -> list[Share]:
    """What images, containers, volumes and kept blobs take up on disk."""
    store = catalog.store
    images = store.query(f"{IMAGES} from images")
    containers = store.query("select id, launcher, record from containers")
    used = {layer for row in containers for layer in store.container_layers(row)}
    layers = store.needed_layers()
    there = [f"layers/{name}" for name in sorted(layers) if os.path.isdir(store.path("layers", name))]
    idle = [path for path in there if path.removeprefix("layers/") not in used]
    _, blobs = needed(catalog)
    sizes = {
        name: os.lstat(f"{catalog.blobs.folder}/{name}").st_blocks * 512 for name in os.listdir(catalog.blobs.folder)
    }
    kept = {digest.removeprefix("sha256:") for digest in blobs}
    folders = [f"containers/{row['id']}" for row in containers]
    volumes = [row["id"] for row in store.query("select id from volumes")]
    held = {identity for row in containers for identity in json.loads(row["record"]).get("volumes", {}).values()}

    def measure(paths: list[str]) -> int:
        return int(catalog.workshop.ask("measure", paths=paths)["size"]) if paths else 0

    remembered = {row["layer"] for row in store.query("select layer from steps")} - layers - {""}
    cached = [f"layers/{name}" for name in sorted(remembered) if os.path.isdir(store.path("layers", name))]
    active = sum(bool(users_of(catalog, row)) for row in images)
    from nbhull.runtime.running import holds

    return [
        Share("images", len(images), active, measure(there), measure(idle)),
        Share(
            "containers",
            len(containers),
            sum(holds(row["launcher"], row["id"]) for row in containers),
            measure(folders),
            0,
        ),
        Share("volumes", len(volumes), len(held), measure([f"volumes/{identity}" for identity in volumes]), 0),
        Share("build cache", len(cached), 0, size := measure(cached), size),
        *(shares_of_builds(catalog)),
        Share("blobs", len(sizes), len(kept), sum(sizes.values()), sum(s for n, s in sizes.items() if n not in kept)),
    ]


def shares_of_builds(catalog: Catalog) -> list[Share]:
    """What builds have left on disk for the next ones."""
    found = list(leftovers.leftovers(catalog.store))
    shares = []
    for name, kind in (
        ("cache mounts", leftovers.CACHES),
        ("downloads", leftovers.DOWNLOADS),
        ("contexts", leftovers.CONTEXTS),
    ):
        of_kind = [one for one in found if one.kind == kind]
        size = leftovers.size_of(catalog.workshop, catalog.store, of_kind)
        shares.append(Share(name, len(of_kind), 0, size, size))
    return shares


def inspect(catalog: Catalog, ref: str) -> dict[str, Any]:
    """All that is known of an image, in the words of `docker image inspect`."""
    row = catalog.find(ref)
    record = json.loads(row["record"])
    layers = list(reversed(catalog.store.image_layers(row)))
    facts: dict[str, Any] = {
        "Id": row["config"] if row["config"] == f"sha256:{row['id']}" else row["id"],
        "RepoTags": catalog.tags(row["id"]),
        "RepoDigests": catalog.digests(row["id"]),
        "Parent": row["parent"] or "",
        "Base": row["base"],
        "Size": sum(max(0, catalog.layers.get(layer).size) for layer in layers),
        "Layers": layers,
    }
    if row["base"] != BASE:
        return {**facts, "Environment": record.get("environment")}
    document = catalog.config(row).document
    return {
        **facts,
        "Created": document.get("created", ""),
        "Author": document.get("author", ""),
        "Architecture": document.get("architecture", ""),
        "Os": document.get("os", ""),
        "Config": document.get("config") or {},
        "RootFS": document.get("rootfs"),
        "Manifest": row["manifest"] or "",
    }


def history(catalog: Catalog, ref: str) -> list[dict[str, Any]]:
    """How an image came to be, the newest step first: `created`, `created_by`, `comment`, `size` in bytes."""
    row = catalog.find(ref)
    layers = [catalog.layers.get(layer) for layer in reversed(catalog.store.image_layers(row))]
    steps: list[dict[str, Any]] = []
    recorded = [] if row["base"] != BASE else catalog.config(row).document.get("history") or []
    left = list(layers)
    for step in recorded:
        layer = left.pop(0) if not step.get("empty_layer") and left else None
        steps.append({key: str(step.get(key, "")) for key in ("created", "created_by", "comment")})
        steps[-1]["size"] = max(0, layer.size) if layer else 0
    steps += [{"created": "", "created_by": "", "comment": layer.id[:12], "size": max(0, layer.size)} for layer in left]
    return list(reversed(steps))
