"""Images both ways with umoci, buildah, podman and docker: the same tree, configuration and digests whoever wrote them.

skopeo has no trees; what it copies is in test_archives.py."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.images import archives, documents, upkeep
from nbhull.runtime.images.catalog import Catalog
from nbhull.runtime.registry import transfer
from support import trees
from support.peers import Peer, docker, podman, storage
from support.registry import Registry
from support.stores import delete_tree
from support.tars import archive, entry, file, folder, hard_link, pieces, small_root
from support.trees import Tree

pytestmark = pytest.mark.requires("busybox")

SETTINGS = {
    "Env": ["GREETING=hello", "PATH=/bin:/usr/bin"],
    "Entrypoint": ["sh", "-c"],
    "Cmd": ["echo $GREETING"],
    "User": "me",
    "WorkingDir": "/lower",
    "Labels": {"of": "tests"},
    "ExposedPorts": {"8888/tcp": {}},
    "Volumes": {"/data": {}},
    "StopSignal": "SIGQUIT",
}
LOWER = archive(
    *(folder(f"lower{name}") for name in ("", "/gone-folder", "/new-folder", "/now-a-file")),
    *(file(f"lower/{name}") for name in ("gone", "gone-folder/a", "new-folder/old", "now-a-file/a")),
    *(file(f"lower/{name}") for name in ("now-a-folder", "changed", "stays")),
)
VFS = ("--storage-driver", "vfs")
DELETED = ("lower/gone", "lower/gone-folder", "lower/new-folder/old", "lower/now-a-file")


def attribute(name: str, value: bytes) -> dict[str, str]:
    """An extended attribute as a pax header."""
    return {f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")}


UPPER = archive(
    folder("added", mode=0o1777),
    folder("added/deep", mode=0o2750, mtime=981173106, pax_headers=attribute("user.colour", b"green")),
    file("added/deep/file", b"x" * 3000, mode=0o4755, mtime=981173107, uid=1000, gid=1000,
         pax_headers=attribute("user.colour", b"blue")),
    hard_link("added/hard", "added/deep/file"),
    entry("added/soft", tarfile.SYMTYPE, linkname="deep/file", uid=1000, gid=1000, mtime=981173108),
    entry("added/fifo", tarfile.FIFOTYPE, mode=0o620, uid=7, gid=8),
    file("added/\N{GREEK SMALL LETTER ALPHA} b", b"a name in Greek, with a space"),
    file("added/" + "n" * 150, b"a long name"),
    file("added/empty", b"", mode=0),
    file("added/raw", b"may send raw packets", gid=1005,
         pax_headers=attribute("security.capability", trees.CAPABILITY)),
    file("added/listed", b"who may read it is listed", mode=0o640,
         pax_headers=attribute("system.posix_acl_access", trees.ACL)),
    folder("lower", mtime=1_000_000_001),
    file("lower/.wh.gone", b""),
    file("lower/.wh.gone-folder", b""),
    folder("lower/new-folder", mtime=1_000_000_002),
    file("lower/new-folder/.wh..wh..opq", b""),
    file("lower/new-folder/new", b"new"),
    file("lower/now-a-file", b"a file"),
    folder("lower/now-a-folder", mtime=1_000_000_003),
    file("lower/changed", b"data", mode=0o600),
)  # fmt: skip
"""all that `trees.change` does, made by Python's tarfile and none of the tools"""


@pytest.fixture(scope="module")
def expected() -> Tree:
    """The tree of the image `written`."""
    below = trees.of_tar(small_root()) | trees.of_tar(LOWER)
    return trees.without(below, *DELETED) | trees.of_tar(UPPER)


def packed_here(catalog: Catalog, name: str, tars: list[bytes]) -> None:
    """Make an image whose layers nbhull packs itself, out of its own folders."""
    layers = []
    for tar in tars:
        part = f"layers/{os.urandom(4).hex()}.part"
        os.mkdir(catalog.store.path(part), 0o700)

        def feed(send: Callable[[bytes], None], tar: bytes = tar) -> None:
            for piece in pieces(tar):
                send(piece)

        catalog.layers.unpack(feed, f"{part}/root", whiteouts=True)
        layers.append(catalog.layers.adopt(f"{part}/root").id)
        os.rmdir(catalog.store.path(part))
    catalog.register(documents.make_config(SETTINGS, [], [], "2001-02-03T00:00:00Z"), layers, [name])
    catalog.completed(catalog.find(name))


@pytest.fixture(scope="module")
def written(catalog: Catalog) -> Iterator[str]:
    """The name of an image with one of everything."""
    packed_here(catalog, "written:1", [small_root(), LOWER, UPPER])
    yield "written:1"
    upkeep.remove(catalog, "written:1")


@pytest.fixture(scope="module")
def base(catalog: Catalog) -> Iterator[str]:
    """The name of an image for others to change."""
    packed_here(catalog, "base:1", [small_root(), LOWER])
    yield "base:1"
    upkeep.remove(catalog, "base:1")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], Catalog]]:
    """Makes the images of stores that are empty."""
    engines: list[Engine] = []

    def make() -> Catalog:
        engines.append(Engine(tmp_path / f"store-{len(engines)}"))
        return engines[-1].catalog

    yield make
    for number, engine in enumerate(engines):
        engine.close()
        delete_tree(tmp_path / f"store-{number}")


@pytest.fixture
def other(fresh: Callable[[], Catalog]) -> Catalog:
    """The images of another store."""
    return fresh()


def source(form: str, path: Path, name: str) -> str:
    """An archive as the containers' tools write it (containers-transports(5))."""
    transport = "oci" if form == "oci-dir" else form
    return f"{transport}:{path}{f':{name}' if form == 'docker-archive' else ''}"


def config_in(layout: Path, tag: str) -> tuple[tuple[list[str], dict[str, Any]], str]:
    """Diff ids and settings of an image of a layout, and its id."""

    def read(digest: str) -> Any:
        return json.loads((layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_text())

    entries = json.loads((layout / "index.json").read_text())["manifests"]
    (digest,) = (e["digest"] for e in entries if e["annotations"]["org.opencontainers.image.ref.name"] == tag)
    manifest = read(digest)
    config = read(manifest["config"]["digest"])
    return (config["rootfs"]["diff_ids"], given(config["config"])), manifest["config"]["digest"].removeprefix("sha256:")


def tool(*argv: str | Path) -> str:
    """What a program that must succeed writes."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def within(name: str) -> list[str]:
    """What an ordinary user has buildah and podman mount in."""
    return [] if os.getuid() == 0 else [name, "unshare"]


def tree_of(where: str, *, changed: bool = False, inside: list[str] | None = None) -> Tree:
    """What a folder has, after changes if they are asked for."""
    command = [*(inside or []), sys.executable, trees.__file__, where, *(["change"] if changed else [])]
    found: Tree = json.loads(tool(*command))
    return found


def tree_in(catalog: Catalog, name: str) -> Tree:
    """What an image of the store has."""
    lowers = [f"layers/{identity}/root" for identity in catalog.store.image_layers(catalog.find(name))]
    with os.fdopen(os.memfd_create("merged"), "w+b") as output:
        catalog.workshop.ask("merge", [output.fileno()], lowers=lowers, epoch=None, compression="none")
        output.seek(0)
        return trees.of_tar(output.read())


def facts_of(catalog: Catalog, name: str) -> tuple[list[str], dict[str, Any]]:
    """Diff ids and settings of an image."""
    shown = upkeep.inspect(catalog, name)
    return shown["RootFS"]["diff_ids"], given(shown["Config"])


def given(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that say something; each tool fills in nothings of its own."""
    return {key: settings[key] for key in SETTINGS if settings.get(key)}


def test_an_image_of_ours_has_the_tree_that_it_was_made_of(catalog: Catalog, written: str, expected: Tree) -> None:
    assert tree_in(catalog, written) == expected


# umoci


@pytest.mark.requires("umoci", "root")
def test_umoci_reads_ours(catalog: Catalog, written: str, expected: Tree, tmp_path: Path) -> None:
    archives.save(catalog, [written], f"{tmp_path}/layout", "oci-dir")
    tool("umoci", "unpack", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle")
    assert tree_of(f"{tmp_path}/bundle/rootfs") == expected


@pytest.mark.requires("umoci", "root")
def test_umoci_writes_and_we_read(catalog: Catalog, base: str, other: Catalog, tmp_path: Path) -> None:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    archives.save(catalog, [base], str(layout), "oci-dir")
    tool("umoci", "unpack", "--image", f"{layout}:1", bundle)
    after = tree_of(f"{bundle}/rootfs", changed=True)
    tool("umoci", "repack", "--image", f"{layout}:changed", bundle)
    config, digest = config_in(layout, "changed")
    archives.load(other, str(layout))
    assert tree_in(other, digest) == after
    assert facts_of(other, digest) == config


# buildah and podman

LOST = ("system.",)
"""attributes that these do not copy: lists of who may access"""


@pytest.fixture(scope="module")
def builder() -> Iterator[list[str]]:
    """buildah with a storage of its own."""
    with storage("buildah") as folder:
        yield [*within("buildah"), "buildah", "--root", f"{folder}/root", "--runroot", f"{folder}/run", *VFS]


@pytest.mark.requires("buildah", "userns")
@pytest.mark.parametrize("form", archives.FORMATS)
def test_buildah_reads_ours(
    catalog: Catalog, written: str, expected: Tree, builder: list[str], tmp_path: Path, form: archives.Format
) -> None:
    archives.save(catalog, [written], f"{tmp_path}/saved", form)
    container = tool(*builder, "from", "-q", source(form, tmp_path / "saved", written))
    found = tree_of(tool(*builder, "mount", container), inside=within("buildah"))
    assert found == trees.without_attributes(expected, *LOST)
    document = json.loads(tool(*builder, "inspect", container))["OCIv1"]
    assert (document["rootfs"]["diff_ids"], given(document["config"])) == facts_of(catalog, written)
    tool(*builder, "rm", container)


@pytest.mark.requires("buildah", "userns")
def test_buildah_writes_and_we_read(
    catalog: Catalog, base: str, builder: list[str], fresh: Callable[[], Catalog], tmp_path: Path
) -> None:
    archives.save(catalog, [base], f"{tmp_path}/saved", "oci-archive")
    container = tool(*builder, "from", "-q", source("oci-archive", tmp_path / "saved", base))
    after = tree_of(tool(*builder, "mount", container), changed=True, inside=within("buildah"))
    tool(*builder, "commit", "-q", "--rm", container, "changed:1")
    document = json.loads(tool(*builder, "inspect", "--type", "image", "changed:1"))["OCIv1"]
    for form in archives.FORMATS:
        target = source(form, tmp_path / f"theirs-{form}", "changed:1")
        tool(*builder, "push", "-q", "changed:1", target)
        other = fresh()
        (image,) = archives.load(other, f"{tmp_path}/theirs-{form}", ["theirs"])
        assert tree_in(other, image.id) == trees.without_attributes(after, *LOST)
        assert facts_of(other, image.id) == (document["rootfs"]["diff_ids"], given(document["config"]))


@pytest.fixture(scope="module")
def pod() -> Iterator[Peer]:
    """podman with a storage of its own."""
    with podman(*VFS) as peer:
        yield Peer(*within("podman"), *peer.command)


@pytest.mark.requires("podman", "userns")
@pytest.mark.parametrize("form", archives.FORMATS)
def test_podman_reads_ours(
    catalog: Catalog, written: str, expected: Tree, pod: Peer, tmp_path: Path, form: archives.Format
) -> None:
    archives.save(catalog, [written], f"{tmp_path}/saved", form)
    identity = pod.run("load", "-q", "-i", tmp_path / "saved").rpartition(":")[2].rpartition("@")[2]
    name = identity if len(identity) == 64 else "localhost/written:1"
    assert tree_of(pod.run("image", "mount", name), inside=within("podman")) == expected
    (shown,) = json.loads(pod.run("image", "inspect", name))
    assert (shown["RootFS"]["Layers"], given(shown["Config"])) == facts_of(catalog, written)
    pod.run("image", "umount", "-a")


@pytest.mark.requires("podman", "userns")
def test_podman_writes_and_we_read(
    catalog: Catalog, base: str, pod: Peer, fresh: Callable[[], Catalog], tmp_path: Path
) -> None:
    archives.save(catalog, [base], f"{tmp_path}/saved", "docker-archive")
    pod.run("load", "-q", "-i", tmp_path / "saved")
    container = pod.run("create", "--ulimit", "nofile=1024:1024", "localhost/base:1")
    after = tree_of(pod.run("mount", container), changed=True, inside=within("podman"))
    pod.run("commit", "-q", container, "localhost/changed:1")
    pod.run("rm", container)
    (shown,) = json.loads(pod.run("image", "inspect", "localhost/changed:1"))
    for form in archives.FORMATS:
        pod.run("save", "-q", "--format", form, "-o", tmp_path / f"theirs-{form}", "localhost/changed:1")
        other = fresh()
        (image,) = archives.load(other, f"{tmp_path}/theirs-{form}")
        assert tree_in(other, image.id) == trees.without_attributes(after, *LOST)
        assert facts_of(other, image.id) == (shown["RootFS"]["Layers"], given(shown["Config"]))


# docker

DOCKERS_OWN = ("dev", "proc", "sys", "etc", ".dockerenv")
"""what it puts into each container"""


@pytest.fixture(scope="module")
def engine_of_docker() -> Iterator[Peer]:
    """A Docker engine, whose images and containers are plain folders."""
    with docker(*VFS) as peer:
        yield peer


def folder_of_docker(peer: Peer, kind: str, identity: str) -> str:
    """Where the engine keeps the files of an image (by the chain id of its layers), or of a container."""
    root = Path(peer.run("info", "--format", "{{.DockerRootDir}}"))
    name = "cache-id" if kind == "sha256" else "mount-id"
    return f"{root}/vfs/dir/{(root / 'image/vfs/layerdb' / kind / identity / name).read_text()}"


def chain_id(diff_ids: list[str]) -> str:
    """What a stack of layers is called (config.md, "Layer ChainID")."""
    chain, *above = diff_ids
    for diff_id in above:
        chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}"
    return chain.removeprefix("sha256:")


@pytest.mark.requires("dockerd", "root")
def test_docker_reads_ours(
    catalog: Catalog, written: str, expected: Tree, engine_of_docker: Peer, tmp_path: Path
) -> None:
    archives.save(catalog, [written], f"{tmp_path}/saved", "docker-archive")
    engine_of_docker.run("load", "-q", "-i", tmp_path / "saved")
    (shown,) = json.loads(engine_of_docker.run("image", "inspect", written))
    assert (shown["RootFS"]["Layers"], given(shown["Config"])) == facts_of(catalog, written)
    assert shown["Id"] == catalog.find(written)["config"]
    assert tree_of(folder_of_docker(engine_of_docker, "sha256", chain_id(shown["RootFS"]["Layers"]))) == expected


@pytest.mark.requires("dockerd", "docker-registry", "root")
def test_docker_pulls_ours_and_we_pull_dockers(
    catalog: Catalog, written: str, base: str, engine_of_docker: Peer, fresh: Callable[[], Catalog], tmp_path: Path
) -> None:
    """Through a registry and by an archive."""
    peer = engine_of_docker
    registry = Registry(tmp_path, secure=False)
    try:
        name = f"{registry.host}/both/ways"
        transfer.push(catalog, written, f"{name}:ours")
        transfer.push(catalog, base, f"{name}:base")
        peer.run("pull", "-q", f"{name}:ours")
        (shown,) = json.loads(peer.run("image", "inspect", f"{name}:ours"))
        assert (shown["RootFS"]["Layers"], given(shown["Config"])) == facts_of(catalog, written)
        peer.run("pull", "-q", f"{name}:base")
        container = peer.run("create", f"{name}:base")
        after = tree_of(folder_of_docker(peer, "mounts", container), changed=True)
        peer.run("commit", container, f"{name}:theirs")
        peer.run("rm", "-v", container)
        peer.run("push", "-q", f"{name}:theirs")
        peer.run("save", "-o", tmp_path / "theirs", f"{name}:theirs")
        (shown,) = json.loads(peer.run("image", "inspect", f"{name}:theirs"))
        loaded, pulled = fresh(), fresh()
        archives.load(loaded, f"{tmp_path}/theirs")
        transfer.pull(pulled, f"{name}:theirs")
        for other in (loaded, pulled):
            assert facts_of(other, f"{name}:theirs") == (shown["RootFS"]["Layers"], given(shown["Config"]))
            found = trees.without(tree_in(other, f"{name}:theirs"), *DOCKERS_OWN)
            assert found == trees.without(trees.without_attributes(after, "user.", "system."), *DOCKERS_OWN)
            assert other.get(f"{name}:theirs").id == shown["Id"].removeprefix("sha256:")
    finally:
        registry.stop()
