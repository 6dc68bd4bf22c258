"""Execute the tour notebook in a containerized kernel; write it, executed, and as HTML, below build/."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parent.parent
TOUR = ROOT / "notebooks/tour.ipynb"
BUILD = ROOT / "build"
KERNELSPEC = "nbhull"
CELL_TIMEOUT = 600
"""seconds; a cell of the tour installs a package"""


def write(notebook: nbformat.NotebookNode) -> tuple[Path, Path]:
    """Write the executed notebook and its HTML; both files."""
    BUILD.mkdir(exist_ok=True)
    executed, page = BUILD / "tour.ipynb", BUILD / "tour.html"
    nbformat.write(notebook, executed)
    body, _ = HTMLExporter().from_notebook_node(notebook)
    page.write_text(body)
    return executed, page


def main() -> int:
    """Run the tour; exit status 1 if a cell failed, its output in the files all the same."""
    notebook = nbformat.read(TOUR, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name=KERNELSPEC,
        timeout=CELL_TIMEOUT,
        resources={"metadata": {"path": str(TOUR.parent)}},
    )
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    print(f"executing {TOUR.relative_to(ROOT)} in a kernel of {KERNELSPEC!r}", flush=True)
    started = time.monotonic()
    failure: CellExecutionError | None = None
    try:
        client.execute()
    except CellExecutionError as error:
        failure = error
    executed, page = write(notebook)
    if failure is not None:
        print(failure, file=sys.stderr)
        print(f"a cell failed; what ran until then: {page}", file=sys.stderr)
        return 1
    print(f"ran {cells} cells in {time.monotonic() - started:.1f} s, in a container of their own")
    print(f"the executed notebook: {executed}")
    print(f"to read in a browser:  {page}")
    print("in JupyterLab:         make lab")
    return 0


if __name__ == "__main__":
    sys.exit(main())
