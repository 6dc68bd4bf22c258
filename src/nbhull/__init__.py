"""Every notebook kernel in a container of its own: no Docker, no daemon, no root needed."""

from __future__ import annotations

__version__ = "0.1.0"
TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.magics.panel.widget import Panel
    from nbhull.magics.picker_widget import Picker


def load_ipython_extension(shell: object) -> None:
    """Called by IPython for `%load_ext nbhull`: makes `%container` known."""
    from nbhull import magics

    magics.load_ipython_extension(shell)  # type: ignore[arg-type]


def panel() -> Panel | None:
    """This notebook's container as a panel of widgets, as `%container panel` shows it (`nbhull.magics.panel`)."""
    from nbhull.magics.panel import panel

    return panel()


def picker() -> Picker | str | None:
    """The images that this notebook may go on in, to choose one, as `%container picker` shows them
    (`nbhull.magics.picker`)."""
    from nbhull.magics.picker import picker

    return picker()
