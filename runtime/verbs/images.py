"""The verbs of images and snapshots."""

from __future__ import annotations

from time import time

from nbhull.runtime.composition import OF_VOLUME
from nbhull.runtime.errors import HullError, NotFound
from nbhull.runtime.verbs.results import (
    Document,
    Names,
    Result,
    Table,
    container_data,
    human_size,
    image_table,
    short_id,
    snapshot_taken,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.engine import Engine


def images(engine: Engine, values: dict[str, Any]) -> Result:
    """`images`: images and snapshots; those that nobody asked for only if wanted."""
    found = [i for i in engine.images() if (values.get("all") or not i.auto) and i.base != OF_VOLUME]
    if values.get("quiet"):
        return Names(list(dict.fromkeys(image.id for image in found)))
    return image_table(found, time())


def snapshot(engine: Engine, values: dict[str, Any]) -> Result:
    """`snapshot`: gives back what names the new image: its name, else its id."""
    remarks: dict[str, Any] = {"note": values.get("note") or "", "pinned": bool(values.get("pin"))}
    if values["volume"]:
        return snapshot_taken(engine.volumes.snapshot(values["container"], values["name"], **remarks))
    return snapshot_taken(
        engine.snapshot(values["container"], values["name"], **remarks, volumes=values["volumes"])
    )


def reset(engine: Engine, values: dict[str, Any]) -> Result:
    """`reset`: gives back the container's name."""
    if values["volume"]:
        return Names([engine.volumes.reset(values["container"], values["name"]).name])
    container = engine.reset(values["container"], values["name"], volumes=values["volumes"])
    return Names([container.name or short_id(container.id)])


def tag(engine: Engine, values: dict[str, Any]) -> Result:
    """`tag`: gives back the new name."""
    engine.catalog.tag(values["image"], values["name"])
    return Names([values["name"]])


def remove(engine: Engine, values: dict[str, Any]) -> Result:
    """`rmi`: gives back what was untagged and deleted; one that fails does not keep the others from being done."""
    from nbhull.runtime.images import upkeep

    done: list[str] = []
    failures: list[HullError] = []
    for ref in values["image"]:
        try:
            done += upkeep.remove(engine.catalog, ref, force=values["force"])
        except HullError as error:
            failures.append(error)
    return Names(done, failures)


def inspect(engine: Engine, values: dict[str, Any]) -> Result:
    """`inspect`: images, and containers where there is no image of that name."""
    from nbhull.runtime.images import upkeep

    found = []
    for ref in values["name"]:
        try:
            found.append(upkeep.inspect(engine.catalog, ref))
        except NotFound:
            try:
                container = engine.container(ref)
            except NotFound:
                raise NotFound(
                    f"there is no image or container {ref!r}", "`nbhull images` and `nbhull ps -a` list them"
                ) from None
            found.append(container_data(container) | {"environment": dict(container.spec.env)})
    return Document(found)


def history(engine: Engine, values: dict[str, Any]) -> Result:
    """`history`: the newest step first."""
    from nbhull.runtime.images import upkeep

    steps = upkeep.history(engine.catalog, values["image"])
    rows = [
        (step["created"] or "-", " ".join(step["created_by"].split())[:80] or step["comment"], human_size(step["size"]))
        for step in steps
    ]
    return Table(("created", "created by", "size"), rows, steps)


def usage(engine: Engine, values: dict[str, Any]) -> Result:
    """`df`: a line for each kind of thing."""
    from nbhull.runtime.images import upkeep

    shares = upkeep.usage(engine.catalog)
    rows = [(s.kind, str(s.count), str(s.active), human_size(s.size), human_size(s.reclaimable)) for s in shares]
    items = [
        {"kind": s.kind, "count": s.count, "active": s.active, "size": s.size, "reclaimable": s.reclaimable}
        for s in shares
    ]
    return Table(("kind", "count", "active", "size", "reclaimable"), rows, items)


def prune(engine: Engine, values: dict[str, Any]) -> Result:
    """`prune`: gives back the ids of what went."""
    from nbhull.runtime.images import upkeep
    from nbhull.runtime.verbs.progress import working

    with working(engine, "prune", "the store"):
        gone, freed = upkeep.prune(engine.catalog, everything=values["all"], keep=values["keep"])
    return Names([f"deleted {identity}" for identity in gone], notices=[f"{human_size(freed)} freed"])


def pin(engine: Engine, values: dict[str, Any]) -> Result:
    """`pin`: gives back what was written."""
    from nbhull.runtime.images import exchange

    return Names([exchange.pin(engine, values["notebook"])])


def use(engine: Engine, values: dict[str, Any]) -> Result:
    """`use`: gives back what was written; says if the image is not here yet."""
    from nbhull.runtime.images import exchange

    image = exchange.use(engine, values["image"], values["notebook"])
    missing = not any(values["image"] in (one.name, one.id) for one in engine.images())
    return Names([image], notices=[f"{image} is not here yet; the notebook's kernel will pull it"] if missing else [])
