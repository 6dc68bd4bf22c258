"""What builds leave in the store, and how it goes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from nbhull.runtime.builder import context as contexts
from nbhull.runtime.engine import Engine
from nbhull.runtime.images import leftovers, upkeep
from support.builds import built

TEXT = """\
FROM base
RUN --mount=type=cache,target=/one dd if=/dev/zero of=/one/file bs=1024 count=300 && chown -R 1000:1000 /one
RUN --mount=type=cache,target=/two,uid=1000 echo > /two/file
COPY file /
"""


@pytest.mark.requires("busybox")
def test_caches_downloads_and_contexts(
    engine: Engine, busybox_tar: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.catalog.import_root([busybox_tar], ["base"], {"Cmd": ["/bin/sh"]})
    context = tmp_path / "context"
    context.mkdir()
    (context / "Containerfile").write_text(TEXT)
    (context / "file").write_text("x")
    monkeypatch.setattr(contexts, "SETTLED", -1)  # else the digest of so young a file is not kept
    built(engine, context, network="none", tags=("kept",))
    home = Path(engine.store.path("."))
    download = home / "downloads" / ("a" * 64)
    download.mkdir(parents=True)
    (download / "x.conda").write_bytes(bytes(50_000))
    (home / "contexts/unpacked-killed").mkdir()
    found = {kind: [one for one in leftovers.leftovers(engine.store) if one.kind == kind] for kind in (
        leftovers.CACHES, leftovers.DOWNLOADS, leftovers.CONTEXTS)}  # fmt: skip
    assert [len(found[kind]) for kind in found] == [2, 1, 2]
    shares = {share.kind: share for share in upkeep.usage(engine.catalog)}
    assert shares["cache mounts"].size >= 300 * 1024
    assert shares["downloads"].size >= 50_000
    told = subprocess.run(["du", "-sB1", home], capture_output=True, text=True, check=False).stdout
    if os.getuid() == 0:  # others may not look into all of it
        other = int(told.split()[0]) - sum(share.size for share in shares.values())
        assert 0 <= other < 600_000  # the index, and the folders themselves

    def names() -> set[str]:
        return {one.path for one in leftovers.leftovers(engine.store)}

    gone, freed = upkeep.prune(engine.catalog)
    assert (gone, freed) == ([], 0)
    assert len(names()) == 5
    old = time.time() - 40 * 86400
    for path in (home / "contexts/unpacked-killed", *home.glob("contexts/*"), *home.glob("caches/*.lock")):
        os.utime(path, (old, old))
    built(engine, context, network="none", tags=("kept",), cached=False)  # all of it is of use again
    assert upkeep.prune(engine.catalog)[1] > 0  # the layers of before
    assert len(names()) == 4  # without the folder of the build that was killed
    os.utime(download, (old, old))
    upkeep.prune(engine.catalog)
    assert not download.exists()
    upkeep.prune(engine.catalog, keep=100_000)
    assert [one.kind for one in leftovers.leftovers(engine.store)].count(leftovers.CACHES) == 1
    upkeep.prune(engine.catalog, everything=True)
    assert names() == set()
    assert list((home / "caches").iterdir()) == []
