"""The verbs of named volumes, and what they give back."""

from __future__ import annotations

from time import time

from nbhull.runtime.errors import HullError
from nbhull.runtime.verbs.results import Document, Names, Result, Table, human_age, short_id
from nbhull.runtime.volumes import path_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.volumes import Volume


def create(engine: Engine, values: dict[str, Any]) -> Result:
    """`volume create`: gives back the volume's name."""
    return Names([engine.volumes.create(values["name"]).name])


def list_all(engine: Engine, values: dict[str, Any]) -> Result:
    """`volume ls`: by name."""
    volumes = engine.volumes.all()
    if values["quiet"]:
        return Names([volume.name for volume in volumes])
    now = time()
    rows = [
        (v.name, short_id(v.id), f"{human_age(now - v.created)} ago", ", ".join(v.running), str(len(v.containers)))
        for v in volumes
    ]
    return Table(("volume", "id", "created", "running in", "containers"), rows, [volume_data(v) for v in volumes])


def inspect(engine: Engine, values: dict[str, Any]) -> Result:
    """`volume inspect`: with sizes."""
    found = engine.volumes.measured([engine.volumes.get(ref) for ref in values["volume"]])
    return Document([volume_data(v) | {"size": v.size, "folder": engine.store.path(path_of(v.id))} for v in found])


def remove(engine: Engine, values: dict[str, Any]) -> Result:
    """`volume rm`: one that fails does not keep the others from being done."""
    done: list[str] = []
    failures: list[HullError] = []
    for ref in values["volume"]:
        try:
            engine.volumes.remove(ref)
        except HullError as error:
            failures.append(error)
        else:
            done.append(ref)
    return Names(done, failures)


def prune(engine: Engine, values: dict[str, Any]) -> Result:
    """`volume prune`: the names of those that are gone."""
    return Names(engine.volumes.prune(everything=values["all"]))


def volume_data(volume: Volume) -> dict[str, Any]:
    """A volume as plain data."""
    return {
        "id": volume.id,
        "name": volume.name,
        "created": volume.created,
        "containers": list(volume.containers),
        "running": list(volume.running),
    }
