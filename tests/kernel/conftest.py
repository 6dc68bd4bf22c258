"""One store, one kernelspec and one engine for the tests of kernels."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from nbhull.kernel import specs
from nbhull.kernel.engines import close_shared_engine, shared_engine
from support.jupyter import Place, Start, connect, runtime_entries
from support.stores import delete_tree


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Folders of this session's own for Jupyter and nbhull, with the kernelspec `nbhull` in them."""
    base = tmp_path_factory.mktemp("jupyter")
    # short, since the path of a socket is; of this session alone, so that what is left in it is ours
    runtime = Path(tempfile.mkdtemp(prefix="nbhull-tests-"))
    variables = {
        "XDG_RUNTIME_DIR": runtime,
        "NBHULL_HOME": base / "store",
        "JUPYTER_PATH": base / "prefix/share/jupyter",
        "JUPYTER_DATA_DIR": base / "data",
        "JUPYTER_RUNTIME_DIR": base / "data/runtime",
        "JUPYTER_CONFIG_DIR": base / "config",
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": base / "ipython",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, path in variables.items():
            patch.setenv(name, str(path))
        specs.install(prefix=str(base / "prefix"))
        shared_engine().launcher()  # stays from here to the end, so that tests can tell what came and went
        yield Place(base / "prefix", shared_engine())
        left = [container.name for container in shared_engine().containers()]
        close_shared_engine()
        delete_tree(base / "store")
        entries = runtime_entries()
    shutil.rmtree(runtime)
    assert left == [], "tests left containers behind"
    assert entries == set(), "tests left sockets behind"


@pytest.fixture
def folder(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A notebook's folder, which is the working folder of the test."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    monkeypatch.chdir(notebooks)
    return notebooks


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts kernels with the blocking manager; they are shut down after the test."""
    running: list[tuple[KernelManager, BlockingKernelClient]] = []

    def start_one(name: str = "nbhull", **kwargs: object) -> tuple[KernelManager, BlockingKernelClient]:
        manager = KernelManager(kernel_name=name)
        manager.start_kernel(**kwargs)
        try:
            client = connect(manager)
        except BaseException:
            manager.shutdown_kernel(now=True)
            raise
        running.append((manager, client))
        return running[-1]

    yield start_one
    for manager, client in running:
        client.stop_channels()
        if manager.has_kernel:
            manager.shutdown_kernel(now=True)
        else:
            manager.cleanup_resources()
        manager.context.destroy(linger=0)
