"""environment.yml: what is read of it, and images with conda's packages from channels that the tests make."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nbhull.runtime.builder import repository
from nbhull.runtime.builder.conda import settings
from nbhull.runtime.builder.conda.file import CondaFile, parse
from nbhull.runtime.builder.environment import parse_lock
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import HullError, InvalidInput
from nbhull.runtime.model import ContainerSpec
from nbhull.runtime.verbs.building import build
from nbhull.runtime.verbs.parser import parse as parse_command
from support.boxes import Box
from support.indexes import PLACEHOLDER, CondaPackage, add_conda_package, add_wheel, served
from support.registry import make_certificates

SCRIPT = b"#!/bin/sh\necho prefix " + PLACEHOLDER + b"\n"
TOOL = CondaPackage(
    "tool", "1.2", {"bin/tool": SCRIPT, "lib/tool.dat": b"\0" + PLACEHOLDER + b"/lib\0end"}, depends=["pure"]
)
PURE = CondaPackage("pure", "2.0", {"site-packages/pure.py": b"x = 2\n"}, noarch="python", depends=["python >=3"])
LINKED = CondaPackage("linked", "1", {"bin/.linked-post-link.sh": b'echo "$PKG_NAME $PKG_VERSION" > $PREFIX/linked\n'})


def python_package() -> CondaPackage:
    """conda's Python, for an image that has the machine's own where the machine has it."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    links = dict.fromkeys(("bin/python", "bin/python3", f"bin/python{version}"), "/usr/bin/python3")
    return CondaPackage("python", f"{version}.0", {**links, "pyvenv.cfg": b"home = /usr/bin\n"})


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    """A channel in a folder."""
    folder = tmp_path / "channel"
    for package, kind in ((TOOL, ".conda"), (PURE, ".conda"), (LINKED, ".conda"), (python_package(), ".tar.bz2")):
        add_conda_package(folder, package, kind)
    return folder


@pytest.fixture
def run(base_engine: Engine, tmp_path: Path) -> Callable[..., str]:
    """Builds the folder `repository`, and gives the digest of the configuration."""

    def run(*options: str, engine: Engine = base_engine) -> str:
        words = ["build", "--progress", "plain", "--network", "host", "-t", "conda-env", *options]
        _, values = parse_command([*words, str(tmp_path / "repository")])
        build(engine, values)
        row, _, _ = engine.catalog.completed(engine.catalog.find("conda-env"))
        return str(row["config"])

    return run


def write(tmp_path: Path, text: str, **files: str) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir(exist_ok=True)
    (folder / "environment.yml").write_text(text)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


# What is read


def test_the_file() -> None:
    text = """\
name: analysis   # the place is nbhull's
prefix: /home/ada/envs/analysis
channels: [conda-forge, nodefaults]
dependencies:
  - python=3.11
  - numpy >=1.26,<2  # [linux]
  - pip
  - pip: [seaborn==0.13.2, -r more.txt]
variables: {MODE: fast, THREADS: 4}
platforms: [linux-64]
"""
    assert parse(text) == CondaFile(
        ("conda-forge", "nodefaults"),
        ("python=3.11", "numpy >=1.26,<2", "pip"),
        ("seaborn==0.13.2", "-r more.txt"),
        (("MODE", "fast"), ("THREADS", "4")),
        ("platforms",),
    )


WRONG = {
    "no YAML": ("a: [", r"environment.yml:1 is no YAML"),
    "an object of Python": ("a: !!python/object/apply:os.system [id]", "is no YAML"),
    "a list": ("- a", "is no table"),
    "a text as dependencies": ("dependencies: numpy", "dependencies is no list"),
    "a table as a dependency": ("dependencies: [{npm: [x]}]", "is no dependency"),
    "a number as a channel": ("channels: [1]", "is no line of text"),
    "a password": ("channels: ['https://ada:secret@example.org/c']", "has a password or token"),
    "a token": ("channels: ['https://example.org/t/tk-123/c']", "has a password or token"),
    "a variable's name": ("variables: {'A B': 1}", "is no name of a variable"),
    "a variable of lines": ('variables: {A: "1\\nRUN evil"}', "is no line of text"),
    "depth": ("[" * 5000, "cannot be read|is no YAML"),
}


@pytest.mark.requires("root")
@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_refused(name: str) -> None:
    text, message = WRONG[name]
    with pytest.raises(InvalidInput, match=message) as caught:
        parse(text)
    assert "secret" not in str(caught.value)
    assert "tk-123" not in str(caught.value)


@pytest.mark.requires("root")
def test_what_counts_beside_it(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        "dependencies: [python, {pip: ['-e .', -r requirements.txt]}]",
        requirements_txt="six\n",
        pyproject_toml="[project]\nname='x'\nversion='1'\n",
        runtime_txt="python-3.11",
    )
    asked = repository.find(str(folder))
    assert asked is not None
    assert asked.project
    assert (asked.requirements, asked.included) == ("-r requirements.txt\n", ("requirements.txt",))
    assert (asked.python, asked.ignored) == ("3.11", ("requirements.txt",))
    (folder / "environment.yml").write_text("dependencies: [python]")
    asked = repository.find(str(folder))
    assert asked is not None
    assert (asked.project, asked.requirements) == (False, "")
    assert asked.ignored == ("pyproject.toml", "requirements.txt")


@pytest.mark.requires("root")
def test_channels_are_found(tmp_path: Path) -> None:
    condarc = tmp_path / "condarc"
    condarc.write_text(
        "channel_alias: https://mirror.example.org/conda/\nchannels: [conda-forge, defaults]\n"
        "default_channels: [main, https://mirror.example.org/r]\n"
        "custom_channels: {team: https://team.example.org}\nssl_verify: /etc/team.pem\n"
        "proxy_servers: {https: 'http://proxy.example.org:3128'}\n"
    )
    reached = settings.read({"CONDARC": str(condarc)})
    assert (reached.certificates, reached.proxies) == ("/etc/team.pem", {"https": "http://proxy.example.org:3128"})
    mirror = "https://mirror.example.org/conda"
    assert settings.addresses((), reached, "") == [
        f"{mirror}/conda-forge", f"{mirror}/main", "https://mirror.example.org/r"
    ]  # fmt: skip
    assert settings.addresses(("team", "nodefaults"), reached, "") == ["https://team.example.org/team"]
    assert settings.addresses((".",), reached, str(tmp_path)) == [tmp_path.as_uri()]
    plain = settings.read({})
    assert settings.addresses((), plain, "")  # some channel, whoever runs this
    for channel, message in (
        ("defaults", "no address"),
        ("./missing", "no channel in the folder"),
        ("ftp://x/y", "not at an address"),
    ):
        with pytest.raises(InvalidInput, match=message):
            settings.addresses((channel,), plain.but(named={}), str(tmp_path))


# For real


@pytest.mark.requires("busybox")
def test_an_environment(
    run: Callable[..., str], base_engine: Engine, channel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a channel with a private authority: solved, locked, downloaded once, installed."""
    make_certificates(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with served(channel, tmp_path) as (address, asked):
        folder = write(
            tmp_path,
            f"channels: ['{address}']\ndependencies: [tool, 'pure =2', linked]\nvariables: {{MODE: '$a \"b\"'}}\n",
        )
        first = run("--base", "base")
        lock = parse_lock((folder / "nbhull.lock").read_text())
        archive = channel / "noarch/pure-2.0-0.conda"
        line = f"{address}/noarch/{archive.name}#sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
        assert line in lock.conda
        assert len(lock.conda) == 4
        asked.clear()
        add_conda_package(channel, CondaPackage("tool", "1.3", TOOL.files))
        assert run("--locked", "--no-cache") == first  # installed anew, to the same bytes
        assert asked == []
        assert run("--relock") != first
        assert any("/tool-1.3-0.conda#" in one for one in parse_lock((folder / "nbhull.lock").read_text()).conda)
    prefix = "/opt/environment"
    box = Box(base_engine, ContainerSpec(image="conda-env"))
    try:
        assert (
            box.out("tool; tr -s '\\0' '\\n' < $CONDA_PREFIX/lib/tool.dat") == f"prefix {prefix}\n\n{prefix}/lib\nend"
        )
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        assert box.out(f"cat {prefix}/lib/python{version}/site-packages/pure.py; head -1 {prefix}/bin/pure") == (
            f"x = 2\n#!{prefix}/bin/python{version}"
        )
        assert box.out('echo "$MODE"; cat $CONDA_PREFIX/linked') == '$a "b"\nlinked 1'
        record = json.loads(box.out(f"cat {prefix}/conda-meta/pure-2.0-0.json"))
        assert (record["url"], record["channel"]) == (line.partition("#")[0], address)
        assert box.out(f"ls -ln {prefix}/bin/tool | cut -c1-10; id -u; grep -r /run/packages {prefix} | wc -l") == (
            "-rwxr-xr-x\n0\n0"
        )
    finally:
        base_engine.remove(box.id, force=True)


@pytest.mark.requires("busybox", "root")  # what it needs of the user is in the test above
def test_the_same_in_another_store(
    run: Callable[..., str], base_engine: Engine, engine: Engine, channel: Path, busybox_tar: bytes, tmp_path: Path
) -> None:
    folder = write(tmp_path, f"channels: [{channel}]\ndependencies: [tool]\n")
    run("--base", "base")
    engine.catalog.import_root([busybox_tar], ["base"], {"Cmd": ["/bin/sh"]})
    run("--locked", engine=engine)
    first, second = (one.catalog.completed(one.catalog.find("conda-env"))[2] for one in (base_engine, engine))
    assert [layer.diff_id for layer in first] == [layer.diff_id for layer in second]
    lock = folder / "nbhull.lock"
    right = parse_lock(lock.read_text()).conda[0].rpartition(":")[2]
    lock.write_text(lock.read_text().replace(right, "0" * 64))
    with pytest.raises(HullError, match="has the digest"):
        run("--locked")


@pytest.mark.requires("busybox", "root")
@pytest.mark.timeout(400)
def test_the_section_pip(run: Callable[..., str], with_python: str, base_engine: Engine, tmp_path: Path) -> None:
    channel, index = tmp_path / "channel", tmp_path / "index"
    wheel = next(Path("/usr/share/python-wheels").glob("pip-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        files = {f"site-packages/{name}": archive.read(name) for name in archive.namelist() if name.startswith("pip/")}
    add_conda_package(channel, CondaPackage("pip", "23", files, noarch="python", depends=["python"]))
    add_conda_package(channel, python_package(), ".tar.bz2")
    add_wheel(index, "alpha", "1.0", "beta")
    add_wheel(index, "beta", "1.0")
    with served(index) as (address, _), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_INDEX_URL", f"{address}/")
        patch.setenv("no_proxy", "127.0.0.1")
        folder = write(
            tmp_path,
            f"channels: [{channel}]\ndependencies: [python, pip: [-r requirements.txt]]\n",
            requirements_txt="alpha\n",
        )
        run("--base", with_python)
    lock = parse_lock((folder / "nbhull.lock").read_text())
    assert [line.partition(" ")[0] for line in lock.requirements] == ["alpha==1.0", "beta==1.0"]
    assert len(lock.conda) == 2
    box = Box(base_engine, ContainerSpec(image="conda-env"))
    try:
        assert box.out("python3 -c 'import beta, sys; print(beta.version, sys.prefix)'") == "1.0 /opt/environment"
    finally:
        base_engine.remove(box.id, force=True)


@pytest.mark.requires("busybox", "root")
def test_what_cannot_be(run: Callable[..., str], channel: Path, tmp_path: Path) -> None:
    write(tmp_path, f"channels: [{channel}]\ndependencies: [tool >5]\n")
    with pytest.raises(InvalidInput, match="tool >5"):
        run("--base", "base")
    evil = CondaPackage("evil", "1", {"../../../../evil": b"x", "bin/ok": b"ok"})
    add_conda_package(channel, evil)
    write(tmp_path, f"channels: [{channel}]\ndependencies: [evil]\n")
    with pytest.raises(HullError, match="evil"):
        run("--base", "base")
