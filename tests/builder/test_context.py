"""A build's context, read while somebody changes it, or for a container that may read less than this process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbhull.runtime.builder.context import open_context
from nbhull.runtime.errors import InvalidInput


def test_a_folder_that_becomes_a_link_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    """Somebody changes the context while it is read, as a kernel may that asks for the build."""
    outside, inside = tmp_path / "outside", tmp_path / "context"
    for folder in (outside, inside / "folder"):
        folder.mkdir(parents=True)
        (folder / "file").write_text(folder.name)
    context = open_context(str(inside), "")
    files = context.walk(".")
    assert [next(files).path, next(files).path] == [".", "folder"]
    (inside / "folder").rename(tmp_path / "away")
    (inside / "folder").symlink_to(outside)
    with pytest.raises(InvalidInput, match="cannot be read"):
        next(files)
    with pytest.raises(InvalidInput, match="cannot be read"):
        context.open_file("folder/file")
    context.close()


@pytest.mark.requires("root")
def test_a_guarded_context_reads_what_the_container_may(tmp_path: Path) -> None:
    files = (("ours", 0, 0o600), ("mapped", 1000, 0o600), ("open", 200000, 0o644), ("shut", 200000, 0o600))
    for name, owner, mode in files:
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(mode)
        os.chown(tmp_path / name, owner, owner)
    context = open_context(str(tmp_path), "", is_guarded=True)
    for name in ("ours", "mapped", "open"):
        os.close(context.open_file(name))
    with pytest.raises(InvalidInput, match="Permission denied"):
        context.open_file("shut")
    context.close()
