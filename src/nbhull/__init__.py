"""Every notebook kernel in a container of its own: no Docker, no daemon, no root needed."""

__version__ = "0.1.0"


def load_ipython_extension(shell: object) -> None:
    """Called by IPython for `%load_ext nbhull`: makes `%container` known."""
    from nbhull import magics

    magics.load_ipython_extension(shell)  # type: ignore[arg-type]
