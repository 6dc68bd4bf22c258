"""Attacks by what images are made of: archives, registries, Containerfiles; and on what reads a container's files.

Each attempt names what it is after outside of the container; the last line of each test is that nothing came of it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbhull.runtime.builder.mounts import Secret
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import HullError, InvalidInput, NotFound
from nbhull.runtime.images.documents import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from support.boxes import Box
from support.builds import built
from support.registry import Answers
from support.tars import Entry, archive, entry, file, folder, hard_link, pieces, small_root, symlink

pytestmark = [pytest.mark.nosubuid, pytest.mark.requires("busybox")]


class Victim:
    """Files of the host's at which attempts are aimed, and what they were; open to all, so that nothing but what
    resolves the names stops an attempt."""

    def __init__(self, place: Path) -> None:
        self.folder = place
        place.mkdir()
        place.chmod(0o777)
        self.file = place / "file"
        self.file.write_text("the host's own")
        self.file.chmod(0o666)
        self.before = self.state()

    def state(self) -> list[Any]:
        found: list[Any] = []
        for path in sorted([self.folder.parent, self.folder, *self.folder.rglob("*")]):
            status = path.lstat()
            names = sorted(os.listdir(path)) if stat.S_ISDIR(status.st_mode) and path != self.folder.parent else None
            text = path.read_text() if stat.S_ISREG(status.st_mode) else names
            found.append((str(path), status.st_mode, status.st_uid, status.st_gid, status.st_nlink, text))
        return found


@pytest.fixture
def victim() -> Iterator[Victim]:
    """What must be as it was when a test has ended."""
    with tempfile.TemporaryDirectory(prefix="nbhull-victim-", dir="/var/tmp") as name:
        Path(name).chmod(0o755)
        found = Victim(Path(name, "victim"))
        yield found
        assert found.state() == found.before


@pytest.fixture(scope="module")
def base(shared_engine: Engine) -> Engine:
    """The engine, with an image of busybox alone."""
    shared_engine.catalog.import_root(pieces(gzip.compress(small_root(), 1)), ["attacked"], {"Cmd": ["sh"]})
    return shared_engine


# -- archives ----------------------------------------------------------------------------------


def aimed(at: Path) -> dict[str, tuple[Entry, ...]]:
    """Layers that reach for a folder of the host's with a `file` in it."""
    up = "../" * 24 + str(at).lstrip("/")
    return {
        # CVE-2021-29136, 2025-11395
        "a link named .": (symlink(".", str(at)), file("file", b"owned")),
        "a link named ./": (symlink("./", str(at)), file("./file", b"owned")),
        # CVE-2021-32760, 2025-4517
        "a mode through a link": (symlink("l", f"{at}/file"), entry("l", mode=0o6777)),
        "a mode through a link to a folder": (symlink("l", str(at)), folder("l", mode=0o777)),
        "a mode through a relative link": (symlink("l", f"{up}/file"), entry("l", mode=0o6777)),
        "an owner through a link": (symlink("l", f"{at}/file"), file("l", b"", uid=1000, gid=1000)),
        # CVE-2024-12718, 2025-4330, 2025-4138
        "a hard link out": (hard_link("l", f"{at}/file"), file("l", b"owned")),
        "a hard link up": (hard_link("l", f"{up}/file"), file("l", b"owned")),
        "a hard link through a link": (symlink("d", str(at)), hard_link("l", "d/file"), file("l", b"owned")),
        "a hard link to a link": (symlink("s", f"{at}/file"), hard_link("l", "s"), file("l", b"owned")),
        "an absolute name": (file(f"{at}/file", b"owned"),),
        "a name upwards": (file(f"{up}/file", b"owned"),),
        "a name down and up": (folder("a"), file(f"a/{'../' * 25}{str(at).lstrip('/')}/file", b"owned")),
        "a file through a link": (symlink("d", str(at)), file("d/file", b"owned")),
        "a file through links of links": (
            symlink("a", "b/c"), symlink("b", "."), symlink("c", up), file("a/file", b"owned"),
        ),
        "a link that takes a folder's place": (folder("d"), symlink("d", str(at)), file("d/file", b"owned")),
        "a FIFO in the file's place": (entry(f"{at}/file", tarfile.FIFOTYPE),),
        "a FIFO through a link": (symlink("d", str(at)), entry("d/fifo", tarfile.FIFOTYPE)),
        "a disk's node": (entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=0),),
        "a node of memory": (entry("mem", tarfile.CHRTYPE, devmajor=1, devminor=1),),
        "a node through a link": (symlink("d", str(at)), entry("d/null", tarfile.CHRTYPE, devmajor=1, devminor=3)),
        # whiteouts
        "a bare whiteout": (file(".wh.", b""),),
        "a whiteout of ..": (folder("a"), file("a/.wh...", b"")),
        "a whiteout of .": (folder("a"), file("a/.wh..", b"")),
        "a whiteout that climbs": (file(f"{up}/.wh.file", b""),),
        "a whiteout by an absolute name": (file(f"{at}/.wh.file", b""),),
        "a whiteout through a link": (symlink("d", str(at)), file("d/.wh.file", b"")),
        "an opaque folder through a link": (symlink("d", str(at)), file("d/.wh..wh..opq", b"")),
    }  # fmt: skip


@pytest.mark.parametrize("what", list(aimed(Path("/"))))
def test_no_layer_reaches_out(base: Engine, victim: Victim, what: str) -> None:
    """Refused, or kept within the layer; whichever, a container of it has no device and nothing of the host's."""
    catalog = base.catalog
    try:
        layer = catalog.layers.ingest(pieces(archive(*aimed(victim.folder)[what])))
    except InvalidInput:
        return
    (root,) = Path(base.store.home, "layers", layer.id).glob("root")
    found = [path.lstat() for path in root.rglob("*")]
    devices = [each for each in found if stat.S_ISBLK(each.st_mode) or stat.S_ISCHR(each.st_mode)]
    assert [each for each in devices if each.st_rdev != 0] == []  # 0:0 is a whiteout
    assert victim.file.lstat().st_ino not in {each.st_ino for each in found}
    catalog.layers.remove(layer.id)


def test_accounts_that_are_links_stay_inside(base: Engine, victim: Victim) -> None:
    """CVE-2024-9676, 2026-17106: /etc/passwd leads to a file of the host's, to the kernel's, to itself, or nowhere."""
    one = Box(base, ContainerSpec(image="attacked"))
    try:
        victim.file.write_text("owned:x:4321:4321::/:/bin/sh\n")
        for target in (str(victim.file), f"{'../' * 20}{str(victim.file)[1:]}", "/proc/self/environ", "passwd"):
            one.out(f"rm -f /etc/passwd; ln -s {target} /etc/passwd")
            with pytest.raises(HullError):
                one.run("id -u", user="owned")
            assert one.out("id -u", user="0") == "0"
    finally:
        victim.file.write_text("the host's own")
        base.remove(one.id, force=True)


# -- registries --------------------------------------------------------------------------------


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


LIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a negative size": lambda manifest: manifest["layers"][0].update(size=-1),
    "a size beyond all numbers": lambda manifest: manifest["layers"][0].update(size=1 << 80),
    "a smaller size": lambda manifest: manifest["layers"][0].update(size=manifest["layers"][0]["size"] - 1),
    "a larger size": lambda manifest: manifest["layers"][0].update(size=manifest["layers"][0]["size"] + 1),
    "a size that is text": lambda manifest: manifest["layers"][0].update(size="1"),
    "another digest": lambda manifest: manifest["layers"][0].update(digest="sha256:" + "1" * 64),
    "a digest that is a path": lambda manifest: manifest["layers"][0].update(digest="sha256:../../../../etc/passwd"),
    "a digest of no algorithm": lambda manifest: manifest["layers"][0].update(digest="md5:" + "1" * 32),
    "another configuration": lambda manifest: manifest["config"].update(digest="sha256:" + "1" * 64),
    "an index and a manifest": lambda manifest: manifest.update(manifests=[]),  # CVE-2021-41190
    "a media type of something else": lambda manifest: manifest.update(
        mediaType="application/vnd.oci.image.index.v1+json"
    ),
    "a thousand layers": lambda manifest: manifest.update(layers=manifest["layers"] * 1000),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_registry_that_lies_is_found_out(base: Engine, victim: Victim, lie: str) -> None:
    """Found while it streams; nothing of it becomes an image."""
    tar = archive(file(f"lie-{lie.replace(' ', '-')}"))
    layer = gzip.compress(tar)
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(tar)]}}).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest(config), "size": len(config)},
        "layers": [{"mediaType": f"{OCI_LAYER}+gzip", "digest": digest(layer), "size": len(layer)}],
    }
    LIES[lie](manifest)
    before = {image.id for image in base.images()}
    with contextlib.closing(Answers()) as answers:
        for data in (layer, config):
            for name in (digest(data), "sha256:" + "1" * 64):
                answers.answers["GET", f"/v2/a/b/blobs/{name}"] = 200, {}, data
        text = json.dumps(manifest).encode()
        answers.answers["GET", "/v2/a/b/manifests/1"] = 200, {"Content-Type": OCI_MANIFEST}, text
        with pytest.raises(HullError):
            base.pull(f"{answers.host}/a/b:1")
    assert {image.id for image in base.images()} == before


def test_a_bomb_does_not_fill_the_disk(base: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred thousand times as large unpacked as packed."""
    monkeypatch.setattr(base.catalog.layers, "bounds", {"floor": 1 << 20})
    with pytest.raises(InvalidInput, match="attack"):
        base.catalog.layers.ingest(pieces(gzip.compress(gzip_of_zeros(), 9)))


def gzip_of_zeros() -> bytes:
    header = entry("zeros", size=1 << 26).tobuf()
    return header + bytes(1 << 26) + bytes(1024)


# -- Containerfiles ----------------------------------------------------------------------------


@pytest.fixture
def build(base: Engine, tmp_path: Path) -> Callable[..., Any]:
    """Builds a Containerfile given as text in the folder `context`."""

    def build(text: str, **options: Any) -> Any:
        context = tmp_path / "context"
        context.mkdir(exist_ok=True)
        (context / "Containerfile").write_text(text)
        return built(base, context, **options)

    return build


@pytest.mark.parametrize(
    "step",
    [
        # CVE-2024-1753, 9407, 9675, 11218, 23651, 23652, 23653
        "RUN --mount=type=bind,source={up},target=/in,rw echo owned > /in/file",
        "RUN --mount=type=bind,source=link,target=/in,rw echo owned > /in/file",
        "RUN --mount=type=bind,source=link/file,target=/in,rw echo owned > /in",
        "RUN --mount=type=bind,from=holed,source=/link,target=/in,rw echo owned > /in/file",
        "RUN --mount=type=cache,id=..,target=/in echo owned > /in/file",
        "RUN --mount=type=cache,id={up},target=/in echo owned > /in/file",
        "RUN --mount=type=cache,from=holed,source=/link,target=/in echo owned > /in/file",
        "RUN --mount=type=cache,from=holed,source={up},target=/in echo owned > /in/file",
        "RUN --mount=type=bind,source=.,target={up},rw echo owned > /file",
        "RUN --mount=type=tmpfs,target=/link/new rm -rf /link/file",
        "RUN rm -f /link/file; echo owned > {at}/file",
        "COPY link/file /x",
        "COPY {up}/file /x",
        "COPY --from=holed /link/file /x",
        "COPY Containerfile /link/file",
        "ADD Containerfile {up}/file",
        "WORKDIR /link\nRUN echo owned > file",
    ],
)
def test_no_step_reaches_out(
    build: Callable[..., Any], base: Engine, victim: Victim, tmp_path: Path, step: str
) -> None:
    """Links in the context and in a stage of the build lead to the host's folder; a step is refused, or stays in."""
    up = "../" * 24 + str(victim.folder)[1:]
    (tmp_path / "context").mkdir()
    (tmp_path / "context/link").symlink_to(victim.folder)
    holed = f"FROM attacked AS holed\nRUN ln -s {victim.folder} /link\n"
    last = f"FROM holed\nRUN mkdir -p {victim.folder}\n{step.format(up=up, at=victim.folder)}\n"
    try:
        image = build(holed + last).image
    except HullError:
        return
    one = Box(base, ContainerSpec(image=image.id))
    seen = one.run("cat /x /x/* /in /in/* /link/file 2> /dev/null").stdout
    base.remove(one.id, force=True)
    assert "the host's own" not in seen


HOLDERS = """
import sys
from pathlib import Path
home, needle = sys.argv[1], sys.argv[2].encode()
print([str(path) for path in Path(home).rglob("*") if path.is_file() and needle in path.read_bytes()])
"""
"""prints the files below a folder that hold a text; folders that may not be read are passed over"""


def test_no_secret_stays(build: Callable[..., Any], base: Engine, tmp_path: Path, capfd: Any) -> None:
    """Neither in a layer, nor in the build's cache, the history or a log."""
    needle = f"N33DLE-{os.urandom(8).hex()}"
    (tmp_path / "token").write_text(needle)
    both = "--mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN"
    step = f'RUN {both} test -s /run/secrets/token && test -n "$TOKEN" && echo done > /done'
    image = build(f"FROM attacked\n{step}\n", secrets=(Secret("token", str(tmp_path / "token")),)).image
    base.catalog.completed(base.catalog.find(image.id))
    row = base.catalog.find(image.id)
    assert needle not in json.dumps(base.catalog.config(row).document)
    # by another process: to open and close the index in this one would drop SQLite's locks (howtocorrupt.html)
    search = [sys.executable, "-c", HOLDERS, base.store.home, needle]
    assert subprocess.run(search, stdout=subprocess.PIPE, text=True, check=True).stdout == "[]\n"
    said = capfd.readouterr()
    assert needle not in said.out + said.err


# -- what reads a container's files ------------------------------------------------------------


def test_files_are_read_inside_though_links_are_swapped(base: Engine, victim: Victim) -> None:
    """CVE-2018-15664, 2019-10152, 2026-41567, 2026-42306: a process of the container swaps folders for links while
    the engine reads through them."""
    one = Box(base, ContainerSpec(image="attacked"))
    one.out(f"mkdir /srv /srv/real; echo inside > /srv/real/file; ln -s {victim.folder} /srv/link; ln -s real /srv/now")
    swap = "while :; do ln -sfn link /srv/now; ln -sfn real /srv/now; ln -sfn /proc/1/root /srv/now; done"
    with base.spawn(one.id, ProcessSpec(("sh", "-c", swap))) as swapping:
        seen = set()
        for _ in range(300):
            with contextlib.suppress(HullError):
                seen.add(base.read(one.id, "/srv/now/file"))
            with contextlib.suppress(HullError):
                seen.update(name.encode() for name in base.listdir(one.id, "/srv/now") if name == "victim")
        swapping.signal(9)
        swapping.wait(10)
    base.remove(one.id, force=True)
    assert seen == {b"inside\n"}


@pytest.mark.parametrize("path", ["/proc/1/root/etc/passwd", "/proc/1/cwd", "/proc/1/fd/0", "/proc/self/root", "/fifo"])
def test_what_is_no_file_of_the_containers_is_not_read(base: Engine, path: str) -> None:
    one = Box(base, ContainerSpec(image="attacked"))
    one.out("ln -s /proc/self/environ /environ")
    os.environ["NBHULL_ATTACK"] = "the engine's own"
    try:
        with contextlib.suppress(HullError):
            assert b"the engine's own" not in base.read(one.id, "/environ")
        with pytest.raises((InvalidInput, NotFound, HullError)):
            base.read(one.id, path)
    finally:
        del os.environ["NBHULL_ATTACK"]
        base.remove(one.id, force=True)
