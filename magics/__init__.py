"""%container, in a notebook: `%load_ext nbhull.magics`, or by itself in a kernel that nbhull started."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Called by IPython for `%load_ext nbhull.magics`."""
    from nbhull.magics import completion, panel
    from nbhull.magics.container import ContainerMagics

    magics = ContainerMagics(shell)
    shell.register_magics(magics)
    completion.register(shell, magics.listed)
    panel.register(shell)
