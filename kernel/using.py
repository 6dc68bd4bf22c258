"""`%container use`: a notebook goes on in another image, in a new container on the connection that its clients know.

All is got and made ready before anything ends (`prepare`, `check`), so that an image in which no kernel can run leaves
the notebook as it is.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nbhull.kernel.adding import output, with_ipykernel
from nbhull.kernel.command import CommandFinder
from nbhull.kernel.config import KernelConfig, parse_image
from nbhull.kernel.names import PANEL_FILE
from nbhull.kernel.socket_folder import read_plain
from nbhull.kernel.streams import Stream, StreamedProgress
from nbhull.runtime import policy
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.model import Container
from nbhull.runtime.snapshots import taking
from nbhull.runtime.snapshots.keeping import RESET
from nbhull.runtime.verbs.results import Names, Result

if TYPE_CHECKING:
    from nbhull.kernel.contained import ContainedKernel

VERSION = "import sys; print(sys.version_info >= (3, 11))"
LARGEST = 1 << 20
"""bytes of a file that goes along"""


def prepare(kernel: ContainedKernel, params: Mapping[str, Any], stream: Stream) -> Result:
    """Get an image, add ipykernel where it lacks it, and see whether a kernel can run in it. Raises HullError, and
    AskerGone."""
    ref = parse_image(params.get("image"))
    engine, progress = kernel.engine, StreamedProgress(stream)
    engine.provide(ref, progress=progress)
    policy.check_image(engine.store, ref)
    with_ipykernel(engine, ref, kernel.config.kernel, progress)
    return Names([ref])


def use(
    kernel: ContainedKernel, params: Mapping[str, Any], pending: Mapping[str, Any] | None, moved: Callable[[], None]
) -> Result:
    """Go on in a new container of an image, with a new kernel; `moved` is called before that begins. Raises HullError:
    then all is as before."""
    move(kernel, parse_image(params.get("image")), pending, moved)
    return Names([kernel.config.image])


def undo(kernel: ContainedKernel, pending: Mapping[str, Any] | None, moved: Callable[[], None]) -> bool:
    """Go back to what the last `use` has left; false if there was none, or a reset since."""
    container = kernel.container
    if container is None or kernel.came_from is None:
        return False
    if "undo" in json.loads(kernel.engine.row(container.id)["record"]):
        return False
    move(kernel, kernel.came_from, pending, moved)
    return True


def move(
    kernel: ContainedKernel, ref: str, pending: Mapping[str, Any] | None, moved: Callable[[], None]
) -> None:
    """Put the kernel into a new container of an image."""
    config = replace(kernel.config, image=ref)
    container, notices = kernel.make_container(config, f"{kernel.name}-{secrets.token_hex(2)}")
    try:
        check(kernel, config, container)
        before, name = keep(kernel, ref)
        message = told(ref, name, notices)
        panel = take_along(kernel.running().socket_folder)
        kernel.take_place(config, container, pending and {**pending, "message": message}, moved, panel)
    except BaseException:
        if kernel.container is None or kernel.container.id != container.id:
            kernel.engine.remove(container.id, force=True)
        raise
    kernel.came_from = before


def keep(kernel: ContainedKernel, ref: str) -> tuple[str, str]:
    """A snapshot of what the kernel is about to leave for `ref`: its id and name."""
    engine, note = kernel.engine, f"before use {ref}"
    image, *_ = taking.take(
        engine, kernel.running().id, None, note=note, auto=RESET, asleep=kernel.checkpoints.pids()
    )
    return image, str(engine.store.find_image(image)["name"])


def check(kernel: ContainedKernel, config: KernelConfig, container: Container) -> None:
    """Raise NotFound or InvalidInput for a container in which no kernel can run that knows its way back."""
    finder = CommandFinder(kernel.engine, container.id, config.image, config.prefix)
    command = finder.find(config.kernel)
    if not command.is_ipykernel or output(kernel.engine, container.id, (command.argv[0], "-c", VERSION)) != "True":
        raise InvalidInput(
            f"the kernel of the image {config.image!r} is no IPython of Python 3.11 or later, and would not know "
            "%container",
            "choose the image in the notebook's metadata, and open the notebook again",
        )


def told(ref: str, before: str, notices: tuple[str, ...]) -> str:
    """What the notebook's reader is told."""
    lines = [f"this notebook runs in {ref} now, in a new kernel; %container undo goes back to {before}", *notices]
    setting = json.dumps({"container": {"image": ref}})[1:-1]
    lines.append(f"it does until the kernel is shut down; for good, write {setting} into the notebook's metadata")
    return "\n".join(lines)


def take_along(folder: str) -> bytes:
    """What the page knows of the panel, for the next kernel; the container may have put anything there."""
    return read_plain(f"{folder}/{PANEL_FILE}", LARGEST)
