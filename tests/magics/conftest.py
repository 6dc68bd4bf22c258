"""A real IPython shell, and kernels to compare it with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from nbhull.kernel.engines import close_shared_engine


@pytest.fixture(scope="module")
def ipython(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    """One shell: it stays until the process ends, as IPython's do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
        shell.run_line_magic("load_ext", "nbhull.magics")
        yield shell


@pytest.fixture
def shell(ipython: InteractiveShell, store: Path) -> Iterator[InteractiveShell]:
    """The shell, with an empty store."""
    close_shared_engine()
    yield ipython
    close_shared_engine()
