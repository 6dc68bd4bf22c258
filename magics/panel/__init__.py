"""The panel: the container of a notebook's kernel, to look at and to handle.

`%container panel` and `nbhull.panel()` show it. A kernel has one; after a reset the next kernel takes it over under the
same ids (`restore`), so that the one that stands in the page goes on.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from nbhull.kernel.names import CONTROL_VARIABLE, PANEL_FILE, REPLAY
from nbhull.kernel.rpc import ContainerError, own_control
from nbhull.runtime.errors import HullError, NotFound
from nbhull.runtime.verbs.results import Result

if TYPE_CHECKING:
    from nbhull.magics.panel.widget import Panel


def panel() -> Panel | None:
    """The panel of the kernel's container, for the notebook to show. None where cells are run again by a replay.

    Raises ContainerError in a kernel that has none: outside of a container, without control over it, or where
    ipywidgets and anywidget are not installed.
    """
    try:
        return open_panel()
    except HullError as error:
        raise ContainerError(error) from None


def open_panel() -> Panel | None:
    """The same; raises HullError."""
    if own_control() is None:
        return None
    kernel = running_kernel()
    if kernel is None:
        raise NotFound("this kernel can have no panel", "it can where Python 3.11 or later runs")
    try:
        from nbhull.magics.panel import widget
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("anywidget", "ipywidgets"):
            raise
        raise NotFound(
            f"the panel needs {error.name}, which is not in this image", "%pip install ipywidgets anywidget"
        ) from error
    return widget.current(kernel)


class Opened(Result):
    """What `%container panel` and `%container picker` give: the widget itself is what is shown."""

    def __init__(self, panel: Any) -> None:
        self.panel = panel


def verb(engine: None, values: dict[str, Any]) -> Result | None:
    """`panel`."""
    opened = open_panel()
    return Opened(opened) if opened is not None else None


def running_kernel() -> Any:
    """The kernel of this process, if it is nbhull's."""
    from IPython.core.getipython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    return kernel if hasattr(kernel, "surrender") else None


def memory_of(control: str) -> str:
    """Path of the file that tells the next kernel of the panel; `control`: the control socket's."""
    return f"{os.path.dirname(control)}/{PANEL_FILE}"


def register(shell: Any) -> None:
    """Have a kernel take over the panel of the one before it, now and whenever it comes back from a checkpoint."""
    kernel: Any = getattr(shell, "kernel", None)
    if not hasattr(kernel, "on_revival"):
        return
    kernel.on_revival.append(lambda: restore(kernel))
    restore(kernel)


def restore(kernel: Any) -> None:
    """Go on with the panel that stands in the page, if there is one, as soon as the kernel runs."""
    control = os.environ.get(CONTROL_VARIABLE, "none")
    if control in ("none", REPLAY) or not os.path.exists(memory_of(control)):
        return
    from tornado.ioloop import IOLoop

    def take_over() -> None:
        from nbhull.magics.panel import widget

        widget.take_over(kernel)

    IOLoop.current().add_callback(take_over)
