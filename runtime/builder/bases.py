"""What FROM and --from name besides stages: images of the store, of a registry, archives and folders."""

from __future__ import annotations

import json
import os

from nbhull.runtime import policy
from nbhull.runtime.builder.cache import key_of
from nbhull.runtime.builder.state import State
from nbhull.runtime.errors import Denied, InvalidInput, NotFound
from nbhull.runtime.rows import image_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sqlite3 import Row
    from typing import Any

    from nbhull.runtime.builder.build import Build, Options
    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import Image

SCRATCH = "scratch"
"""in the place of an image: nothing at all"""
TRANSPORTS = ("oci-archive", "docker-archive", "oci", "dir")
"""prefixes before a path, as skopeo writes them"""


def check(engine: Engine, name: str, options: Options) -> None:
    """Raise Denied for an image, or a file in the place of one, that may not be built on or copied from."""
    if path_of(name) and options.bounds is not None:
        raise Denied(f"{name!r} would be a file of this machine, and not of the context", "name an image")
    rules = policy.load()
    if rules is not None:
        rules.check_image(name, [name] if path_of(name) or name == SCRATCH else policy.origins(engine.store, name))


def find(engine: Engine, name: str, options: Options) -> State | None:
    """The state that an image of the store is; None where it has to be got first. Raises InvalidInput."""
    if name == "host":
        raise InvalidInput(
            "the image 'host' is this machine's own system and cannot be built on",
            "start from an image: nbhull bootstrap debian:bookworm",
        )
    if path_of(name) or options.pull:
        return None
    try:
        row = engine.store.find("images", name, "image")
    except NotFound:
        return None
    return state_of(engine, row, options)


def state_of(engine: Engine, row: Row, options: Options) -> State:
    """The state that an image is, by its row."""
    document = document_of(engine, row)
    layers = engine.store.image_layers(row)
    if options.travels:
        _, _, complete = engine.catalog.completed(row)
        key = key_of("base", [str(layer.diff_id) for layer in complete])
    else:
        key = key_of("base", layers)  # whose ids stay, where digests may come later
    return State(
        document.get("config") or {}, layers, key, document.get("history") or [], str(document.get("author") or "")
    )


def document_of(engine: Engine, row: Row) -> dict[str, Any]:
    """An image's configuration, which was checked when the image came into the store: an unchanged build has no time
    for that. Raises InvalidInput for one that cannot be built on."""
    if row["config"]:
        with open(engine.store.path("blobs", *row["config"].split(":")), "rb") as file:
            document: dict[str, Any] = json.load(file)
            return document
    record = json.loads(row["record"])
    if "document" not in record:
        raise InvalidInput(
            f"the image {row['name'] or row['id']!r} stands on this machine's own system and cannot be built on",
            "start from an image: nbhull bootstrap debian:bookworm",
        )
    document = record["document"]
    return document


def path_of(name: str) -> str:
    """The path of an archive or a folder that stands in the place of an image's name; empty for a name."""
    transport, colon, rest = name.partition(":")
    if colon and transport in TRANSPORTS:
        return os.path.abspath(rest)
    return os.path.abspath(name) if name.startswith(("/", "./", "../")) or name == "." else ""


def get(build: Build, name: str) -> State:
    """Get what FROM names from a registry, an archive or a folder. Raises NotFound, InvalidInput."""
    engine = build.engine
    path = path_of(name)
    if path:
        if not os.path.exists(path):
            raise NotFound(f"there is no archive or folder {path!r} to build on", "correct FROM")
        return build.materials.from_path(path)
    image = build.materials.pull(name, build.progress)
    return state_of(engine, engine.store.find("images", image, "image"), build.options)


def retag(engine: Engine, identity: str, names: tuple[str, ...]) -> Image:
    """An image that was built before, with the names that it is to have now."""
    has = {row["name"] for row in engine.store.query("select name from tags where image = ?", identity)}
    for name in names:
        if name not in has and f"{name}:latest" not in has:
            engine.catalog.tag(identity, name)
    return image_of(engine.store.find("images", identity, "image"))
