"""A real JupyterLab, and Notebook 7, in a real browser: what a person sees."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from support.jupyter import install_spec
from support.lab import Lab, Notebook
from support.server import Server
from support.stores import delete_tree
from support.tars import small_root

QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
"""options of Chromium: it asks nobody on the network for anything, and runs for root too"""
ZOOM = 1280, 900
SMALL = "64m"
"""the memory of the kernels that are to die of it; an idle one takes two thirds"""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless. Not of the whole session: its event loop would be in the way of others."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=QUIET)
        yield running
        running.close()


@pytest.fixture(scope="package")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab, and with it Notebook 7, with folders of its own, `nbhull` and failing kernelspecs beside the bare
    Python's, and the image `small`."""
    base = tmp_path_factory.mktemp("lab")
    runtime = Path(tempfile.mkdtemp(prefix="nbhull-lab-"))  # short, since the path of a socket is
    notebooks = base / "notebooks"
    notebooks.mkdir()
    variables = {
        "XDG_RUNTIME_DIR": runtime,
        "NBHULL_HOME": base / "store",
        "JUPYTER_PATH": base / "prefix/share/jupyter",
        "JUPYTER_DATA_DIR": base / "data",
        "JUPYTER_RUNTIME_DIR": base / "data/runtime",
        "JUPYTER_CONFIG_DIR": base / "config",
        "IPYTHONDIR": base / "ipython",
    }
    nbhull = Path(sys.executable).with_name("nbhull")
    subprocess.run([nbhull, "kernel", "install", "--prefix", base / "prefix"], check=True)
    install_spec("wrong-memory", base / "prefix", memory="12 elephants")
    install_spec("no-image", base / "prefix", image="no-such-image")
    install_spec("small-memory", base / "prefix", memory=SMALL)
    surroundings = {name: str(path) for name, path in variables.items()}
    (base / "root.tar").write_bytes(small_root())
    subprocess.run([nbhull, "import", base / "root.tar", "small"], env={**os.environ, **surroundings}, check=True)
    server = Server(notebooks, "jupyterlab", **surroundings)
    yield server
    server.stop(signal.SIGKILL)  # on SIGTERM its own idle worker threads keep it from ending
    delete_tree(base / "store")
    delete_tree(runtime)


@pytest.fixture(scope="package")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """What the browser keeps of JupyterLab's script and style, so that only the first page waits for them."""
    context = browser.new_context(viewport={"width": ZOOM[0], "height": ZOOM[1]})
    yield context
    context.close()


@pytest.fixture
def lab(context: BrowserContext, lab_server: Server, tmp_path: Path) -> Iterator[Lab]:
    """JupyterLab's launcher, in a workspace of this test's own; its kernels end with the test."""
    lab = Lab(context.new_page(), lab_server, workspace=tmp_path.name)
    yield lab
    lab.close()


@pytest.fixture
def notebook(context: BrowserContext, lab_server: Server, tmp_path: Path) -> Iterator[Notebook]:
    """Notebook 7 with a new notebook of the kernel in a container; its kernel ends with the test."""
    notebook = Notebook(context.new_page(), lab_server, f"{tmp_path.name}.ipynb", "nbhull")
    yield notebook
    notebook.close()
