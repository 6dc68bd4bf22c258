"""The picker: the images that there are, to choose one for this notebook (`%container picker`, `nbhull.picker()`).

Made of ipywidgets' own parts, which are labelled and worked by keyboard. Where a front end shows no widgets, or the
image has no ipywidgets, it is the list as text, and the line to type.
"""

# mypy: disallow-untyped-calls=False, disallow-any-unimported=False

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from nbhull.kernel.rpc import ContainerError, call, connect, converse, decode_result, own_control
from nbhull.magics.display import Written
from nbhull.magics.panel import Opened, running_kernel
from nbhull.runtime.errors import HullError, NotFound
from nbhull.runtime.verbs.results import Result, Table, human_size

if TYPE_CHECKING:
    from nbhull.magics.picker_widget import Picker

HINT = "type `%container use IMAGE` to go on in one of them"


def picker() -> Picker | Written | None:
    """The images that this notebook may go on in, for the notebook to show; a text where there are no widgets, None
    where cells are run again by a replay.

    Raises ContainerError in a kernel outside of a container, or without control over it."""
    try:
        return open_picker()
    except HullError as error:
        raise ContainerError(error) from None


def open_picker() -> Picker | Written | None:
    """The same; raises HullError."""
    control = own_control()
    if control is None:
        return None
    if running_kernel() is None:
        raise NotFound("this kernel cannot go on in another image", "it can where Python 3.11 or later runs")
    table = images(control)
    try:
        from nbhull.magics.picker_widget import Picker
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "ipywidgets":
            raise
        return Written(as_text(table))
    return Picker(table.items, as_text(table), current(control))


def verb(engine: None, values: dict[str, Any]) -> Result | None:
    """`picker`."""
    opened = open_picker()
    return Opened(opened) if opened is not None else None


def images(control: str) -> Table:
    """The images that there are. Raises HullError."""
    result = decode_result(call(control, "images", {}))
    assert isinstance(result, Table)
    return result


def current(control: str) -> str:
    """The image that the notebook runs in. Raises HullError."""
    return str(decode_result(call(control, "info", {})).data()["image"])


def as_text(table: Table) -> str:
    """For who sees no widgets."""
    return f"{table.text()}\n\n{HINT}"


def lines(items: list[dict[str, Any]], wanted: str) -> list[tuple[str, str]]:
    """What is offered for choice, and the name that it means: images with all words of `wanted` in their names."""
    words = wanted.lower().split()
    found = [item for item in items if item["name"] and all(word in item["name"].lower() for word in words)]
    return [(label(item), item["name"]) for item in found]


def label(item: dict[str, Any]) -> str:
    """An image's name and size."""
    size = "this machine's own system" if item["name"] == "host" else human_size(item["size"] or 0)
    return f"{item['name']}  –  {size}"


def go(control: str, image: str, tell: Any) -> None:
    """Go on in an image: this kernel ends in it, unless it fails. `tell` is called with HTML. Raises HullError."""
    tell(f"getting {escape(image)} ready …")

    def hear(method: str, params: dict[str, Any]) -> None:
        if method == "progress" and params["total"]:
            tell(f"getting {escape(image)}: {human_size(params['done'])} of {human_size(params['total'])} …")
        elif method == "step":
            tell(f"{escape(params['label'])} {escape(params['title'])} …")

    converse(connect(control), "prepare", {"image": image}, hear)
    # the last that this kernel says, and right once the next one is there
    tell(
        f"The notebook goes on in <b>{escape(image)}</b>, with a new kernel. "
        "<code>%container undo</code> goes back; <code>%container picker</code> chooses another one."
    )
    call(control, "use", {"image": image, "pending": running_kernel().surrender()})
