"""The administrator's and the user's rules, on real containers. The administrator's file lies elsewhere here, by a
constant of the module: nothing that a user could set moves it, which a test of the program itself shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbhull.kernel.config import KernelConfig, from_kernelspec, narrow, within_policy
from nbhull.runtime import policy
from nbhull.runtime.confinement import Confinement, Device
from nbhull.runtime.doctor.places import probe_policy
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Denied, InvalidInput
from nbhull.runtime.limits import Limits
from nbhull.runtime.model import ContainerSpec, Mount, Network, Port, ProcessSpec
from support.boxes import Box

MIB = 1 << 20

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the administrator's file."""
    path = tmp_path / "etc/nbhull/config.toml"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(policy, "SYSTEM", str(path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))

    def write_it(text: str) -> Path:
        path.write_text(text)
        return path

    return write_it


@pytest.fixture
def write_own(tmp_path: Path) -> Write:
    """Writes the user's file."""

    def write_it(text: str) -> Path:
        path = tmp_path / "home/nbhull/config.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write_it


def refused(engine: Engine, rule: str, **fields: Any) -> None:
    """A container is refused with the rule named whole, and nothing of it is left."""
    before = [container.id for container in engine.containers()]
    with pytest.raises(Denied) as caught:
        engine.create(ContainerSpec(**fields))
    assert caught.value.message.endswith(f"which is not allowed by {rule}")
    assert [container.id for container in engine.containers()] == before


def test_without_files_nothing_changes(write: Write) -> None:
    spec = ContainerSpec(limits=Limits(memory=1 << 50), network="host", confinement=Confinement(privileged=True))
    assert policy.load() is None
    assert policy.apply(spec) is spec
    assert policy.fallback() == "host"


def test_a_limit_bounds_and_a_refusal_names_the_rule(write: Write, shared_engine: Engine) -> None:
    path = write('[limits]\nmemory.max = "256m"\ncpus = { max = 1.5, default = 1 }\n')
    refused(shared_engine, f'{path}: limits.memory.max = "256m"', limits=Limits(memory=257 * MIB))
    refused(shared_engine, f"{path}: limits.cpus.max = 1.5", limits=Limits(cpus=2.0))
    for swap in (-1, 257 * MIB):
        refused(shared_engine, f'{path}: limits.memory.max = "256m"', limits=Limits(memory=MIB, memory_swap=swap))
    assert policy.apply(ContainerSpec()).limits == Limits(memory=256 * MIB, cpus=1.0)
    assert policy.apply(ContainerSpec(limits=Limits(memory=MIB, cpus=1.5))).limits == Limits(memory=MIB, cpus=1.5)


@pytest.mark.requires("cgroup-memory")
def test_the_bound_holds_where_nothing_was_asked_for(write: Write, make_box: Callable[..., Box]) -> None:
    write('[limits]\nmemory.max = "256m"\n')
    box = make_box()
    assert box.engine.usage(box.id).memory_limit == 256 * MIB


def test_a_rule_made_later_holds_at_the_next_start(write: Write, shared_engine: Engine) -> None:
    container = shared_engine.create(ContainerSpec(network="host"))
    path = write('[network]\nmax = "none"\n')
    try:
        with pytest.raises(Denied, match="network 'host'") as caught:
            shared_engine.start(container.id)
        assert caught.value.message.endswith(f'{path}: network.max = "none"')
        path.unlink()
        shared_engine.start(container.id)
    finally:
        shared_engine.remove(container.id, force=True)


def test_the_network_is_bounded(write: Write, make_box: Callable[..., Box], shared_engine: Engine) -> None:
    path = write('[network]\nmax = "none"\n')
    assert make_box().out("ls /sys/class/net") == "lo"
    wider: tuple[Network, ...] = ("nat", "host")
    for network in wider:
        refused(shared_engine, f'{path}: network.max = "none"', network=network)
    write('[network]\nmax = "nat"\n')
    assert policy.fallback() == "none"
    refused(shared_engine, f'{path}: network.max = "nat"', network="host")
    write("[network]\npublish = false\n")
    refused(shared_engine, f"{path}: network.publish = false", publish=(Port(8080, 80),))
    write('[network]\ndefault = "none"\n')
    assert policy.apply(ContainerSpec()).network == "none"
    assert policy.apply(ContainerSpec(network="host")).network == "host"


def test_only_allowed_folders_are_handed_in(
    write: Write, make_box: Callable[..., Box], shared_engine: Engine, tmp_path: Path
) -> None:
    work, data, other = (tmp_path / name for name in ("work", "data", "other"))
    for folder in (work / "deep", data, other):
        folder.mkdir(parents=True)
    (work / "deep/file").write_text("x")
    (work / "way-out").symlink_to(other)
    (tmp_path / "work-not").mkdir()
    path = write(f'[mounts]\nallowed = ["{work}", "{data}:ro"]\n')
    rule = f'{path}: mounts.allowed = ["{work}", "{data}:ro"]'
    box = make_box(mounts=(Mount(f"{work}/deep", "/w"), Mount(str(data), "/d", True)))
    assert box.out("cat /w/file; touch /w/new") == "x"
    for source in (other, work / "way-out", tmp_path / "work-not", work / "../other"):
        refused(shared_engine, rule, mounts=(Mount(str(source), "/x", True),))
    refused(shared_engine, rule, mounts=(Mount(str(data), "/x"),))


@pytest.mark.parametrize(
    ("rule", "confinement"),
    [
        ('capabilities.allowed = ["NET_ADMIN"]', Confinement(cap_add=("SYS_ADMIN",))),
        ("capabilities.allowed = []", Confinement(cap_add=("ALL",))),
        ("security.privileged = false", Confinement(privileged=True)),
        ("security.unconfined = false", Confinement(seccomp="unconfined")),
        ("security.unconfined = false", Confinement(no_new_privileges=False)),
        ("security.unconfined = false", Confinement(system_paths=False)),
        ('devices.allowed = ["/dev/net/*"]', Confinement(devices=(Device("/dev/null", "/dev/x"),))),
        ("gpus.allowed = false", Confinement(gpus="all")),
    ],
)
def test_what_opens_a_container_is_bounded(
    write: Write, shared_engine: Engine, rule: str, confinement: Confinement
) -> None:
    path = write(rule + "\n")
    refused(shared_engine, f"{path}: {rule}", confinement=confinement)
    policy.apply(ContainerSpec())
    policy.apply(ContainerSpec(confinement=Confinement(cap_drop=("ALL",), read_only=True)))


def test_images_are_bounded_and_snapshots_count_as_what_they_were_made_from(
    write: Write, make_box: Callable[..., Box], shared_engine: Engine
) -> None:
    image = shared_engine.snapshot(make_box().id, "of-the-host").id
    path = write('images.allowed = ["lab/*"]\n')
    for name in ("host", "of-the-host", image):
        refused(shared_engine, f'{path}: images.allowed = ["lab/*"]', image=name)
    write('images.allowed = ["host"]\n')
    assert make_box(image="of-the-host").out("echo runs") == "runs"


def test_registries_are_bounded(write: Write, shared_engine: Engine) -> None:
    path = write('registries.allowed = ["registry.example.org/team/*", "quay.example.org"]\n')
    for act in (shared_engine.pull, shared_engine.provide):
        with pytest.raises(Denied) as caught:
            act("docker.example.org/library/debian:12")
        assert f"{path}: registries.allowed" in caught.value.message
    for allowed in ("registry.example.org/team/x", "quay.example.org/any/thing"):
        policy.check_registry(allowed)


def test_a_user_narrows_and_never_widens(write: Write, write_own: Write, shared_engine: Engine) -> None:
    path = write('limits.memory.max = "512m"\nnetwork.max = "nat"\n')
    own = write_own('limits.memory.max = "1g"\nlimits.memory.default = "64m"\nlimits.pids.max = 10\n')
    assert policy.apply(ContainerSpec()).limits == Limits(memory=64 * MIB, pids=10)
    refused(shared_engine, f'{path}: limits.memory.max = "512m"', limits=Limits(memory=700 * MIB))
    refused(shared_engine, f"{own}: limits.pids.max = 10", limits=Limits(pids=11))
    write_own('limits.memory.default = "1g"\nnetwork.default = "host"\n')
    refused(shared_engine, f'{path}: limits.memory.max = "512m"')
    write_own('network.default = "host"\n')
    refused(shared_engine, f'{path}: network.max = "nat"')


def test_a_kernelspec_is_bounded_and_a_notebook_is_cut(write: Write) -> None:
    path = write('limits.memory.max = "256m"\nnetwork.max = "none"\nimages.default = "lab"\n')
    with pytest.raises(Denied, match=r"limits\.memory\.max"):
        within_policy(from_kernelspec({"memory": "1g"}))
    config, sources = within_policy(from_kernelspec({}))
    assert (config.image, config.memory, config.network) == ("lab", 256 * MIB, "none")
    narrowed, notices = narrow(config, {"memory": "1g"}, sources)
    assert narrowed.memory == 256 * MIB
    assert notices == [f'The notebook asks for memory 1g; {path}: limits.memory.max = "256m", which holds.']
    with pytest.raises(Denied, match="allows 'none' at most"):
        narrow(config, {"network": "nat"}, sources)
    assert within_policy(KernelConfig("own"))[0].image == "own"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[limits\n", "config.toml is not valid TOML: "),
        ("# a comment\n[limits]\nmemroy.max = '1g'\n", "config.toml, line 3: there is no rule 'limits.memroy.max'"),
        ("[limits.memory]\n\nmax = 'much'\n", "config.toml, line 3: limits.memory.max: size 'much' is not a size"),
        ("[limits]\ncpus = {max = 0}\n", "config.toml, line 2: limits.cpus.max: 0 is not a positive number"),
        ("[limits]\nmemory = '1g'\n", "config.toml, line 2: there is no rule 'limits.memory'"),
        ("[limits]\nmemory = {}\n", "config.toml, line 2: there is no rule 'limits.memory'"),
        ("network.max = 'bridge'\n", "config.toml, line 1: network.max: 'bridge' is not a network"),
        ("network.fallback = 'nat'\n", "line 1: network.fallback: 'nat' cannot take the place of nat"),
        ("[mounts]\nallowed = ['data']\n", "line 2: mounts.allowed: 'data' is not an absolute path"),
        ("[images]\nallowed = 'host'\n", "line 2: images.allowed: 'host' is not a list"),
        ("capabilities.allowed = ['FLY']\n", "line 1: capabilities.allowed: 'FLY' is no capability"),
        ("security.privileged = 'no'\n", "line 1: security.privileged: 'no' is neither true nor false"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_line_and_key(
    write: Write, shared_engine: Engine, text: str, message: str
) -> None:
    write(text)
    with pytest.raises(InvalidInput) as caught:
        shared_engine.create(ContainerSpec())
    assert message in caught.value.message
    assert caught.value.hint
    assert probe_policy().works == "no"


def test_a_file_that_cannot_be_read_is_no_file_without_rules(write: Write) -> None:
    path = write("")
    path.unlink()
    path.mkdir()
    with pytest.raises(InvalidInput, match="is no regular file"):
        policy.apply(ContainerSpec())
    path.rmdir()
    path.symlink_to(path.name)
    with pytest.raises(InvalidInput, match="cannot be read"):
        policy.apply(ContainerSpec())


def test_doctor_tells_of_rules_that_others_can_change(write: Write) -> None:
    assert probe_policy().seen.startswith("no rules, neither in ")
    path = write("limits.pids.max = 10\n")
    path.chmod(0o666)
    found = probe_policy()
    assert (found.works, found.seen.startswith(f"{path}: 1 rules, but others")) == ("partly", True)
    assert f"chmod 0644 {path}" in found.mend


# -- the program itself ------------------------------------------------------------------------

ELSEWHERE = """
mount -t tmpfs tmpfs /mnt
cp -a /etc /mnt/etc
mkdir -p /mnt/etc/nbhull /mnt/own/nbhull
printf 'limits.pids.max = 100\\nnetwork.max = "none"\\n' > /mnt/etc/nbhull/config.toml
printf 'limits.pids.max = 1000\\nnetwork.max = "host"\\n' > /mnt/own/nbhull/config.toml
mount --bind /mnt/etc /etc
"""
"""a machine whose administrator has made rules, and a user other ones"""


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program on such a machine."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'set -e\n{ELSEWHERE}\nexec "$@"', "sh"]
    nbhull = str(Path(sys.executable).with_name("nbhull"))
    env = {**os.environ, "XDG_CONFIG_HOME": "/mnt/own", **variables}
    return subprocess.run([*command, nbhull, *words], env=env, capture_output=True, text=True, check=False)


@pytest.mark.requires("root", "unshare")
def test_the_program_obeys_whatever_its_environment_says(store: Path) -> None:
    assert run("run", "--rm", "host", "ls", "/sys/class/net").stdout == "lo\n"
    for variables in ({}, {"HOME": "/mnt/own"}, {"XDG_CONFIG_DIRS": "/mnt/own"}):
        done = run("run", "--rm", "--network", "host", "host", "true", **variables)
        assert done.returncode == 125
        assert 'not allowed by /etc/nbhull/config.toml: network.max = "none"' in done.stderr
    done = run("run", "--rm", "--pids-limit", "200", "host", "true")
    assert "/etc/nbhull/config.toml: limits.pids.max = 100" in done.stderr


@pytest.mark.requires("root", "unshare")
def test_the_verb_config_says_what_holds_and_where_it_comes_from(store: Path) -> None:
    lines = [" ".join(line.split()) for line in run("config").stdout.splitlines()]
    assert "limits.pids.max 100 /etc/nbhull/config.toml, line 1" in lines
    assert "limits.pids.max 1000 /mnt/own/nbhull/config.toml, line 1" in lines
    assert any(line.startswith("limits.memory.max - no rule: ") for line in lines)
    items = [item for item in json.loads(run("config", "--json").stdout) if item["key"] == "limits.pids.max"]
    assert [(item["value"], item["file"], item["line"]) for item in items] == [
        (100, "/etc/nbhull/config.toml", 1),
        (1000, "/mnt/own/nbhull/config.toml", 1),
    ]
    doctor = run("doctor").stdout
    assert "/etc/nbhull/config.toml: 2 rules; /mnt/own/nbhull/config.toml: 2 rules" in doctor


def test_a_container_is_kept_from_processes_as_the_rules_say(write: Write, shared_engine: Engine) -> None:
    write("limits.pids.max = 50\n")
    container = shared_engine.create(ContainerSpec())
    try:
        assert container.spec.limits.pids == 50
        if os.getuid() == 0:
            shared_engine.start(container.id)
            assert shared_engine.usage(container.id).pids_limit == 50
            assert shared_engine.spawn(container.id, ProcessSpec(("true",))).wait(10) == 0
    finally:
        shared_engine.remove(container.id, force=True)
