"""What FROM and --from name besides stages: images of the store, of a registry, archives and folders."""

from __future__ import annotations

import json
import os

from nbhull.runtime.builder.cache import key_of
from nbhull.runtime.builder.state import State
from nbhull.runtime.errors import InvalidInput, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sqlite3 import Row

    from nbhull.runtime.builder.build import Build, Options
    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import Image

TRANSPORTS = ("oci-archive", "docker-archive", "oci", "dir")
"""prefixes before a path, as skopeo writes them"""


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
    return state_of(engine, row)


def state_of(engine: Engine, row: Row) -> State:
    """The state that an image is, by its row."""
    config = engine.catalog.config(row)
    document = config.document
    layers = json.loads(row["layers"])
    key = key_of("base", content_ids(engine, layers))
    return State(
        document.get("config") or {}, layers, key, document.get("history") or [], str(document.get("author") or "")
    )


def content_ids(engine: Engine, layers: list[str]) -> list[str]:
    """What layers are, by the digest of their content where they have one, the newest first."""
    marks = ",".join("?" * len(layers))
    rows = engine.store.query(f"select id, diff_id from layers where id in ({marks})", *layers)
    digests = {row["id"]: row["diff_id"] for row in rows}
    return [digests.get(layer) or layer for layer in layers]


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
    image = build.materials.pull(name)
    return state_of(engine, engine.store.find("images", image, "image"))


def retag(engine: Engine, identity: str, names: tuple[str, ...]) -> Image:
    """An image that was built before, with the names that it is to have now."""

    if names:
        from nbhull.runtime.images.reference import local_name

        for name in map(local_name, names):
            has = engine.store.query("select 1 from tags where name = ? and image = ?", name, identity)
            if not has:
                engine.catalog.tag(identity, name)
    return engine.catalog.get(identity)
