"""The picker's widgets."""

# mypy: disallow-untyped-calls=False, disallow-any-unimported=False, disallow-subclassing-any=False

from __future__ import annotations

import os
from html import escape
from typing import Any

import ipywidgets as widgets

from nbhull.kernel.names import CONTROL_VARIABLE
from nbhull.kernel.rpc import ContainerError
from nbhull.magics import picker
from nbhull.runtime.errors import HullError

ROWS = 12
"""images that are seen at once"""
WIDE = widgets.Layout(width="100%", max_width="60em")


class Picker(widgets.VBox):
    """A filter, a list and a button."""

    def __init__(self, items: list[dict[str, Any]], text: str, current: str) -> None:
        """`items`: the images; `text`: the same for who sees no widgets; `current`: the image the notebook runs in."""
        self.items = items
        self.text = text
        self.filter = widgets.Text(description="Filter", placeholder="part of a name", layout=WIDE)
        found = picker.lines(items, "")
        names = [name for _, name in found]
        self.list = widgets.Select(
            options=found,
            value=current if current in names else next(iter(names), None),
            description="Image",
            rows=min(max(len(names), 2), ROWS),
            layout=WIDE,
        )
        self.button = widgets.Button(
            description="Use this image",
            tooltip="The notebook goes on in it, with a new kernel",
            button_style="primary",
        )
        self.status = widgets.HTML(f"This notebook runs in <b>{escape(current)}</b>.")
        super().__init__([self.filter, self.list, widgets.HBox([self.button]), self.status])
        self.filter.observe(self.narrow, "value")
        self.button.on_click(self.choose)

    def narrow(self, change: dict[str, Any]) -> None:
        """Called when the filter changes."""
        chosen, found = self.list.value, picker.lines(self.items, change["new"])
        names = [name for _, name in found]
        self.list.options = found
        self.list.value = chosen if chosen in names else next(iter(names), None)
        self.button.disabled = not names
        self.tell(f"{len(names)} images" if len(names) != 1 else "1 image")

    def choose(self, _: Any) -> None:
        """Called when the button is pressed."""
        if self.list.value is None:
            return
        self.button.disabled = self.list.disabled = True
        try:
            picker.go(os.environ[CONTROL_VARIABLE], self.list.value, self.tell)
        except HullError as error:
            self.tell(escape(str(ContainerError(error))))
            self.button.disabled = self.list.disabled = False

    def tell(self, html: str) -> None:
        """Say how it goes."""
        self.status.value = f'<span role="status">{html}</span>'

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Called by IPython: the widget, and the text for who cannot show it."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if data is not None:
            data["text/plain"] = self.text
        return bundle
