"""What a notebook's panel draws of its container, and what it may write beside snapshots: the server's side.

A panel asks every few seconds, so one look costs a question to the launcher and three to the index; the tree is sent
only where it has changed. Nothing here tells paths of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

from nbhull.kernel.contained import ContainedKernel
from nbhull.kernel.saving import save
from nbhull.kernel.streams import Stream
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Conflict, Denied, InvalidInput, NotFound
from nbhull.runtime.model import HOST_IMAGE, Container, Image, parse_name
from nbhull.runtime.snapshots import keeping
from nbhull.runtime.snapshots.tree import parent_of
from nbhull.runtime.verbs.results import Fields, Names, Result, short_id

LONGEST_NOTE = 1000
"""characters"""


def methods(kernel: ContainedKernel, own_id: Callable[[], str]) -> dict[str, Callable[[dict[str, Any]], Result]]:
    """What a panel may ask the control socket for. `own_id` gives the id of the container that asks."""

    def panel(params: dict[str, Any]) -> Result:
        known = params.get("known", "")
        return Fields([], look(kernel, own_id(), known if isinstance(known, str) else ""))

    def tag(params: dict[str, Any]) -> Result:
        """Give one of the container's snapshots one more name, which must be free."""
        name = parse_name(params.get("name", ""))
        give_name(kernel.engine, owned(kernel, own_id(), str(params.get("image"))), name)
        return Names([name])

    def annotate(params: dict[str, Any]) -> Result:
        """Write a note on one of the container's snapshots, or pin it."""
        note, pinned = remarks_in(params)
        image = owned(kernel, own_id(), str(params.get("image")))
        keeping.annotate(kernel.engine.store, image.id, note=note, pinned=pinned)
        return Names([image.name])

    return {"panel": panel, "tag": tag, "annotate": annotate}


def long_methods(
    kernel: ContainedKernel, own_id: Callable[[], str]
) -> dict[str, Callable[[dict[str, Any], Stream], dict[str, Any]]]:
    """The same for what takes so long that other questions must not wait for it."""

    def save_image(params: dict[str, Any], stream: Stream) -> dict[str, Any]:
        """Write one of the container's snapshots to an archive in the notebook's folder."""
        image = owned(kernel, own_id(), str(params.get("image")))
        return {"size": save(kernel, image, str(params.get("file")))}

    return {"save": save_image}


def remarks_in(params: dict[str, Any]) -> tuple[str | None, bool | None]:
    """The note that a request gives, and whether to pin, each None if it does not say; raises InvalidInput."""
    note, pinned = params.get("note"), params.get("pin")
    if not isinstance(note, str | None) or len(note or "") > LONGEST_NOTE or not isinstance(pinned, bool | None):
        raise InvalidInput("the note is not a text, or too long", f"write at most {LONGEST_NOTE} characters")
    return note, pinned


def look(kernel: ContainedKernel, identity: str, known: str) -> dict[str, Any]:
    """What a container uses at this moment, as `Usage` counts it, and its tree unless the panel knows it: `known` is
    the `stamp` of the last answer."""
    engine = kernel.engine
    container = engine.container(identity)
    found: dict[str, Any] = {"usage": engine.usage(container.id).to_dict(), "stamp": stamp(kernel)}
    if found["stamp"] != known:
        found |= {"about": about(container), "tree": tree(kernel, container)}
    return found


def stamp(kernel: ContainedKernel) -> str:
    """Changes with all that the tree shows."""
    seen = sha256()
    for statement in (
        "select id, note, pinned, auto, size from images",
        "select name, image from tags",
        "select name, snapshot from containers",
    ):
        for row in kernel.engine.store.query(statement):
            seen.update(repr(tuple(row)).encode())
    seen.update(repr(sorted(kernel.checkpoints.by_image)).encode())
    return seen.hexdigest()[:16]


def about(container: Container) -> dict[str, Any]:
    """Which container it is, and its limits."""
    limits = container.spec.limits
    return {
        "name": container.name,
        "image": container.image,
        "network": container.spec.network or "",
        "memory": limits.memory,
        "cpus": limits.cpus,
        "disk": limits.disk,
    }


def tree(kernel: ContainedKernel, container: Container) -> list[dict[str, Any]]:
    """The snapshots among which it stands, each behind the one that it hangs below."""
    nodes = kernel.engine.snapshots(container.id)
    images = {node.image.id: node.image for node in nodes}
    here = container.snapshot or HOST_IMAGE
    return [
        {
            "id": image.id,
            "name": image.name or short_id(image.id),
            "parent": parent_of(image, images),
            "created": image.created,
            "size": image.size,
            "note": image.note,
            "pinned": image.pinned,
            "auto": image.auto,
            "memory": image.id in kernel.checkpoints.by_image,
            "here": image.id == here,
        }
        for image in images.values()
    ]


def owned(kernel: ContainedKernel, identity: str, ref: str) -> Image:
    """A snapshot that this kernel has taken or whose files it runs on, by name or id; raises NotFound, Denied."""
    nodes = [node.image for node in kernel.engine.snapshots(identity)]
    images = {image.id: image for image in nodes}
    image = images.get(ref) or next((image for image in nodes if image.name == ref), None)
    if image is None or image.id == HOST_IMAGE:
        raise NotFound(f"there is no snapshot {ref[:80]!r} of this container", "see: %container snapshots")
    line, place = set(kernel.taken), kernel.engine.container(identity).snapshot
    while place is not None and place in images:
        line.add(place)
        place = images[place].parent
    if image.id not in line:
        raise Denied(f"the snapshot {ref[:80]!r} is another notebook's", f"in a terminal: nbhull tag {image.name} NAME")
    return image


def give_name(engine: Engine, image: Image, name: str) -> None:
    """Name an image; raises Conflict if something else has that name, which a notebook may not take away."""
    with engine.store.transaction():
        try:
            taken = engine.store.find_image(name)["id"]
        except NotFound:
            taken = image.id
        if taken != image.id or name == HOST_IMAGE:
            raise Conflict(f"the image name {name!r} is in use", "choose another name")
        engine.store.set_tag(name, image.id)
