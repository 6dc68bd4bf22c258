"""The writable file systems of a container, as the holder knows them."""

from __future__ import annotations

import os


class Part:
    """A writable file system of the container."""

    def __init__(self, key: str, at: str, mount: int, upper: int) -> None:
        """`at`: where it is mounted; `mount`: descriptor of it; `upper`: descriptor of its upper folder."""
        self.key = key
        self.at = at
        self.mount = mount
        self.upper = upper
        self.id = 0
        self.device = (0, 0)
        self.root_inode = 0

    def relative(self, path: str) -> str:
        """A path of the container's that lies in this part, relative to it."""
        return path[len(self.at.rstrip("/")) + 1 :]


def descriptors_of(parts: list[Part]) -> list[int]:
    """Those of a container's parts; its mounts stay where they are mounted when they are closed."""
    return [fd for part in parts for fd in (part.mount, part.upper)]


def close_parts(parts: list[Part]) -> None:
    """Give them up."""
    for fd in descriptors_of(parts):
        os.close(fd)
