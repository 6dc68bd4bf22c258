"""`%container replay`: the cells of a running kernel, run again beside it."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from nbhull.kernel.contained import ContainedKernel
from nbhull.kernel.names import RECORD_FILE
from nbhull.kernel.replay.cells import cells_since
from nbhull.kernel.replay.report import Report, replay
from nbhull.runtime.errors import Conflict, InvalidInput, NotFound

CELL_TIMEOUT = 600.0
"""seconds for one cell"""
LARGEST_RECORD = 256 << 20
"""bytes"""


def replay_live(kernel: ContainedKernel, snapshot: str | None) -> Report:
    """Run what a kernel has run since a snapshot (None: the one it stands on, else its image) again, in a fresh
    container from it. Raises HullError."""
    container = kernel.container
    if container is None:
        raise Conflict("the kernel is being stopped", "start it again")
    images = {image.id: image.name for image in kernel.engine.images()}
    if snapshot is None:
        current = kernel.engine.container(container.id).snapshot
        snapshot = images.get(current or "", "")
    cells, before = cells_since(read_record(f"{container.socket_folder}/{RECORD_FILE}"), snapshot)
    if not cells:
        raise NotFound(f"no cell has run since {snapshot or container.image}", "run some, or name an earlier snapshot")
    config = replace(kernel.config, image=snapshot or kernel.config.image)
    items = replay(
        kernel.engine, config, kernel.folder.path, cells, timeout=CELL_TIMEOUT, log=kernel.log, live=container.id
    )
    notices = []
    if before:
        notices.append(f"{before} cells ran in this kernel before that: a fresh one is without their variables")
    return Report(items, notices)


def read_record(path: str) -> bytes:
    """What the kernel has written down. It lies where the container writes, so it may be anything by now."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidInput("the record of the kernel's cells is no file", "restart the kernel")
            record = file.read(LARGEST_RECORD + 1)
    except OSError as error:
        raise NotFound(
            f"there is no record of the kernel's cells: {error.strerror}", "only Python kernels of nbhull's keep one"
        ) from error
    if len(record) > LARGEST_RECORD:
        raise InvalidInput("the record of the kernel's cells is too large", "restart the kernel in a new container")
    return record
