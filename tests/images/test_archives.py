"""Archives: written for other tools and read from them, the same images whichever way."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import HullError, InvalidInput, NotFound
from nbhull.runtime.images import archives, documents, upkeep
from nbhull.runtime.images.blobs import digest_of
from nbhull.runtime.images.catalog import Catalog
from support.boxes import Box
from support.stores import delete_tree
from support.tars import archive, entry, file, folder, hard_link, pieces, small_root, symlink

pytestmark = [pytest.mark.nosubuid, pytest.mark.requires("busybox")]

SETTINGS = {
    "Env": ["GREETING=hello", "PATH=/bin:/usr/bin"],
    "Entrypoint": ["sh", "-c"],
    "Cmd": ["echo $GREETING"],
    "WorkingDir": "/srv/work",
    "Labels": {"of": "tests"},
    "StopSignal": "SIGQUIT",
}
CHANGES = archive(
    folder("srv"),
    folder("srv/deep", mode=0o750, mtime=981173106),
    file("srv/deep/file", b"x" * 3000, mode=0o4755, mtime=981173107),
    hard_link("srv/hard", "srv/deep/file"),
    symlink("srv/soft", "deep/file"),
    entry("srv/fifo", tarfile.FIFOTYPE, mode=0o600),
    file("srv/" + "n" * 150, b"long", pax_headers={"SCHILY.xattr.user.colour": "blue"}),
    folder("home"),
    file("home/.wh.me", b""),
)


@pytest.fixture(scope="module")
def made(catalog: Catalog) -> Iterator[str]:
    """The name of an image of two layers, with one of everything."""
    below = catalog.layers.ingest(pieces(small_root()))
    above = catalog.layers.ingest(pieces(CHANGES))
    config = documents.make_config(SETTINGS, [below.diff_id or "", above.diff_id or ""], [], "2001-02-03T00:00:00Z")
    catalog.register(config, [below.id, above.id], ["made:1"])
    yield "made:1"
    upkeep.remove(catalog, "made:1")


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Catalog]:
    """The images of another, empty store."""
    with Engine(tmp_path / "other-store") as engine:
        yield engine.catalog
        for container in engine.containers():
            engine.remove(container.id, force=True)
    delete_tree(tmp_path / "other-store")


def tool(*argv: str | Path) -> str:
    """What a program that must succeed writes."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def saved(catalog: Catalog, name: str, path: Path, form: archives.Format) -> str:
    archives.save(catalog, [name], str(path), form)
    return str(path)


@pytest.mark.parametrize("form", archives.FORMATS)
def test_what_was_saved_is_loaded_as_the_same_image(
    catalog: Catalog, made: str, other: Catalog, tmp_path: Path, form: archives.Format
) -> None:
    path = saved(catalog, made, tmp_path / "saved", form)
    (image,) = archives.load(other, path)
    assert image.id == catalog.get(made).id
    assert image.name == made
    here, there = (upkeep.inspect(c, made) for c in (catalog, other))
    assert here["Config"] == there["Config"] == SETTINGS
    assert here["RootFS"] == there["RootFS"]


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_the_same_image_gives_the_same_bytes(
    catalog: Catalog, made: str, other: Catalog, tmp_path: Path, form: archives.Format
) -> None:
    first = Path(saved(catalog, made, tmp_path / "first", form))
    archives.load(other, str(first))
    assert Path(saved(other, made, tmp_path / "second", form)).read_bytes() == first.read_bytes()


def test_the_same_files_give_the_same_image_in_another_store(
    catalog: Catalog, other: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    for one in (catalog, other):
        one.import_root(pieces(small_root()), ["same"], SETTINGS)
    saves = [Path(saved(one, "same", tmp_path / f"{n}", "oci-archive")) for n, one in enumerate((catalog, other))]
    upkeep.remove(catalog, "same")
    assert saves[0].read_bytes() == saves[1].read_bytes()


@pytest.mark.requires("skopeo")
@pytest.mark.parametrize("form", ["oci-archive", "oci-dir", "docker-archive"])
def test_skopeo_reads_and_writes_the_same(
    catalog: Catalog, made: str, other: Catalog, tmp_path: Path, form: archives.Format
) -> None:
    path = saved(catalog, made, tmp_path / "saved", form)
    source = f"{'oci' if form == 'oci-dir' else form}:{path}"
    config = json.loads(tool("skopeo", "inspect", "--config", source))
    assert config["rootfs"]["diff_ids"] == upkeep.inspect(catalog, made)["RootFS"]["diff_ids"]
    back = f"docker-archive:{tmp_path}/back:back:2" if form != "docker-archive" else f"oci-archive:{tmp_path}/back"
    tool("skopeo", "copy", "-q", source, back)
    (image,) = archives.load(other, f"{tmp_path}/back", ["back:2"])
    assert upkeep.inspect(other, "back:2")["RootFS"] == upkeep.inspect(catalog, made)["RootFS"]
    assert other.config(other.find(image.id)).settings() == catalog.config(catalog.find(made)).settings()


def described(root: Path) -> dict[str, tuple[Any, ...]]:
    """What a tree consists of."""
    found: dict[str, tuple[Any, ...]] = {}
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent, name)
            status = path.lstat()
            colour = (
                () if path.is_symlink() or path.is_fifo() else tuple(x for x in os.listxattr(path) if "colour" in x)
            )
            link = os.readlink(path) if path.is_symlink() else ""
            size = status.st_size if path.is_file() and not link else 0
            count = status.st_nlink if not path.is_dir() else 0
            found[str(path.relative_to(root))] = (status.st_mode, int(status.st_mtime), size, count, link, colour)
    return found


@pytest.mark.requires("umoci")
def test_umoci_unpacks_the_same_tree_and_what_it_packs_runs(
    catalog: Catalog, made: str, other: Catalog, tmp_path: Path
) -> None:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    archives.save(catalog, [made], str(layout), "oci-dir")
    rootless = [] if os.getuid() == 0 else ["--rootless"]
    tool("umoci", "unpack", *rootless, "--image", f"{layout}:1", bundle)
    tree = described(bundle / "rootfs")
    assert "home/me" not in tree
    with tarfile.open(fileobj=io.BytesIO(CHANGES)) as tar:
        for member in tar:
            if ".wh." in member.name or member.islnk():
                continue
            mode, mtime, size, _, link, _ = tree[member.name]
            assert (mode & 0o7777, mtime) == (member.mode if not member.issym() else 0o777, member.mtime), member.name
            assert size == (member.size if member.isfile() else 0)
            assert link == member.linkname
    assert tree["srv/hard"][3] == 2
    assert tree["srv/" + "n" * 150][5] == ("user.colour",)
    (bundle / "rootfs/srv/new").write_text("new")
    (bundle / "rootfs/srv/deep/file").unlink()
    (bundle / "rootfs/srv/hard").unlink()
    tool("umoci", "repack", "--image", f"{layout}:2", bundle)
    images = archives.load(other, str(layout), ["repacked"])
    assert len(images) == 2
    config = other.config(other.find("repacked"))
    assert len(config.diff_ids) == 3


@pytest.mark.requires("umoci")
def test_a_layer_of_umoci_changes_what_it_should(
    shared_engine: Engine, catalog: Catalog, made: str, tmp_path: Path, make_box: Callable[..., Box]
) -> None:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    archives.save(catalog, [made], str(layout), "oci-dir")
    rootless = [] if os.getuid() == 0 else ["--rootless"]
    tool("umoci", "unpack", *rootless, "--image", f"{layout}:1", bundle)
    (bundle / "rootfs/srv/new").write_text("new")
    (bundle / "rootfs/srv/soft").unlink()
    tool("umoci", "repack", "--image", f"{layout}:1", bundle)
    archives.load(catalog, str(layout), ["from-umoci"])
    box = make_box(image="from-umoci")
    assert box.out("cat /srv/new; echo; ls /srv | grep -v nnn; stat -c %a /srv/deep/file").split() == [
        "new", "deep", "fifo", "hard", "new", "work", "4755",
    ]  # fmt: skip
    shared_engine.remove(box.id, force=True)
    upkeep.remove(catalog, "from-umoci")
    with pytest.raises(NotFound):
        catalog.get("from-umoci")


@pytest.mark.requires("podman", "root")
def test_podman_loads_and_saves_the_same(catalog: Catalog, made: str, other: Catalog, tmp_path: Path) -> None:
    runroot = tempfile.mkdtemp(prefix="p", dir="/tmp")  # podman wants a short path
    podman = ["podman", "--root", f"{tmp_path}/p", "--runroot", runroot, "--storage-driver", "vfs"]
    podman += ["--cgroup-manager", "cgroupfs", "--runtime", "runc"]
    wanted = upkeep.inspect(catalog, made)
    for form in ("oci-archive", "docker-archive"):
        path = saved(catalog, made, tmp_path / form, form)
        identity = tool(*podman, "load", "-q", "-i", path).strip().rpartition(":")[2]
        shown = json.loads(tool(*podman, "image", "inspect", identity if len(identity) == 64 else "localhost/made:1"))[
            0
        ]
        assert shown["RootFS"]["Layers"] == wanted["RootFS"]["diff_ids"]
        assert shown["Config"]["Entrypoint"] == SETTINGS["Entrypoint"]
    tool(*podman, "save", "-q", "--format", "docker-archive", "-o", f"{tmp_path}/saved", "localhost/made:1")
    archives.load(other, f"{tmp_path}/saved", ["back"])
    assert upkeep.inspect(other, "back")["RootFS"] == wanted["RootFS"]
    tool(*podman, "rmi", "-af")
    shutil.rmtree(runroot)


# What hostile or broken archives try


def layout(changes: dict[str, Any]) -> dict[str, bytes]:
    """The files of an image layout with parts of it changed."""
    layer = archive(file("a"))
    config = documents.canonical(documents.make_config({}, [digest_of(layer)], [], "2001-02-03T00:00:00Z"))
    config = changes.get("config", config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": documents.OCI_MANIFEST,
        "config": {"mediaType": documents.OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": documents.OCI_LAYER, "digest": digest_of(layer), "size": len(layer)}],
    }
    data = json.dumps({**manifest, **changes.get("manifest", {})}).encode()
    entry = {
        "mediaType": documents.OCI_MANIFEST,
        "digest": digest_of(data),
        "size": len(data),
        **changes.get("entry", {}),
    }
    index = {"schemaVersion": 2, "manifests": [entry], **changes.get("index", {})}
    blobs = {f"blobs/sha256/{digest_of(b)[7:]}": b for b in (layer, config, data)}
    return {
        "oci-layout": archives.LAYOUT,
        "index.json": json.dumps(index).encode(),
        **blobs,
        **changes.get("files", {}),
    }


def packed(files: dict[str, bytes]) -> bytes:
    return archive(*(file(name, data) for name, data in files.items()))


WRONG = f"sha256:{'0' * 64}"
BROKEN: dict[str, bytes] = {
    "another digest of the manifest": packed(layout({"entry": {"digest": WRONG}})),
    "another size of the manifest": packed(layout({"entry": {"size": 5}})),
    "a negative size": packed(layout({"entry": {"size": -5}})),
    "a digest that climbs": packed(layout({"entry": {"digest": "sha256:../../../etc/passwd"}})),
    "manifest and index in one": packed(layout({"manifest": {"manifests": []}})),
    "a manifest that says index": packed(layout({"manifest": {"mediaType": documents.OCI_INDEX}})),
    "layers of an unknown type": packed(
        layout({"manifest": {"layers": [{"mediaType": "x", "digest": WRONG, "size": 1}]}})
    ),
    "more layers than digests": packed(layout({"manifest": {"layers": []}})),
    "no images": packed(layout({"index": {"manifests": []}})),
    "images without end": packed(layout({"index": {"manifests": [{}] * 2000}})),
    "no JSON": packed(layout({"files": {"index.json": b"{"}})),
    "deep JSON": packed(layout({"files": {"index.json": b"[" * 100_000}})),
    "a list": packed(layout({"files": {"index.json": b"[]"}})),
    "a configuration of nothing": packed(layout({"config": b"{}"})),
    "an environment of lists": packed(
        layout({"config": json.dumps({"rootfs": {"diff_ids": [WRONG]}, "config": {"Env": [["a"]]}}).encode()})
    ),
    "another plain digest": packed(layout({"config": json.dumps({"rootfs": {"diff_ids": [WRONG]}}).encode()})),
    "no archive of images": archive(file("a")),
    "cut off": packed(layout({}))[:2000],
    "a link out of a docker-archive": archive(symlink("manifest.json", "/etc/passwd")),
    "a docker-archive of nothing": archive(file("manifest.json", b"[]")),
    "a docker-archive without its files": archive(
        file("manifest.json", b'[{"Config": "../../etc/passwd", "Layers": []}]')
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_archives_are_refused(
    catalog: Catalog, small: str, nothing_left: None, tmp_path: Path, what: str
) -> None:
    path = tmp_path / "broken"
    path.write_bytes(BROKEN[what])
    before = [image.id for image in catalog_images(catalog)]
    with pytest.raises(HullError):
        archives.load(catalog, str(path))
    assert [image.id for image in catalog_images(catalog)] == before


def catalog_images(catalog: Catalog) -> list[Any]:
    return [catalog.get(row["id"]) for row in catalog.store.query("select id from images order by id")]


def test_the_image_for_this_machine_is_chosen(other: Catalog, tmp_path: Path) -> None:
    files = layout({})
    manifest = json.loads(files["index.json"])["manifests"][0]
    architecture, _ = documents.machine()
    foreign = {**manifest, "digest": WRONG, "platform": {"os": "linux", "architecture": "s390x"}}
    own = {**manifest, "platform": {"os": "linux", "architecture": architecture}}
    inner = json.dumps({"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": [foreign, own]}).encode()
    outer = {"mediaType": documents.OCI_INDEX, "digest": digest_of(inner), "size": len(inner)}
    files[f"blobs/sha256/{digest_of(inner)[7:]}"] = inner
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [outer]}).encode()
    path = tmp_path / "several"
    path.write_bytes(packed(files))
    (image,) = archives.load(other, str(path), ["own"])
    assert other.get("own").id == image.id
    inner = json.dumps({"schemaVersion": 2, "manifests": [foreign]}).encode()
    with pytest.raises(NotFound, match="no image for linux"):
        documents.choose(documents.parse_manifest(inner), "it")  # type: ignore[arg-type]


def test_an_image_that_stands_on_this_machine_is_not_saved(
    shared_engine: Engine, make_box: Callable[..., Box], tmp_path: Path
) -> None:
    box = make_box()
    shared_engine.snapshot(box.id, "of-host")
    with pytest.raises(HullError, match="this machine's own system"):
        archives.save(shared_engine.catalog, ["of-host"], str(tmp_path / "x"))
    with pytest.raises(InvalidInput, match="this machine itself"):
        archives.save(shared_engine.catalog, ["host"], str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []
    shared_engine.remove(box.id, force=True)
    upkeep.remove(shared_engine.catalog, "of-host")
