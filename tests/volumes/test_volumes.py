"""Named volumes: data that outlives containers, and that several have at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime import policy
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Conflict, Denied, InvalidInput, NotFound
from nbhull.runtime.model import ContainerSpec, Mount
from support.boxes import Box

pytestmark = pytest.mark.nosubuid


def with_volume(name: str, target: str = "/data", *, read_only: bool = False) -> dict[str, object]:
    return {"mounts": (Mount(name, target, read_only),)}


def test_data_outlives_its_container_and_has_its_owners(make_box: Callable[..., Box], shared_engine: Engine) -> None:
    first = make_box(**with_volume("outlives"))
    first.out("echo 42 > /data/answer; mkdir -m 700 /data/deep; ln -s answer /data/link")
    before = first.out("cd /data && stat -c '%n %u %g %a %s' * deep")
    shared_engine.remove(first.id, force=True)
    assert make_box(**with_volume("outlives")).out("cd /data && stat -c '%n %u %g %a %s' * deep") == before


def test_containers_of_two_launchers_share_a_volume(make_box: Callable[..., Box], shared_engine: Engine) -> None:
    one = make_box(**with_volume("shared"))
    with Engine(shared_engine.store.home) as other:
        two = Box(other, ContainerSpec(**with_volume("shared", "/srv/elsewhere", read_only=True)))  # type: ignore[arg-type]
        one.out("echo live > /data/file")
        assert two.out("cat /srv/elsewhere/file") == "live"
        assert two.run("echo no > /srv/elsewhere/file").returncode != 0
        assert shared_engine.volumes.get("shared").running == tuple(
            sorted((one.container.name, two.container.name))
        )
        other.remove(two.id, force=True)
    assert one.out("cat /data/file") == "live"


def test_an_empty_volume_is_filled_from_the_image_once(make_box: Callable[..., Box], shared_engine: Engine) -> None:
    maker = make_box()
    maker.out("mkdir -m 2755 -p /srv/app/in && echo from-image > /srv/app/in/file && chmod 2751 /srv/app")
    shared_engine.snapshot(maker.id, "volume-filler")
    box = make_box(image="volume-filler", **with_volume("filled", "/srv/app"))
    assert box.out("cat /srv/app/in/file; stat -c %a /srv/app") == "from-image\n2751"
    box.out("rm -r /srv/app/in; touch /srv/app/own")
    again = make_box(image="volume-filler", **with_volume("filled", "/srv/app"))
    assert again.out("ls /srv/app") == "own"


def test_a_volume_in_use_is_not_removed_and_prune_takes_the_empty_ones(
    make_box: Callable[..., Box], shared_engine: Engine
) -> None:
    volumes = shared_engine.volumes
    for name in ("prune-empty", "prune-full"):
        volumes.create(name)
    box = make_box(**with_volume("prune-full"))
    box.out("touch /data/x")
    shared_engine.stop(box.id, 0)
    with pytest.raises(Conflict, match=box.container.name):
        volumes.remove("prune-full")
    shared_engine.remove(box.id)
    gone = volumes.prune()
    assert "prune-empty" in gone
    assert "prune-full" not in gone
    folder = Path(shared_engine.store.path("volumes", volumes.get("prune-full").id))
    volumes.remove("prune-full")
    assert not folder.exists()
    with pytest.raises(NotFound, match="prune-full"):
        volumes.get("prune-full")


def test_a_name_that_is_none_is_refused_before_anything_is_made(shared_engine: Engine) -> None:
    before = shared_engine.volumes.all()
    for name in ("../x", "-x", "a b", "a" * 129, ""):
        with pytest.raises(InvalidInput):
            shared_engine.create(ContainerSpec(mounts=(Mount(name, "/data"),)))
    for target in ("/etc", "/proc/x", "/run", "data", "/data/../x"):
        with pytest.raises(InvalidInput):
            shared_engine.create(ContainerSpec(mounts=(Mount("refused", target),)))
    assert shared_engine.volumes.all() == before


@pytest.mark.requires("root")
def test_rules_bound_the_names(shared_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = tmp_path / "config.toml"
    rules.write_text("[volumes]\nallowed = ['lab-*']\n[mounts]\nallowed = []\n")
    monkeypatch.setattr(policy, "SYSTEM", str(rules))
    with pytest.raises(Denied, match=r"the volume 'other', which is not allowed by .*config\.toml"):
        shared_engine.create(ContainerSpec(mounts=(Mount("other", "/data"),)))
    container = shared_engine.create(ContainerSpec(mounts=(Mount("lab-a", "/data"),)))
    shared_engine.remove(container.id)


@pytest.mark.requires("root")
def test_the_verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBHULL_HOME", str(tmp_path / "store"))

    def nbhull(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("nbhull")), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert nbhull("volume", "create", "mine").stdout == "mine\n"
    assert nbhull("run", "--rm", "-v", "mine:/data", "host", "sh", "-c", "echo 1 > /data/x").returncode == 0
    (volume,) = json.loads(nbhull("volume", "ls", "--json").stdout)
    assert (volume["name"], volume["containers"]) == ("mine", [])
    (facts,) = json.loads(nbhull("volume", "inspect", "mine").stdout)
    assert facts["size"] > 0
    assert Path(facts["folder"]).is_dir()
    assert "volumes" in nbhull("df").stdout
    assert nbhull("prune", "--all").returncode == 0
    assert nbhull("volume", "prune").stdout == ""
    assert nbhull("volume", "rm", "mine", "none").returncode == 1
    assert nbhull("volume", "ls", "-q").stdout == ""
