"""Layers: tar to folder and back, whiteouts, and what hostile archives try."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime.errors import HullError, InvalidInput
from nbhull.runtime.images import compression, layers
from nbhull.runtime.images.catalog import Catalog
from nbhull.runtime.images.documents import make_config
from support.boxes import Box
from support.tars import Entry, archive, entry, file, folder, hard_link, pieces, symlink

pytestmark = [pytest.mark.nosubuid, pytest.mark.requires("busybox")]

Make = Callable[[bytes], str]
FAR = "2001-02-03"


def image(catalog: Catalog, *layers: str, **settings: object) -> str:
    """An image of layers, the lowest first."""
    below = reversed(catalog.store.image_layers(catalog.store.find("images", "small", "image")))
    return catalog.register(make_config(settings, [], [], f"{FAR}T00:00:00Z"), [*below, *layers]).id


TREE = archive(
    folder("srv", mode=0o2775),
    folder("srv/deep", mode=0o700, mtime=981173106),
    file("srv/deep/file", b"x" * 300_000, mode=0o4751, mtime=981173106),
    hard_link("srv/hard", "srv/deep/file"),
    symlink("srv/soft", "deep/file"),
    symlink("srv/out", "/etc/passwd"),
    entry("srv/fifo", tarfile.FIFOTYPE),
    file("srv/" + "n" * 200 + "/" + "ü" * 40, b"long"),
    file("srv/attributes", b"a", pax_headers={"SCHILY.xattr.user.colour": "blue"}),
)
DESCRIBE = (
    "cd /srv && find . | sort | while read f; do stat -c '%n %f %u %g %Y %h' \"$f\"; done; "
    "readlink soft; readlink out; id"
)


def test_a_tree_comes_out_as_it_went_in(
    catalog: Catalog, small: str, layer_of: Make, make_box: Callable[..., Box]
) -> None:
    box = make_box(image=image(catalog, layer_of(TREE)))
    lines = box.out(DESCRIBE).splitlines()
    shown = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("./")}
    assert shown["./deep"][0] == f"{0o40700:x}"
    assert shown["./deep/file"][0] == f"{0o104751:x}"
    assert shown["./deep"][3] == shown["./deep/file"][3] == "981173106"
    assert shown["./hard"][4] == "2"
    assert shown["./fifo"][0].startswith("1")
    assert any("ü" * 40 in name for name in shown)
    assert lines[-3:-1] == ["deep/file", "/etc/passwd"]


def test_the_same_files_give_the_same_digest_whatever_their_order_was(
    catalog: Catalog, small: str, layer_of: Make
) -> None:
    one = catalog.layers.packed(layer_of(archive(folder("a"), file("a/b"), file("c", b"cc"))))
    plain = archive(file("c", b"cc"), folder("a"), file("a/b"))
    ingested = catalog.layers.ingest_root(pieces(plain))
    other = catalog.layers.packed(ingested.id)
    catalog.layers.remove(ingested.id)
    with catalog.blobs.open(other.blob or "") as blob:
        repacked = catalog.layers.ingest_root(pieces(gzip.decompress(blob.read())))
    again = catalog.layers.packed(repacked.id)
    catalog.layers.remove(repacked.id)
    assert other.diff_id == again.diff_id
    assert other.blob == again.blob
    assert one.diff_id != other.diff_id  # a tar that came as a layer stays as it came


def test_extended_attributes_and_odd_names_survive_a_round_trip(catalog: Catalog, small: str, layer_of: Make) -> None:
    first = catalog.layers.ingest_root(pieces(TREE))
    blob = catalog.layers.packed(first.id).blob
    catalog.layers.remove(first.id)
    assert blob
    with catalog.blobs.open(blob) as opened:
        data = gzip.decompress(opened.read())
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: member for member in tar}
    assert members["srv/attributes"].pax_headers["SCHILY.xattr.user.colour"] == "blue"
    assert "srv/" + "n" * 200 + "/" + "ü" * 40 in members
    assert members["srv/hard"].islnk()
    assert members["srv/hard"].linkname == "srv/deep/file"
    assert members["srv/fifo"].isfifo()
    assert list(members) == sorted(members, key=lambda name: name.split("/"))


def test_whiteouts_delete_what_lies_below_and_come_back_as_whiteouts(
    catalog: Catalog, small: str, layer_of: Make, make_box: Callable[..., Box]
) -> None:
    below = layer_of(archive(folder("d"), file("d/one"), file("d/two"), folder("e"), file("e/old"), file("gone")))
    above = layer_of(
        archive(
            folder("d"),
            file("d/.wh.one", b""),
            file(".wh.gone", b""),
            folder("e"),
            file("e/.wh..wh..opq", b""),
            file("e/new"),
        )
    )
    name = image(catalog, below, above)
    box = make_box(image=name)
    assert box.out("ls /d /e; test -e /gone || echo gone").split() == ["/d:", "two", "/e:", "new", "gone"]
    catalog.store.query("update layers set blob = null, diff_id = null where id = ?", above)
    blob = catalog.layers.packed(above).blob
    assert blob
    with catalog.blobs.open(blob) as opened, tarfile.open(fileobj=io.BytesIO(gzip.decompress(opened.read()))) as tar:
        assert tar.getnames() == ["d", "d/.wh.one", "e", "e/.wh..wh..opq", "e/new", ".wh.gone"]


@pytest.mark.parametrize("first", ["whiteout", "content"])
def test_a_whiteout_leaves_what_its_own_layer_has(
    catalog: Catalog, small: str, layer_of: Make, make_box: Callable[..., Box], first: str
) -> None:
    below = layer_of(archive(folder("d"), file("d/old"), file("f", b"old"), file("g")))
    whiteouts: list[Entry] = [file(".wh.d", b""), file(".wh.f", b""), file(".wh.g", b"")]
    content: list[Entry] = [folder("d"), file("d/new"), file("f", b"new"), file("g/implied")]
    above = layer_of(archive(*([*whiteouts, *content] if first == "whiteout" else [*content, *whiteouts])))
    box = make_box(image=image(catalog, below, above))
    assert box.out("ls /d; cat /f; echo; ls /g").split() == ["new", "new", "implied"]


@pytest.mark.parametrize("first", ["whiteout", "content"])
def test_a_whiteout_below_a_file_of_its_own_layer_deletes_nothing(
    catalog: Catalog, small: str, layer_of: Make, make_box: Callable[..., Box], first: str
) -> None:
    below = layer_of(archive(folder("d"), file("d/old")))
    order = 1 if first == "content" else -1
    above = layer_of(archive(*[file("d", b"a file"), file("d/.wh.old", b"")][::order]))
    assert make_box(image=image(catalog, below, above)).out("cat /d") == "a file"


def test_later_entries_replace_earlier_ones(
    catalog: Catalog, small: str, layer_of: Make, make_box: Callable[..., Box]
) -> None:
    layer = layer_of(
        archive(
            folder("a"),
            file("a/inside"),
            file("a", b"file"),
            file("b", b"file"),
            folder("b"),
            file("b/inside"),
            symlink("c", "b"),
            file("c", b"no link"),
            folder("e", mode=0o700),
            folder("e", mode=0o711),
        )
    )
    box = make_box(image=image(catalog, layer))
    assert box.out("cat /a; echo; cat /c; echo; ls /b; stat -c %a /e").split("\n") == [
        "file",
        "no link",
        "inside",
        "711",
    ]


def test_links_on_the_way_stay_inside(
    catalog: Catalog, small: str, layer_of: Make, make_box: Callable[..., Box], tmp_path: Path
) -> None:
    layer = layer_of(
        archive(
            folder("usr/lib"), symlink("lib", "usr/lib"), file("lib/x", b"x"),
            symlink("abs", str(tmp_path)), folder(str(tmp_path)), file("abs/y", b"y"),
            symlink("up", "../../../../../../.."), file("up/z", b"z"),
        )
    )  # fmt: skip
    box = make_box(image=image(catalog, layer))
    assert box.out(f"cat /usr/lib/x {tmp_path}/y /z") == "xyz"
    assert list(tmp_path.iterdir()) == []


HOSTILE: dict[str, bytes] = {
    "climbing": archive(file("../evil")),
    "climbing inside": archive(folder("a"), file("a/../../evil")),
    "link out by absolute name": archive(symlink("l", "/nonexistent-place"), file("l/evil")),
    "root as a link": archive(symlink(".", "/tmp")),
    "root as a file": archive((entry(".", tarfile.REGTYPE), b"x")),
    "hard link out": archive(hard_link("evil", "/etc/passwd")),
    "hard link out by climbing": archive(hard_link("evil", "../../../../etc/passwd")),
    "hard link through a link": archive(symlink("l", "/etc"), hard_link("evil", "l/passwd")),
    "hard link to a folder": archive(folder("d"), hard_link("evil", "d")),
    "hard link to itself": archive(hard_link("evil", "evil")),
    "bare whiteout": archive(file(".wh.", b"")),
    "whiteout of what is above": archive(folder("a"), file("a/.wh...", b"")),
    "whiteout of itself": archive(folder("a"), file("a/.wh..", b"")),
    "file as folder": archive(file("a"), file("a/b")),
    "link loop": archive(symlink("a", "b"), symlink("b", "a"), file("a/x")),
    "name too long": archive(file("a" * 300)),
    "path too long": archive(file("/".join(["a" * 200] * 30))),
    "cut off in data": archive(file("a", b"x" * 5000))[:3000],
    "cut off in a header": archive(file("a"), file("b"))[:1300],
    "no tar": b"hello " * 1000,
    "checksum": archive(file("a")).replace(b"a\0", b"b\0", 1),
    "gzip cut off": gzip.compress(archive(file("a", os.urandom(5000))))[:-100],
    "gzip damaged": gzip.compress(archive(file("a", os.urandom(5000))))[:-8] + b"12345678",
    "sparse": archive(entry("a", tarfile.GNUTYPE_SPARSE)),
    "unknown type": archive(entry("a", b"Z")),
    "pax without end": archive(file("a", pax_headers={"path": "x" * 2_000_000})),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_are_refused(catalog: Catalog, small: str, nothing_left: None, what: str) -> None:
    with pytest.raises(InvalidInput):
        catalog.layers.ingest(pieces(HOSTILE[what]))


def raw_header(**fields: bytes) -> bytes:
    """A header with fields as given."""
    places = {"name": 0, "mode": 100, "uid": 108, "gid": 116, "size": 124, "mtime": 136, "type": 156}
    block = bytearray(archive(file("a", b""))[:512])
    for key, value in fields.items():
        block[places[key] : places[key] + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "header",
    [
        raw_header(size=b"\xff" * 12),
        raw_header(size=b"\x80" + b"\xff" * 11),
        raw_header(size=b"99999999999\0"),
        raw_header(size=b"-0000000001\0"),
        raw_header(uid=b"\xff" * 8),
        raw_header(size=b"77777777777\0"),
        raw_header(type=b"x", size=b"77777777777\0"),
        raw_header(type=b"L", size=b"00010000000\0"),
    ],
)
def test_impossible_numbers_are_refused(catalog: Catalog, small: str, nothing_left: None, header: bytes) -> None:
    with pytest.raises(InvalidInput):
        catalog.layers.ingest(pieces(header + bytes(4096)))


def test_endless_extended_headers_are_refused(catalog: Catalog, small: str, nothing_left: None) -> None:
    with pytest.raises(InvalidInput, match="extended headers"):
        catalog.layers.ingest(pieces((raw_header(type=b"g", size=b"00000001000\0") + b"8 a=bcd\n" * 64) * 100))


def test_a_bomb_is_refused(catalog: Catalog, small: str, nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def bomb() -> bytes:
        compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
        data = compressor.compress(entry("zeros", size=1 << 34).tobuf())
        for _ in range(20):
            data += compressor.compress(bytes(1 << 20))
        return data + compressor.flush()

    monkeypatch.setattr(catalog.layers, "bounds", {"floor": 1 << 20})
    with pytest.raises(InvalidInput, match="attack"):
        catalog.layers.ingest(pieces(bomb()))


def test_digests_are_verified_while_unpacking(catalog: Catalog, small: str, nothing_left: None) -> None:
    tar = gzip.compress(archive(file("a")))
    right, wrong = f"sha256:{hashlib.sha256(tar).hexdigest()}", f"sha256:{'0' * 64}"
    for expected in ({"digest": wrong}, {"digest": right, "diff_id": wrong}, {"digest": right, "size": len(tar) - 1}):
        with pytest.raises(InvalidInput):
            catalog.layers.ingest(pieces(tar), **expected)


def test_what_overlayfs_would_obey_is_not_taken_from_an_archive(
    catalog: Catalog, small: str, layer_of: Make, make_box: Callable[..., Box]
) -> None:
    below = layer_of(archive(folder("d"), file("d/below")))
    evil = {"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.user.overlay.redirect": "/etc"}
    above = layer_of(
        archive(
            folder("d", pax_headers=evil), entry("d/node", tarfile.CHRTYPE), entry("disk", tarfile.BLKTYPE, devmajor=8)
        )
    )
    box = make_box(image=image(catalog, below, above))
    assert box.out("ls /d; test -e /disk || echo none").split() == ["below", "none"]


def test_owners_are_the_containers_own(
    catalog: Catalog, small: str, layer_of: Make, make_box: Callable[..., Box]
) -> None:
    layer = layer_of(archive(file("mine", uid=1000, gid=1005), file("beyond", uid=200_000, gid=3)))
    box = make_box(image=image(catalog, layer))
    can_keep = box.out("chown 1000:1005 /tmp && echo yes || echo no").splitlines()[-1] == "yes"
    assert box.out("stat -c %u:%g /mine") == ("1000:1005" if can_keep else "0:0")
    catalog.store.query("update layers set blob = null, diff_id = null where id = ?", layer)
    blob = catalog.layers.packed(layer).blob
    assert blob
    with catalog.blobs.open(blob) as opened, tarfile.open(fileobj=io.BytesIO(gzip.decompress(opened.read()))) as tar:
        owners = {member.name: (member.uid, member.gid) for member in tar}
    assert owners == {"mine": (1000, 1005), "beyond": (200_000, 3)}


def test_file_capabilities_survive(catalog: Catalog, small: str) -> None:
    value = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0).decode("latin-1")
    with_capability = archive(file("ping", pax_headers={"SCHILY.xattr.security.capability": value}))
    layer = catalog.layers.ingest_root(pieces(with_capability))
    blob = catalog.layers.packed(layer.id).blob
    catalog.layers.remove(layer.id)
    assert blob
    with catalog.blobs.open(blob) as opened, tarfile.open(fileobj=io.BytesIO(gzip.decompress(opened.read()))) as tar:
        assert tar.getmembers()[0].pax_headers["SCHILY.xattr.security.capability"] == value


def test_a_layer_gets_its_row_once_its_files_are_on_the_disk(
    catalog: Catalog, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = archive(file("new", os.urandom(64)))
    diff_id = f"sha256:{hashlib.sha256(tar).hexdigest()}"
    rows = []
    monkeypatch.setattr(layers, "syncfs", lambda fd: rows.append(catalog.layers.with_diff_id(diff_id)))
    assert catalog.layers.ingest(pieces(tar)).diff_id == diff_id
    assert rows == [None]


def test_who_may_pack_without_the_worker_packs_the_same(
    catalog: Catalog, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0).decode("latin-1")
    odd = archive(
        folder("srv", uid=7, gid=8, mode=0o2700),
        file("srv/ping", uid=1000, gid=70_000, mode=0, pax_headers={"SCHILY.xattr.security.capability": value}),
        file("srv/beyond", uid=200_000),
        file("srv/.wh.gone"),
        symlink("srv/out", "/etc/shadow"),
    )
    packed = []
    for through_worker in (catalog.workshop.is_needed_to_read(), True):  # as real root, with and without
        monkeypatch.setattr(catalog.workshop, "is_needed_to_read", lambda needed=through_worker: needed)
        layer = catalog.layers.ingest_root(pieces(odd))
        packed.append(catalog.layers.packed(layer.id))
        catalog.layers.remove(layer.id)
    assert packed[0].diff_id == packed[1].diff_id
    assert packed[0].blob == packed[1].blob


@pytest.mark.parametrize("kind", ["none", "gzip", "zstd"])
def test_compression_is_undone_and_always_the_same(kind: compression.Compression) -> None:
    data = os.urandom(1 << 20) + b"text " * 700_000
    blocks = [data[i : i + compression.PIECE] for i in range(0, len(data), compression.PIECE)]
    one, other = (b"".join(compression.compress(blocks, kind, threads)) for threads in (1, 4))
    assert one == other
    assert b"".join(compression.decompress(io.BytesIO(one).read)) == data
    if kind == "gzip":
        assert gzip.decompress(one) == data


@pytest.mark.parametrize("make", ["bz2", "lzma", "gzip"])
def test_streams_of_other_tools_are_read(make: str) -> None:
    module = __import__(make)
    data = b"some text " * 10_000
    twice = module.compress(data) + module.compress(data)
    assert b"".join(compression.decompress(io.BytesIO(twice).read)) == data + data
    with pytest.raises(HullError):
        b"".join(compression.decompress(io.BytesIO(twice[:-20]).read))


def test_a_container_is_compared_with_its_own_files_of_etc(small: str, make_box: Callable[..., Box]) -> None:
    box = make_box(image=small)
    assert box.engine.diff(box.id).changes == ()
    size = int(box.out("wc -c < /etc/hosts"))
    box.out("echo 192.0.2.1 there >> /etc/hosts; rm /etc/hostname")
    found = {change.path: (change.what, change.old and change.old.size) for change in box.engine.diff(box.id).changes}
    assert found == {"/etc/hosts": ("changed", size), "/etc/hostname": ("deleted", 13)}
