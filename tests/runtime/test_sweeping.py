"""What a killed launcher has left is taken away once, however many look for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from nbhull.runtime.launcher.sweeping import sweep

WIDE = 4


@pytest.mark.requires("root")
def test_several_at_the_same_time(tmp_path: Path) -> None:
    folder, together = tmp_path / "launcher", Barrier(WIDE)

    def one(_: int) -> None:
        together.wait()
        sweep(str(folder))
        assert not folder.exists(), "it is gone when this returns, whoever did it"

    with ThreadPoolExecutor(WIDE) as pool:
        for _ in range(20):
            for number in range(30):
                (folder / f"container{number}").mkdir(parents=True)
                (folder / f"container{number}/file").touch()
            list(pool.map(one, range(WIDE)))
