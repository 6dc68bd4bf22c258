"""A snapshot saved as an archive into the notebook's folder, as a kernel asks for it.

The folder is the container's to write in, so what lies there is hostile: the file is made anew, and no link followed.
"""

from __future__ import annotations

import os
import re

from nbhull.kernel.contained import ContainedKernel
from nbhull.runtime.errors import Conflict, HostUnable, InvalidInput, NotFound
from nbhull.runtime.images import archives
from nbhull.runtime.model import Image

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


def save(kernel: ContainedKernel, image: Image, name: str) -> int:
    """Write an image to the new file `name` in the notebook's folder; how many bytes it has.

    Raises InvalidInput, NotFound where the folder was not handed in, Conflict for a file that is there already and for
    images that stand on this machine's own system, HostUnable; then no file is left."""
    if not FILE_NAME.fullmatch(name):
        raise InvalidInput(f"{name[:80]!r} is no name for a file", "letters, digits, _ . - as in backup.tar")
    ref = image.name or image.id
    if kernel.folder.mount is None:
        raise NotFound("the notebook's folder is not in its container", f"in a terminal: nbhull save {ref}")
    rows = [kernel.engine.catalog.find(image.id)]
    try:
        folder = os.open(kernel.folder.mount.source, os.O_PATH | os.O_DIRECTORY)
        try:
            written = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=folder)
            with os.fdopen(written, "wb") as file:
                try:
                    archives.write_tar(kernel.engine.catalog, rows, [ref], file, "oci-archive")
                    return file.tell()
                except BaseException:
                    os.unlink(name, dir_fd=folder)
                    raise
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise Conflict(f"there is a file {name!r} in the notebook's folder", "choose another name") from error
    except OSError as error:
        raise HostUnable(f"cannot write {name!r}: {error.strerror}", "choose another place") from error
