"""Deleting trees as hostile code may leave them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbhull.runtime.files import remove_tree


def test_a_tree_is_deleted_whatever_its_modes_and_depth(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "closed/inner").mkdir(parents=True)
    (tree / "closed/inner/file").touch()
    (tree / "closed/inner").chmod(0)
    (tree / "closed").chmod(0o500)
    here = os.getcwd()
    try:
        os.chdir(tree)
        for _ in range(3000):  # deeper than recursion, and than any path may be long
            os.mkdir("deep")
            os.chdir("deep")
        os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY))
    finally:
        os.chdir(here)
    remove_tree(str(tree))
    assert os.listdir(tmp_path) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    for link in (tree / "link", tree / "inner/link"):
        link.symlink_to(kept)
    remove_tree(str(tree))
    assert not tree.exists()
    assert (kept / "file").exists()
    tree.symlink_to(kept)
    with pytest.raises(NotADirectoryError):
        remove_tree(str(tree))
    assert (kept / "file").exists()


def test_what_is_gone_is_no_error(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "nothing"))
