"""Containers as images, notebooks with their images, and what images take up."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Conflict, HullError, InvalidInput, NotFound
from nbhull.runtime.images import exchange, upkeep
from nbhull.runtime.images.catalog import Catalog
from support.boxes import Box

pytestmark = [pytest.mark.nosubuid, pytest.mark.requires("busybox")]


def test_the_configuration_of_an_image_holds(catalog: Catalog, small: str, make_box: Callable[..., Box]) -> None:
    box = make_box(image=small)
    assert box.out("echo $GREETING; pwd; cat /etc/hostname; grep -c localhost /etc/hosts").split() == [
        "hello", "/", box.id, "2",
    ]  # fmt: skip
    assert box.engine.command(box.id, ()) == ("sh", "-c", "echo $GREETING")
    assert box.engine.command(box.id, (), "ls") == ("ls",)


def test_commit_changes_the_configuration(
    shared_engine: Engine, catalog: Catalog, small: str, make_box: Callable[..., Box]
) -> None:
    box = make_box(image=small)
    box.out("echo new > /new")
    changes = ['ENTRYPOINT ["sh", "-c"]', 'CMD ["cat /new"]', "ENV A=b C=$GREETING", "WORKDIR /srv", "LABEL x=y"]
    image = exchange.commit(shared_engine, box.id, "committed", changes)
    config = catalog.config(catalog.find(image.id))
    assert (config.entrypoint, config.cmd) == (("sh", "-c"), ("cat /new",))
    assert {"A=b", "C=hello", "GREETING=hello"} <= set(config.env)
    other = make_box(image="committed")
    assert other.out("pwd; cat /new; echo $A").split() == ["/srv", "new", "b"]
    with pytest.raises(InvalidInput, match="RUN cannot be a change"):
        exchange.commit(shared_engine, box.id, "refused", ["RUN true"])
    with pytest.raises(Conflict, match="in use by"):
        upkeep.remove(catalog, "committed")
    shared_engine.remove(other.id, force=True)
    shared_engine.remove(box.id, force=True)
    upkeep.remove(catalog, "committed")
    gone, _ = upkeep.prune(catalog)
    assert image.parent in gone


@pytest.mark.parametrize("running", [True, False])
def test_an_export_is_what_the_container_sees(
    shared_engine: Engine, small: str, make_box: Callable[..., Box], tmp_path: Path, running: bool
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/secret").write_text("secret")
    from nbhull.runtime.model import Mount

    box = make_box(image=small, mounts=(Mount(str(tmp_path / "mine"), "/mine"),))
    box.out("echo new > /new; rm /etc/group; ln -s new link")
    if not running:
        shared_engine.stop(box.id, 0)
    assert exchange.export(shared_engine, box.id, str(tmp_path / "out.tar")) == 0
    assert shared_engine.container(box.id).state == ("running" if running else "stopped")
    with tarfile.open(tmp_path / "out.tar") as tar:
        names = set(tar.getnames())
    assert {"new", "link", "bin/busybox", "mine", "proc", "etc/hosts"} <= names
    assert not {"etc/group", "mine/secret", "proc/self", "dev/null"} & names


def test_space_is_counted_once_and_given_back(
    shared_engine: Engine, catalog: Catalog, small: str, make_box: Callable[..., Box]
) -> None:
    before = upkeep.usage(catalog)[0]
    box = make_box(image=small)
    box.out("head -c 5000000 /dev/urandom > /big")
    for name in ("one", "two"):
        shared_engine.snapshot(box.id, name)
    shared_engine.remove(box.id, force=True)
    after = upkeep.usage(catalog)[0]
    assert 5_000_000 <= after.size - before.size < 6_000_000
    upkeep.remove(catalog, "two")
    upkeep.remove(catalog, "one")
    assert upkeep.usage(catalog)[0] == before


def test_a_notebook_is_pinned_to_a_digest(shared_engine: Engine, catalog: Catalog, small: str, tmp_path: Path) -> None:
    path = tmp_path / "analysis.ipynb"
    text = json.dumps(
        {"cells": [], "metadata": {"container": {"image": small}}, "nbformat": 4, "nbformat_minor": 5}, indent=1
    )
    path.write_text(text + "\n")
    with pytest.raises(InvalidInput, match="push it first"):
        exchange.pin(shared_engine, str(path))
    assert path.read_text() == text + "\n"
    digest, row = f"sha256:{'1' * 64}", catalog.find(small)
    catalog.store.query("insert into digests values (?, ?, ?)", "registry.example.org/small", digest, row["id"])
    try:
        assert exchange.pin(shared_engine, str(path)) == f"registry.example.org/small@{digest}"
        assert json.loads(path.read_text())["metadata"]["container"]["image"] == f"registry.example.org/small@{digest}"
        assert catalog.get(f"registry.example.org/small@{digest}").id == row["id"]
    finally:
        catalog.store.query("delete from digests where digest = ?", digest)
    with pytest.raises(NotFound):
        catalog.get(f"registry.example.org/small@{digest}")
    for wrong in ("{", "[]", '{"metadata": []}'):
        path.write_text(wrong)
        with pytest.raises(HullError):
            exchange.pin(shared_engine, str(path))
