"""Registries that lie: a clear error, nothing kept of it, nothing written elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import HullError, InvalidInput
from nbhull.runtime.images.blobs import LARGEST_DOCUMENT
from nbhull.runtime.images.documents import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from nbhull.runtime.registry.authorization import PARAMETER, Anonymous
from nbhull.runtime.registry.client import Repository
from nbhull.runtime.registry.transport import Transport, is_loopback
from support.registry import Answers
from support.tars import archive, file

NOBODY = Anonymous(Transport("r.example"), None)


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Liar:
    """An honest image, to be made dishonest."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        tar = archive(file("a", b"honest"))
        self.layer = gzip.compress(tar)
        self.config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(tar)]}}).encode()
        self.manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": digest(self.config), "size": len(self.config)},
            "layers": [{"mediaType": f"{OCI_LAYER}+gzip", "digest": digest(self.layer), "size": len(self.layer)}],
        }
        self.serve("layer", digest(self.layer), self.layer)
        self.serve("config", digest(self.config), self.config)

    def serve(self, what: str, name: str, data: bytes) -> None:
        self.answers.answers["GET", f"/v2/a/b/blobs/{name}"] = 200, {}, data

    def pull(self, engine: Engine, reference: str = ":1") -> Any:
        data = json.dumps(self.manifest).encode()
        for tag in ("1", digest(data), "sha256:" + "1" * 64):
            self.answers.answers["GET", f"/v2/a/b/manifests/{tag}"] = 200, {"Content-Type": OCI_MANIFEST}, data
        return engine.pull(f"{self.answers.host}/a/b{reference}")


@pytest.fixture
def liar(answers: Answers) -> Liar:
    return Liar(answers)


@pytest.fixture
def nothing_left(shared_engine: Engine) -> Iterator[None]:
    """No layer, no unpacked folder and no image is left; of a blob only what another try goes on from."""

    def there() -> list[Any]:
        layers = sorted(Path(shared_engine.store.home, "layers").iterdir())
        blobs = sorted(path for path in Path(shared_engine.catalog.blobs.folder).iterdir() if path.suffix != ".part")
        return [layers, blobs, [image.id for image in shared_engine.images()]]

    before = there()
    yield
    assert there() == before


def test_the_honest_one_is_pulled(shared_engine: Engine, liar: Liar) -> None:
    assert liar.pull(shared_engine).size == 6


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ("layer bytes", "digest of what was received"),
        ("layer longer", "more than the"),
        ("layer size", "more than the"),
        ("config bytes", "digest of what was received"),
        ("diff id", "plain digest"),
        ("negative size", "impossible size"),
        ("missing layer", "does not fit its layers"),
        ("climbing", "."),
        ("digest form", "is not valid"),
        ("schema 1", "schema version"),
        ("both", "or both"),
    ],
)
def test_a_lie_is_found_out(lie: str, reason: str, shared_engine: Engine, liar: Liar) -> None:
    fresh = archive(file("b", lie.encode()))  # a layer that no earlier case has brought in
    layer = gzip.compress(fresh)
    entry = liar.manifest["layers"][0]
    entry.update(digest=digest(layer), size=len(layer))
    liar.serve("layer", digest(layer), layer)
    config = {"rootfs": {"type": "layers", "diff_ids": [digest(fresh)]}}
    if lie == "layer bytes":
        liar.serve("layer", digest(layer), layer[:4] + b"time" + layer[8:])  # the content stays whole
    elif lie == "layer longer":
        liar.serve("layer", digest(layer), layer + b"more")
    elif lie == "layer size":
        entry["size"] -= 3
    elif lie == "diff id":
        config["rootfs"]["diff_ids"] = ["sha256:" + "2" * 64]
    elif lie == "negative size":
        entry["size"] = -1
    elif lie == "missing layer":
        liar.manifest["layers"] = []
    elif lie == "climbing":
        bad = archive(file("../../climbed", b"x"))
        layer = gzip.compress(bad)
        entry.update(digest=digest(layer), size=len(layer))
        liar.serve("layer", digest(layer), layer)
        config = {"rootfs": {"type": "layers", "diff_ids": [digest(bad)]}}
    elif lie == "digest form":
        entry["digest"] = "sha256:../../../../etc/passwd"
    elif lie == "schema 1":
        liar.manifest["schemaVersion"] = 1
    elif lie == "both":
        liar.manifest["manifests"] = []
    data = json.dumps(config).encode()
    liar.manifest["config"].update(digest=digest(data), size=len(data))
    liar.serve("config", digest(data), data if lie != "config bytes" else data[:-1] + b" ")
    with pytest.raises(HullError, match=reason):
        liar.pull(shared_engine)


@pytest.mark.usefixtures("nothing_left")
def test_another_manifest_than_the_digest_says(shared_engine: Engine, liar: Liar) -> None:
    with pytest.raises(InvalidInput, match="do not trust"):
        liar.pull(shared_engine, "@sha256:" + "1" * 64)


@pytest.mark.usefixtures("nothing_left")
def test_documents_without_end(shared_engine: Engine, answers: Answers) -> None:
    answers.answers["GET", "/v2/a/b/manifests/1"] = 200, {}, b" " * (LARGEST_DOCUMENT + 2)
    with pytest.raises(InvalidInput, match="more than"):
        shared_engine.pull(f"{answers.host}/a/b:1")


def test_another_part_than_was_asked_for(answers: Answers) -> None:
    name = "sha256:" + "0" * 64
    answers.answers["GET", f"/v2/a/b/blobs/{name}"] = 206, {"Content-Range": "bytes 9-12/13"}, b"data"
    with pytest.raises(InvalidInput, match="another part"):
        list(Repository(Transport(answers.host), "a/b").blob(name, 13, 4))
    # one that knows no ranges sends all of it again
    answers.answers["GET", f"/v2/a/b/blobs/{name}"] = 200, {}, b"0123456789"
    assert b"".join(Repository(Transport(answers.host), "a/b").blob(name, 10, 4)) == b"456789"


def test_the_registrys_words_are_made_safe(shared_engine: Engine, answers: Answers) -> None:
    body = json.dumps({"errors": [{"code": "X", "message": "\x1b[31mred\nline <b>"}]}).encode()
    answers.answers["GET", "/v2/a/b/manifests/1"] = 404, {}, body
    with pytest.raises(HullError) as caught:
        shared_engine.pull(f"{answers.host}/a/b:1")
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_challenge_is_read_or_refused(text: str) -> None:
    PARAMETER.findall(text)
    if "realm" not in text.lower():
        with pytest.raises(HullError):
            NOBODY.escalate([text], "scope")


@pytest.mark.parametrize(
    ("host", "is_this_machine"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("[::1]:5000", True),
        ("registry.example.org", False),
        ("10.0.0.1:5000", False),
        ("localhost.example.org", False),
    ],
)
def test_which_registries_are_this_machine(host: str, is_this_machine: bool) -> None:
    assert is_loopback(host) is is_this_machine
