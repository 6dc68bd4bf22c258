"""Builds on images of a real registry, and steps of builds that travel from store to store."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime.builder.travel import Place, parse_label, parse_place
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.verbs.building import build
from nbhull.runtime.verbs.parser import parse
from support.registry import Registry

pytestmark = pytest.mark.requires("docker-registry", "busybox")
TEXT = """\
FROM {base} AS first
RUN head -c 16 /dev/urandom > /first; echo > /other
FROM {base}
RUN head -c 16 /dev/urandom > /made
COPY --from=first /first /
COPY data /data
"""

Fresh = Callable[[], Engine]


@pytest.fixture
def context(tmp_path: Path, registry: Registry, shared_engine: Engine, small: str) -> Path:
    """A folder whose image stands on one of the registry."""
    base = f"{registry.host}/team/base:1"
    shared_engine.push(small, base)
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "Containerfile").write_text(TEXT.format(base=base))
    (folder / "data").write_text("one")
    return folder


def built(engine: Engine, context: Path, *options: str) -> str:
    """Build; the digest of the image's configuration."""
    words = ["build", "--progress", "plain", "-t", "travelled", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"]
    _, values = parse([*words, *options, str(context)])
    build(engine, values)
    row, _, _ = engine.catalog.completed(engine.catalog.find("travelled"))
    return str(row["config"])


def test_from_a_registry(fresh: Fresh, context: Path, registry: Registry, capfd: pytest.CaptureFixture[str]) -> None:
    engine = fresh()
    first = built(engine, context)
    assert built(engine, context) == first
    (context / "Containerfile").write_text(f"FROM {registry.host}/team/missing\n")
    with pytest.raises(NotFound, match=r"Containerfile:1.*missing"):
        built(engine, context)
    digest = engine.catalog.digests(engine.catalog.find(f"{registry.host}/team/base:1")["id"])[0]
    (context / "Containerfile").write_text(f"FROM {digest.partition('@')[0]}@sha256:{'0' * 64}\n")
    with pytest.raises(NotFound, match="Containerfile:1"):
        built(engine, context)
    (context / "Containerfile").write_text(f"FROM {digest}\nCOPY data /copied\n")
    built(engine, context, "--pull")


@pytest.mark.requires("root")  # what it needs of the user is in the tests beside it
def test_steps_travel(
    fresh: Fresh, context: Path, registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A second store does only what the first one has not done, by way of a registry, a folder, the image itself."""
    cache, folder = f"{registry.host}/team/cache", f"{tmp_path}/cache"
    engine = fresh()
    first = built(engine, context, "--cache-to", cache, "--cache-to", folder, "--cache-from", f"{cache}:none")
    assert "not used" in capfd.readouterr().err
    assert [image.name for image in engine.images() if "cache" in image.name] == []
    second = fresh()
    assert built(second, context, "--cache-from", f"type=registry,ref={cache}") == first
    assert capfd.readouterr().err.count("] cached") == 4
    third = fresh()
    (context / "data").write_text("two")
    built(third, context, "--cache-from", folder, "--cache-to", "inline")
    assert capfd.readouterr().err.count("] cached") == 3
    third.push("travelled", f"{registry.host}/team/inline")
    fourth = fresh()
    built(fourth, context, "--cache-from", f"{registry.host}/team/inline")
    told = capfd.readouterr().err
    assert told.count("] cached") == 3, told  # the other stage is not in the image


@pytest.mark.requires("root")
def test_places() -> None:
    assert parse_place("inline") == Place("inline")
    assert parse_place("./x") == parse_place("type=local,dest=./x") == Place("local", "./x")
    name = "registry.example.org/a:b"
    assert parse_place(name) == parse_place(f"type=registry,ref={name},mode=max") == Place("registry", name)
    for text in ("", "name", "type=s3,bucket=b", "type=local", "type=registry,ref=", "type=local,src=a,dest=b"):
        with pytest.raises(InvalidInput):
            parse_place(text)


@pytest.mark.requires("root")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "steps": {}}',
        '{"version": 1, "steps": []}',
        '{"version": 1, "steps": {"a": [0, 1]}}',
        '{"version": 1, "steps": {"%s": [1, 1]}}' % ("0" * 64),
        '{"version": 1, "steps": {"%s": [-2, 1]}}' % ("0" * 64),
        '{"version": 1, "steps": {"%s": [0, NaN]}}' % ("0" * 64),
        '{"version": 1, "steps": {"%s": [0, 1e999]}}' % ("0" * 64),
    ],
)
def test_labels_that_lie_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_label(text, 1)


def test_what_is_built_goes_elsewhere(shared_engine: Engine, small: str, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Containerfile").write_text(
        f"FROM {small} AS b\nRUN mkdir /d && ln -s /etc /d/link\nFROM scratch\nCOPY --from=b /d /bin/busybox /\n"
    )
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "other").write_text("stays")
    places = (f"{folder}", f"type=tar,dest={tmp_path}/made.tar", f"type=oci,dest={tmp_path}/oci.tar")
    built(shared_engine, context, *(word for place in places for word in ("-o", place)))
    assert sorted(path.name for path in folder.iterdir()) == ["busybox", "link", "other"]
    assert (folder / "link").readlink() == Path("/etc")
    assert (folder / "busybox").read_bytes() == Path("/bin/busybox").read_bytes()
    with tarfile.open(tmp_path / "made.tar") as archive:
        assert archive.getnames() == ["busybox", "link"]
    with tarfile.open(tmp_path / "oci.tar") as archive:
        assert "oci-layout" in archive.getnames()
    with pytest.raises(InvalidInput, match="output"):
        built(shared_engine, context, "-o", "type=what,dest=x")
