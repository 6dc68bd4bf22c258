"""Snapshots as the tree that they are: each below the one that its container stood on."""

from __future__ import annotations

from nbhull.runtime.model import HOST_IMAGE, Image
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from nbhull.runtime.model import Container
    from nbhull.runtime.volumes import Volume


class Node(Record):
    """An image with its place in the tree."""

    image: Image
    line: str
    """what is drawn before its name"""
    containers: tuple[str, ...]
    """names of the containers that stand on it"""


def draw(
    images: Iterable[Image], containers: Iterable[Container | Volume], only: Container | None = None
) -> list[Node]:
    """The nodes from the top, children in the order of time. `containers`, or volumes, stand on them. `only`: just the
    tree that this container stands in."""
    known = {image.id: image for image in images}
    standing: dict[str, list[str]] = {}
    for container in containers:
        standing.setdefault(container.snapshot or HOST_IMAGE, []).append(container.name)
    children: dict[str | None, list[Image]] = {}
    for image in sorted(known.values(), key=lambda image: image.created):
        children.setdefault(parent_of(image, known), []).append(image)
    roots = children.get(None, [])
    if only is not None:
        place: str | None = only.snapshot or HOST_IMAGE
        while place is not None and (above := parent_of(known[place], known)) is not None:
            place = above
        roots = [image for image in roots if image.id == place]
    found: list[Node] = []
    pending = [(image, "", "") for image in reversed(roots)]
    while pending:
        image, line, below = pending.pop()
        found.append(Node(image, line, tuple(standing.get(image.id, ()))))
        inner = children.get(image.id, [])
        for child in reversed(inner):
            is_last = child is inner[-1]
            pending.append((child, below + ("└ " if is_last else "├ "), below + ("  " if is_last else "│ ")))
    return found


def parent_of(image: Image, known: dict[str, Image]) -> str | None:
    """The id of what it hangs below; None at the top."""
    if image.id == HOST_IMAGE or (image.base == "oci" and image.parent is None):
        return None
    return image.parent if image.parent in known else HOST_IMAGE if image.base == "host" else None
