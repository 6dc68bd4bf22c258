"""A snapshot saved into a notebook's folder, which the notebook's container may have prepared for it."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nbhull.kernel.folder import WorkingFolder
from nbhull.kernel.saving import save
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Conflict, HullError, InvalidInput, NotFound
from nbhull.runtime.model import Image, Mount
from support.boxes import Box
from support.tars import pieces, small_root


@pytest.fixture(scope="module")
def image(shared_engine: Engine) -> Image:
    shared_engine.catalog.import_root(pieces(gzip.compress(small_root(), 1)), ["to-be-saved"], {})
    return next(image for image in shared_engine.images() if image.name == "to-be-saved")


@pytest.fixture
def kernel(shared_engine: Engine, tmp_path: Path) -> Any:
    """As much of a kernel as is needed: its engine, and the folder that it works in."""
    folder = WorkingFolder("/notebooks", Mount(str(tmp_path), "/notebooks"))
    return SimpleNamespace(engine=shared_engine, folder=folder)


def test_the_archive_is_whole(kernel: Any, image: Image, tmp_path: Path) -> None:
    size = save(kernel, image, "saved.tar")
    assert (tmp_path / "saved.tar").stat().st_size == size
    with tarfile.open(tmp_path / "saved.tar") as archive:
        assert {"index.json", "oci-layout"} <= set(archive.getnames())


def test_nothing_is_replaced_and_no_link_is_followed(kernel: Any, image: Image, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_text("mine")
    (tmp_path / "link.tar").symlink_to(tmp_path / "elsewhere")
    for name in ("mine.tar", "link.tar"):
        with pytest.raises(Conflict, match="there is a file"):
            save(kernel, image, name)
    assert (tmp_path / "mine.tar").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["", "../up.tar", "a/b.tar", ".hidden", "x" * 200, "a\nb"])
def test_a_name_is_a_name(kernel: Any, image: Image, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="no name for a file"):
        save(kernel, image, name)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_saved_leaves_nothing(kernel: Any, make_box: Any, tmp_path: Path) -> None:
    box: Box = make_box()
    taken = kernel.engine.snapshot(box.id, "stands-on-the-host")
    with pytest.raises(HullError, match="this machine's own system"):
        save(kernel, taken, "saved.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_not_handed_in_gets_nothing(kernel: Any, image: Image) -> None:
    kernel.folder = WorkingFolder("/root", None)
    with pytest.raises(NotFound, match="not in its container"):
        save(kernel, image, "saved.tar")
