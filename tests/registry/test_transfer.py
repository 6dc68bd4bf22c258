"""Images pushed to a real registry and pulled from it, whole and cut, by nbhull and by others."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Conflict, HostUnable, InvalidInput, NotFound
from nbhull.runtime.images.documents import OCI_INDEX, Index, parse_manifest
from nbhull.runtime.model import ContainerSpec
from nbhull.runtime.registry.client import Repository
from nbhull.runtime.registry.transport import Transport
from support.boxes import Box
from support.registry import Registry, Wire, copy_image
from support.stores import delete_tree
from support.waiting import eventually

pytestmark = pytest.mark.requires("docker-registry", "busybox")
NBHULL = Path(sys.executable).with_name("nbhull")

Fresh = Callable[[], Engine]


class Told:
    """Progress as it was told."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.outcomes: dict[str, str] = {}

    def begin(self, what: str, total: int) -> None:
        self.totals[what] = total
        self.counts[what] = 0

    def advance(self, what: str, count: int) -> None:
        self.counts[what] += count

    def end(self, what: str, outcome: str) -> None:
        self.outcomes[what] = outcome


@pytest.fixture(scope="session")
def pushed(shared_engine: Engine, small: str, registry: Registry) -> str:
    """The image in the registry; gives its name there."""
    name = f"{registry.host}/team/small:1"
    shared_engine.push(small, name)
    return name


def hash_of_data(box: Box) -> str:
    return box.out("cat /data/1 /data/2 | busybox sha256sum")


@pytest.mark.nosubuid
def test_there_and_back(shared_engine: Engine, pushed: str, small: str, fresh: Fresh) -> None:
    engine, told = fresh(), Told()
    image = engine.pull(pushed, progress=told)
    assert image.name == pushed
    assert image.id == shared_engine.catalog.get(small).id
    assert told.counts == told.totals
    assert list(told.outcomes.values()) == ["done"] * 3
    box = Box(engine, ContainerSpec(image=pushed))
    original = Box(shared_engine, ContainerSpec(image=small))
    try:
        assert hash_of_data(box) == hash_of_data(original)
        assert box.out("echo $GREETING") == "hello"
    finally:
        shared_engine.remove(original.id, force=True)
    again = Told()
    engine.pull(pushed, progress=again)
    assert set(again.outcomes.values()) == {"already here"}


def test_the_digest_stays_when_it_is_pushed_on(registry: Registry, pushed: str, fresh: Fresh) -> None:
    engine = fresh()
    engine.pull(pushed)
    (known,) = engine.catalog.digests(engine.catalog.get(pushed).id)
    assert engine.push(pushed, f"{registry.host}/team/copy:1") == known.partition("@")[2]
    by_digest = fresh().pull(f"{registry.host}/team/copy@{known.partition('@')[2]}")
    assert by_digest.id == engine.catalog.get(pushed).id


def test_of_several_names_the_one_that_was_asked_for_is_pushed(
    registry: Registry, pushed: str, fresh: Fresh
) -> None:
    engine, other = fresh(), f"{registry.host}/team/second-name:2"
    engine.pull(pushed)
    engine.catalog.tag(pushed, other)
    engine.push(other)
    assert fresh().pull(other).name == other


def test_layers_are_taken_from_another_repository(shared_engine: Engine, registry: Registry, pushed: str) -> None:
    told = Told()
    shared_engine.push("pushed", f"{registry.host}/other/small:1", progress=told)
    assert list(told.outcomes.values()).count("taken from another repository") == 3
    again = Told()
    shared_engine.push("pushed", f"{registry.host}/other/small:2", progress=again)
    assert set(again.outcomes.values()) == {"already there"}


def test_a_small_change_is_a_small_push(shared_engine: Engine, registry: Registry, pushed: str, fresh: Fresh) -> None:
    box = Box(shared_engine, ContainerSpec(image="pushed"))
    try:
        box.out("echo new > /root/new; rm /data/1")
        image = shared_engine.snapshot(box.id, "changed")
    finally:
        shared_engine.remove(box.id, force=True)
    told = Told()
    shared_engine.push(image.name, f"{registry.host}/team/small:changed", progress=told)
    assert list(told.outcomes.values()).count("already there") == 3
    assert sum(told.totals.values()) < 10_000
    engine = fresh()
    engine.pull(f"{registry.host}/team/small:changed")
    pulled = Box(engine, ContainerSpec(image=f"{registry.host}/team/small:changed"))
    assert pulled.out("cat /root/new; ls /data") == "new\n2"


def test_a_cut_is_mended_within_the_pull(wire: Wire, pushed: str, fresh: Fresh) -> None:
    wire.cut_down = [1 << 20, 1 << 20, 1 << 19]
    engine, told = fresh(), Told()
    image = engine.pull(pushed.replace(pushed.partition("/")[0], wire.host), progress=told)
    assert wire.cuts == 3
    assert told.counts == told.totals
    assert wire.down < sum(told.totals.values()) * 1.5, "what had come was asked for again"
    assert "hello" in Box(engine, ContainerSpec(image=image.id)).out("echo $GREETING")


def test_a_cut_is_mended_within_the_push(shared_engine: Engine, small: str, wire: Wire, fresh: Fresh) -> None:
    wire.cut_up = [1 << 20, 1 << 20]
    told = Told()
    name = f"{wire.host}/cut/small:1"
    shared_engine.push(small, name, progress=told)
    assert wire.cuts == 2
    assert told.counts == told.totals
    assert fresh().pull(name).id == shared_engine.catalog.get(small).id


def test_a_killed_pull_goes_on_where_it_was(wire: Wire, pushed: str, tmp_path: Path, fresh: Fresh) -> None:
    engine = fresh()
    blobs = Path(engine.catalog.blobs.folder)
    name = pushed.replace(pushed.partition("/")[0], wire.host)
    wire.cut_down = [2 << 20] * 1000  # no layer comes whole
    process = subprocess.Popen(
        [NBHULL, "pull", "-q", name], env={**os.environ, "NBHULL_HOME": engine.store.home}, stderr=subprocess.PIPE
    )
    eventually(lambda: sum(part.stat().st_size for part in blobs.glob("*.part")) > 3 << 20, "some of it is here")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wire.cut_down.clear()
    wire.down = 0
    told = Told()
    engine.pull(name, progress=told)
    assert wire.down < sum(told.totals.values()) - (2 << 20), "what had come was asked for again"
    assert list(blobs.glob("*.part")) == []


def test_of_an_index_this_machines_image_is_taken(registry: Registry, pushed: str, fresh: Fresh) -> None:
    repository = Repository(Transport(registry.host), "team/small", push=True)
    data, media_type, digest = repository.manifest("1")
    from nbhull.runtime.images.documents import Descriptor, machine

    ours = {"os": "linux", "architecture": machine()[0]}
    other = {"os": "linux", "architecture": "s390x"}
    entry = Descriptor(media_type, digest, len(data), platform=ours)
    lying = Descriptor(media_type, "sha256:" + "0" * 64, 1234, platform=other)
    repository.transport.close()
    index = Index(OCI_INDEX, (lying, entry))
    write_index(registry, "team/small", "several", index.to_bytes())
    engine = fresh()
    assert engine.pull(f"{registry.host}/team/small:several").id == engine.pull(pushed).id
    write_index(registry, "team/small", "foreign", Index(OCI_INDEX, (lying,)).to_bytes())
    with pytest.raises(NotFound, match="has no image for linux/") as caught:
        engine.pull(f"{registry.host}/team/small:foreign")
    assert "linux/s390x" in caught.value.hint


def write_index(registry: Registry, repository: str, tag: str, data: bytes) -> None:
    """Put an index into the registry's own files, whatever it leads to."""
    from nbhull.runtime.images.blobs import digest_of

    digest = digest_of(data).removeprefix("sha256:")
    root = registry.authority.parent / "data/docker/registry/v2"
    blob = root / "blobs/sha256" / digest[:2] / digest
    blob.mkdir(parents=True, exist_ok=True)
    (blob / "data").write_bytes(data)
    manifests = root / "repositories" / repository / "_manifests"
    for link in (manifests / "revisions/sha256" / digest, manifests / f"tags/{tag}/current"):
        link.mkdir(parents=True, exist_ok=True)
        (link / "link").write_text(f"sha256:{digest}")


@pytest.mark.requires("skopeo")
@pytest.mark.parametrize("form", ["oci", "v2s2"])
def test_others_read_and_write_the_same(
    form: str, shared_engine: Engine, registry: Registry, pushed: str, fresh: Fresh, tmp_path: Path
) -> None:
    ours, theirs = f"docker://{pushed}", f"{registry.host}/skopeo/{form}:1"
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    copy_image(ours, f"docker://{theirs}", "--format", form, *plain)
    engine = fresh()
    image = engine.pull(theirs)
    _, config, _ = engine.catalog.completed(engine.catalog.find(theirs))
    _, original, _ = shared_engine.catalog.completed(shared_engine.catalog.find("pushed"))
    assert config.diff_ids == original.diff_ids
    assert (config.env, config.cmd) == (original.env, original.cmd)
    box = Box(engine, ContainerSpec(image=image.id))
    assert box.out("ls -l /data/1 | cat; echo $GREETING").endswith("hello")
    # and back: Docker's media types stay what they were
    engine.push(theirs, f"{registry.host}/skopeo/{form}:2")
    (tmp_path / "layout").mkdir()
    copy_image(f"docker://{registry.host}/skopeo/{form}:2", f"dir:{tmp_path / 'layout'}", "--src-tls-verify=false")
    manifest = parse_manifest((tmp_path / "layout/manifest.json").read_bytes())
    assert ("docker" in manifest.media_type) == (form == "v2s2")


def test_what_is_not_there(registry: Registry, pushed: str, fresh: Fresh) -> None:
    engine = fresh()
    for name in ("team/small:no-such-tag", "no/such/repository:1"):
        with pytest.raises(NotFound, match=registry.host):
            engine.pull(f"{registry.host}/{name}")
    with pytest.raises(InvalidInput, match="names no registry"):
        engine.pull("small")
    with pytest.raises(NotFound):
        engine.push("no-such-image", f"{registry.host}/a/b:1")
    with pytest.raises(HostUnable, match="cannot be reached"):
        engine.pull("localhost:1/a/b:1")
    with pytest.raises((InvalidInput, Conflict)):
        engine.push("host", f"{registry.host}/a/b:1")


def test_the_command_line(registry: Registry, pushed: str, fresh: Fresh) -> None:
    engine = fresh()
    environment = {**os.environ, "NBHULL_HOME": engine.store.home}

    def nbhull(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([NBHULL, *words], env=environment, capture_output=True, text=True, check=False)

    done = nbhull("pull", pushed)
    assert (done.returncode, done.stdout) == (0, f"{pushed}\n"), done.stderr
    assert done.stderr.count("done") == 3
    assert nbhull("run", "--rm", pushed).stdout == "hello\n"
    done = nbhull("push", "-q", pushed, f"{registry.host}/cli/small:1")
    assert done.stdout.startswith("sha256:"), done.stderr
    assert done.stderr == ""
    done = nbhull("pull", f"{registry.host}/no/such:1")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 2, done.stderr
    images = json.loads(nbhull("images", "--json").stdout)
    assert pushed in [image["name"] for image in images]


def test_run_gets_an_image_that_is_missing(registry: Registry, pushed: str, fresh: Fresh) -> None:
    environment = {**os.environ, "NBHULL_HOME": fresh().store.home}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(NBHULL), "run", "--rm", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    never = run("--pull", "never", pushed)
    assert never.returncode == 125
    assert "there is no image" in never.stderr
    assert run(pushed).stdout == "hello\n"
    assert run("--pull=never", pushed).stdout == "hello\n"
    assert run("--pull=sometimes", pushed).returncode == 125
    missing = run(f"{registry.host}/no/such:1")
    assert missing.returncode == 125
    assert f"the registry {registry.host} has no no/such" in missing.stderr


def test_a_kernels_image_is_got(
    registry: Registry, pushed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from nbhull.kernel.config import KernelConfig
    from nbhull.kernel.contained import ContainedKernel
    from nbhull.kernel.folder import WorkingFolder

    with Engine(tmp_path / "store") as engine, caplog.at_level("INFO"):
        folder = WorkingFolder(str(tmp_path), None, "")
        kernel = ContainedKernel(engine, KernelConfig(image=pushed), folder, (), "got", logging.getLogger("tests"))
        with pytest.raises(NotFound, match="has no python"):
            kernel.prepare()
        assert "pulling it" in caplog.text
        assert pushed in [image.name for image in engine.images()]
    delete_tree(tmp_path / "store")
