"""The verbs of images and snapshots."""

from __future__ import annotations

from time import time

from nbhull.runtime.verbs.results import Names, Result, image_table, short_id, snapshot_taken

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.engine import Engine


def images(engine: Engine, values: dict[str, Any]) -> Result:
    """`images`: images and snapshots; those that nobody asked for only if wanted."""
    found = [image for image in engine.images() if values.get("all") or not image.auto]
    if values.get("quiet"):
        return Names([image.id for image in found])
    return image_table(found, time())


def snapshot(engine: Engine, values: dict[str, Any]) -> Result:
    """`snapshot`: gives back what names the new image: its name, else its id."""
    return snapshot_taken(engine.snapshot(values["container"], values["name"]))


def reset(engine: Engine, values: dict[str, Any]) -> Result:
    """`reset`: gives back the container's name."""
    container = engine.reset(values["container"], values["name"])
    return Names([container.name or short_id(container.id)])
