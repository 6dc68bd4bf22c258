"""Steps that go from one store to another: the cache of a build as an image, in a registry or a folder.

Such an image has the layers that steps made, in no order that means anything, and a label that tells which step made
which. An image that was built with `--cache-to inline` carries the label for its own steps. What steps depend on is
then told by the digests of the base's layers, where a build that stays at home goes by their ids and computes none.
"""

from __future__ import annotations

import json
import os

from nbhull.runtime.builder.cache import EMPTY, Cache, Done
from nbhull.runtime.errors import HullError, InvalidInput
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.builder.progress import Progress
    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import Image

LABEL = "nbhull.build.cache"
VERSION = 1
LARGEST = 4 << 20
"""characters of the label"""


class Place(Record):
    """Where a cache is."""

    kind: str
    """`registry`, `local` or `inline`"""
    at: str = ""
    """name in a registry, or folder"""


def parse_place(text: str) -> Place:
    """`REF`, `./DIR`, `inline`, or as docker buildx writes it: `type=registry,ref=REF`, `type=local,src=DIR` (or dest).
    Raises InvalidInput."""
    wrong = InvalidInput(f"{text!r} is no place for a cache", "a registry's REF, ./DIR, or inline")
    if "=" not in text:
        if text == "inline":
            return Place("inline")
        if text.startswith(("/", "./", "../")) or text in (".", ".."):
            return Place("local", text)
        from nbhull.runtime.registry.transfer import parse_remote

        parse_remote(text)
        return Place("registry", text)
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    kind = fields.pop("type", "registry")
    fields.pop("mode", None)  # all steps go, always
    names = {"registry": ("ref",), "local": ("src", "dest"), "inline": ()}.get(kind)
    if names is None or not set(fields) <= set(names) or (names and len(fields) != 1):
        raise wrong
    at = next(iter(fields.values()), "")
    if names and not at:
        raise wrong
    return Place(kind, at)


def parse_source(text: str) -> Place:
    """The same of what steps are taken from."""
    place = parse_place(text)
    if place.kind == "inline":
        raise InvalidInput("--cache-from inline names no image", "give the image's name in its registry")
    return place


def fetch(engine: Engine, sources: tuple[Place, ...], progress: Progress) -> None:
    """Have the steps of caches in the store, as if they had been done here. A cache that is not to be had is told, and
    no error: without it the same is built."""
    for source in sources:
        step = progress.step("cache", f"import {source.at}")
        try:
            found = images_of(engine, source)
            count = sum(adopt(engine, image) for image in found)
        except HullError as error:
            step.output(f"not used: {error}\n")
            step.end("not used")
        else:
            step.end(f"{count} steps")


def images_of(engine: Engine, source: Place) -> list[Image]:
    """The images that a cache is."""
    if source.kind == "registry":
        return [engine.pull(source.at)]
    from nbhull.runtime.images import archives

    return archives.load(engine.catalog, source.at)


def adopt(engine: Engine, image: Image) -> int:
    """Remember the steps that an image tells of; how many. Raises InvalidInput for a label that makes no sense."""
    row = engine.catalog.find(image.id)
    text = (engine.catalog.config(row).document.get("config") or {}).get("Labels", {}).get(LABEL)
    if text is None:
        raise InvalidInput(f"{image.name or image.id} has no steps of a build in it", "build it with --cache-to")
    layers = list(reversed(engine.store.image_layers(row)))
    cache = Cache(engine.store)
    told = parse_label(text, len(layers))
    for key, number, created in told:
        if cache.find(key) is None:
            cache.add(key, EMPTY if number < 0 else layers[number], created)
    return len(told)


def parse_label(text: str, count: int) -> list[tuple[str, int, float]]:
    """The steps in a label: key, number of the layer (-1: none), time in seconds; `count`: of the image's layers.
    Raises InvalidInput."""
    wrong = InvalidInput("the cache's label is none of nbhull's", "build the cache anew")
    if len(text) > LARGEST:
        raise wrong
    try:
        data = json.loads(text)
        steps = [(str(key), int(number), float(created)) for key, (number, created) in data["steps"].items()]
        right = data["version"] == VERSION and all(
            len(key) == 64 and set(key) <= set("0123456789abcdef") and -1 <= number < count and 0 <= created < 1 << 40
            for key, number, created in steps
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise wrong from None
    if not right:
        raise wrong
    return steps


def label(steps: dict[str, Done], layers: list[str]) -> str:
    """The label of an image of `layers` (the lowest first) with those of `steps` whose layers are among them."""
    numbers = {EMPTY: -1, **{layer: number for number, layer in enumerate(layers)}}
    told = {key: [numbers[done.layer], done.created] for key, done in sorted(steps.items()) if done.layer in numbers}
    return json.dumps({"version": VERSION, "steps": told}, separators=(",", ":"))


def publish(engine: Engine, target: Place, steps: dict[str, Done], platform: tuple[str, str, str]) -> None:
    """Write a cache of steps to a registry or a folder. Raises what pushing and saving raise."""
    from nbhull.runtime.images import archives, upkeep

    layers = list(dict.fromkeys(done.layer for _, done in sorted(steps.items()) if done.layer))
    document: dict[str, Any] = {
        "architecture": platform[1],
        "os": platform[0],
        "config": {"Labels": {LABEL: label(steps, layers)}},
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [{"created_by": "nbhull build: cache"} for _ in layers],
    }
    with engine.catalog.making():
        image = engine.catalog.register(document, layers)
        try:
            if target.kind == "registry":
                engine.push(image.id, target.at)
            else:
                archives.save(engine.catalog, [image.id], os.path.abspath(target.at), "oci-dir")
        finally:
            if not engine.catalog.tags(image.id):
                upkeep.forget(engine.catalog, image.id)
