"""What a kernel's container may ask about its own volumes, through its control socket."""

from __future__ import annotations

from typing import Any

from nbhull.kernel import panel
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Denied, InvalidInput, NotFound
from nbhull.runtime.model import Container
from nbhull.runtime.verbs.results import Names, Result


def asked(params: dict[str, Any], container: Container, *, to_write: bool = False) -> str | None:
    """The volume that a request is about, if any: one that the container has. Raises NotFound, Denied, InvalidInput."""
    name = params.get("volume")
    if name is None:
        return None
    if not isinstance(name, str):
        raise InvalidInput("volume is no name", "write it like --volume results")
    for mount in container.spec.mounts:
        if mount.is_volume and mount.source == name:
            if to_write and mount.read_only:
                raise Denied(f"this container may only read the volume {name!r}", "say it in a terminal of the machine")
            return name
    raise NotFound(f"this container has no volume {name[:80]!r}", "see: %container info")


def snapshot(engine: Engine, volume: str, name: str | None, params: dict[str, Any]) -> Result:
    """Keep what is in a volume."""
    note, pinned = panel.remarks_in(params)
    return Names([engine.volumes.snapshot(volume, name, note=note or "", pinned=pinned or False).name])


def reset(engine: Engine, volume: str, name: str | None) -> Result:
    """Put a volume back on one of its own snapshots."""
    if name is not None and name not in own_names(engine, volume):
        raise NotFound(
            f"there is no snapshot {name[:80]!r} of the volume {volume}", f"see: %container snapshots --volume {volume}"
        )
    engine.volumes.reset(volume, name)
    return Names([volume])


def undo(engine: Engine, volume: str) -> Result:
    """Take a volume's last reset back."""
    engine.volumes.undo(volume)
    return Names([volume])


def own_names(engine: Engine, volume: str) -> set[str]:
    """What the snapshots of a volume are called."""
    return {key for node in engine.volumes.snapshots(volume) for key in (node.image.id, node.image.name)}


def comparable(engine: Engine, container: Container) -> set[str]:
    """What of its volumes a container may compare."""
    names = {mount.source for mount in container.spec.mounts if mount.is_volume}
    return names.union(*(own_names(engine, name) for name in names))
