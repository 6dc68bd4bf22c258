"""Device nodes of the host, as containers get them."""

from __future__ import annotations

import os
import stat

from nbhull.runtime.errors import HostUnable
from nbhull.runtime.linux import mount as linux_mount


def make_device(path: str, access: str) -> int:
    """A detached mount of a new node for the device at `path`, which everybody may open for `access` (`r`, `w`, `rw`).

    It stays the host's root's, whom no container has among its users, so nobody can give themselves more."""
    status = os.stat(path)
    mode = stat.S_IFMT(status.st_mode) | (4 if "r" in access else 0) | (2 if "w" in access else 0)
    folder = linux_mount.make_filesystem("tmpfs", [("mode", "0700"), ("size", "4k")])
    try:
        os.mknod("node", stat.S_IFMT(mode), status.st_rdev, dir_fd=folder)
        os.chmod("node", mode, dir_fd=folder)
        return linux_mount.open_tree("node", at=folder)
    except OSError as error:
        raise HostUnable(
            f"the device {path!r} cannot be handed in: {error.strerror}", "start nbhull with root's ability CAP_MKNOD"
        ) from error
    finally:
        os.close(folder)
