"""Rows of the index as the engine's nouns."""

from __future__ import annotations

from nbhull.runtime.confinement import Confinement
from nbhull.runtime.lean import loads
from nbhull.runtime.model import Container, ContainerSpec, Image, Limits, Mount, Port
from nbhull.runtime.running import holds, socket_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sqlite3 import Row


def image_of(row: Row, road: str = "", reason: str = "") -> Image:
    """An image from its row."""
    return Image(
        id=row["id"],
        name=row["name"],
        parent=row["parent"],
        created=row["created"],
        size=row["size"] if row["size"] >= 0 else None,
        base=row["base"],
        note=row["note"],
        pinned=bool(row["pinned"]),
        auto=row["auto"],
        road=road,
        reason=reason,
    )


def spec_of(row: Row) -> ContainerSpec:
    """A container's spec from its row."""
    fields = loads(row["spec"])
    fields["limits"] = Limits.from_dict(fields["limits"])
    fields["mounts"] = tuple(Mount(**mount) for mount in fields["mounts"])
    fields["publish"] = tuple(Port(**port) for port in fields.get("publish", ()))
    fields["dns"] = tuple(fields.get("dns", ()))
    fields["hosts"] = tuple((name, address) for name, address in fields.get("hosts", ()))
    fields["confinement"] = Confinement.from_dict(fields.get("confinement", {}))
    return ContainerSpec(**fields)


def container_of(row: Row, home: str, notices: tuple[str, ...] = ()) -> Container:
    """A container from its row, with its state as it is now; `home`: the store's folder."""
    running = holds(row["launcher"], row["id"])
    end = None
    if row["launcher"] and not running:
        from nbhull.runtime.ends import read_end

        end = read_end(f"{home}/containers/{row['id']}")
    return Container(
        id=row["id"],
        name=row["name"],
        image=row["image"],
        state="running" if running else "stopped" if row["launcher"] else "created",
        created=row["created"],
        socket_folder=socket_folder(row["launcher"], row["id"]) if running else "",
        spec=spec_of(row),
        snapshot=row["snapshot"],
        end=end,
        notices=notices,
    )
