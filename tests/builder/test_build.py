"""What a build does besides the image: what it does not do again, what it refuses, what it does not leave behind."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nbhull.runtime.builder.build import Result
from nbhull.runtime.builder.context import find_file, open_context
from nbhull.runtime.builder.mounts import Secret
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import Denied, HullError, InvalidInput, NotFound, ProcessFailed
from nbhull.runtime.model import ContainerSpec
from support.boxes import Box

pytestmark = pytest.mark.requires("busybox")

BuildIt = Callable[..., Result]


def look(engine: Engine, image: str, script: str) -> str:
    """What a script prints in a container of an image."""
    box = Box(engine, ContainerSpec(image=image))
    try:
        return box.out(script, cwd="/")
    finally:
        engine.remove(box.id, force=True)


# What is done again


def test_a_step_is_done_again_only_for_what_it_depends_on(build: BuildIt, base_engine: Engine, tmp_path: Path) -> None:
    text = "FROM base\nCOPY data /data\nRUN cat /proc/sys/kernel/random/uuid > /once\nLABEL a=1\n"
    files = {"data/a": "1", "data/b": "2"}
    first = build(text, files)
    once = look(base_engine, first.image.id, "cat /once")
    assert build(text, files).cached
    assert build(text, files).image.id == first.image.id

    os.utime(tmp_path / "context/data/a", (1, 1))  # another time
    assert build(text, files).image.id == first.image.id
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "context", elsewhere)  # another folder
    assert build(text, context=elsewhere).cached
    other = build(text.replace("a=1", "a=2"), files)  # a change that no file depends on
    assert other.cached
    assert other.image.id != first.image.id
    assert look(base_engine, other.image.id, "cat /once") == once

    for change in (
        lambda: (tmp_path / "context/data/a").write_text("3"),
        lambda: (tmp_path / "context/data/a").chmod(0o600),
        lambda: (tmp_path / "context/data/a").rename(tmp_path / "context/data/c"),
        lambda: (tmp_path / "context/data/empty").mkdir(),
        lambda: os.symlink("b", tmp_path / "context/data/link"),
    ):
        change()
        changed = build(text)
        assert not changed.cached
        again = look(base_engine, changed.image.id, "cat /once")
        assert again != once
        once = again
        assert build(text).cached
    assert not build(text, cached=False).cached


def test_a_change_within_the_same_tick_is_seen(build: BuildIt, base_engine: Engine, tmp_path: Path) -> None:
    """The size and, as good as, the times stay; the digest that was remembered must not count."""
    text = "FROM base\nCOPY data /data\n"
    for number in range(6):
        result = build(text, {"data": f"{number}"})
        assert look(base_engine, result.image.id, "cat /data") == f"{number}"


def test_remembered_digests_are_used_and_forgotten(tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    file = tmp_path / "context/data"
    file.write_text("one")
    memory = str(tmp_path / "memory")
    old = os.stat(file).st_mtime_ns - 10**11
    os.utime(file, ns=(old, old))

    def digest(forged: bytes | None = None) -> bytes:
        context = open_context(str(tmp_path / "context"), "Containerfile", memory)
        if forged is not None:
            for path, (key, _) in context.known.items():
                context.known[path] = (key, forged)
        found = context.digest("data", "data")
        # as if its last change lay long ago
        for entry in context.walk("data"):
            context.learned.setdefault("data", (entry.key, hashlib.sha256(file.read_bytes()).digest()))
        context.close()
        return found

    first = digest()
    assert digest(forged=b"x" * 32) != first  # it is the memory that tells
    file.write_text("two")
    assert digest(forged=b"x" * 32) not in (first, b"")
    (tmp_path / "memory").write_bytes(b"not what it was")
    assert digest() != first


def test_an_image_that_changed_makes_all_steps_new(build: BuildIt, base_engine: Engine) -> None:
    build("FROM base\nRUN echo 1 > /v\n", tags=("moving",))
    first = build("FROM moving\nRUN cat /v > /w\n")
    build("FROM base\nRUN echo 2 > /v\n", tags=("moving",))
    second = build("FROM moving\nRUN cat /v > /w\n")
    assert look(base_engine, first.image.id, "cat /w") == "1"
    assert look(base_engine, second.image.id, "cat /w") == "2"


def test_a_step_that_changes_nothing_makes_no_layer(build: BuildIt, base_engine: Engine) -> None:
    result = build("FROM base\nRUN true\nWORKDIR /tmp\nRUN touch /x\n")
    row = base_engine.catalog.find(result.image.id)
    assert len(base_engine.store.image_layers(row)) == 2
    history = base_engine.catalog.config(row).document["history"]
    assert [(entry["created_by"], entry.get("empty_layer", False)) for entry in history[1:]] == [
        ("RUN /bin/sh -c true", True),
        ("WORKDIR /tmp", True),
        ("RUN /bin/sh -c touch /x", False),
    ]


def test_independent_stages_go_at_the_same_time(build: BuildIt) -> None:
    """Each of two stages waits for the other by a cache mount that both share."""
    meet = "RUN --mount=type=cache,target=/c,id=meeting-{me} --mount=type=cache,target=/d,id=meeting-{other} \\\n    "
    wait = "touch /c/here && for i in $(seq 600); do test -e /d/here && exit 0; sleep 0.05; done; exit 1\n"
    one, two = (meet.format(me=a, other=b) + wait for a, b in (("a", "b"), ("b", "a")))
    build(f"FROM base AS a\n{one}FROM base AS b\n{two}FROM base\nCOPY --from=a /bin /a\nCOPY --from=b /bin /b\n")


def test_the_same_content_gives_the_same_digest_anywhere(build: BuildIt, base_engine: Engine, tmp_path: Path) -> None:
    text = "FROM base\nCOPY data /x/y/data\nWORKDIR /w\nRUN echo made > /w/made\nCMD x\n"
    ids = []
    for number in (1, 2):
        folder = tmp_path / f"context-{number}"
        built = build(text, {"data": "1"}, context=folder, cached=False, epoch=1_600_000_000)
        row, _, _ = base_engine.catalog.completed(base_engine.catalog.find(built.image.id))
        ids.append(row["config"])
        os.utime(folder / "data", (number, number))
    assert ids[0] == ids[1]
    assert look(base_engine, built.image.id, "stat -c %Y /x/y/data /x /w | sort -u") == "1600000000"


WRONG = {
    "FROM nowhere.invalid/none:1\n": (HullError, "Containerfile:1: "),
    "FROM base\nRUN echo fine; exit 7\n": (ProcessFailed, "Containerfile:2: RUN echo fine; exit 7 ended with status 7"),
    "FROM base\nRUN [\"nothing-of-that-name\"]\n": (ProcessFailed, "Containerfile:2: cannot execute"),
    "FROM base\nRUN kill -9 $$\n": (ProcessFailed, "was ended by SIGKILL"),
    "FROM base\nCOPY missing /\n": (NotFound, "Containerfile:2: 'missing' is not in the context"),
    "FROM base\nCOPY missing* /\n": (InvalidInput, "Containerfile:2: no file of the context matches"),
    "FROM base\nCOPY Containerfile . /x\n": (InvalidInput, "Containerfile:2: 2 sources go to '/x'"),
    "FROM base\nCOPY . /bin/sh/x\n": (InvalidInput, "Containerfile:2: '/bin/sh' in the image is no folder"),
    "FROM base\nRUN mkdir -p /z/Containerfile\nCOPY Containerfile /z/\n": (
        InvalidInput, "Containerfile:3: 'Containerfile' is a file, and in the image there is a folder"
    ),
    "FROM base\nCOPY --from=base /missing /\n": (NotFound, "Containerfile:2: there is no '/missing' to copy from"),
    "FROM base\nCOPY --chown=nobody-here Containerfile /\n": (NotFound, "Containerfile:2: there is no user"),
    "FROM base\nCOPY --chmod=rwx Containerfile /\n": (InvalidInput, "Containerfile:2: --chmod=rwx is no mode"),
    "FROM base\nCOPY https://example.invalid/x /\n": (NotFound, "ADD takes a URL"),
    "FROM base\nADD https://github.com/a/b.git /\n": (InvalidInput, "Containerfile:2: ADD cannot take the git"),
    "FROM base\nADD git@github.com:a/b /\n": (InvalidInput, "Containerfile:2: ADD cannot take the git"),
    "FROM base\nADD --checksum=md5:1 http://localhost:1/x /\n": (InvalidInput, "is no digest"),
    "FROM base\nUSER nobody-here\nRUN true\n": (NotFound, "Containerfile:3: there is no user"),
    "FROM base\nWORKDIR /bin/sh\n": (InvalidInput, "Containerfile:2: '/bin/sh' in the image is no folder"),
    "FROM base\nRUN --mount=type=secret,id=x,required true\n": (InvalidInput, "the secret 'x' was not given"),
    "FROM base\nRUN --mount=type=what,target=/x true\n": (InvalidInput, "2: --mount knows no type 'what'"),
    "FROM base\nRUN --mount=type=cache true\n": (InvalidInput, "a mount of type cache has no target"),
    "FROM base\nRUN --mount=type=ssh true\n": (InvalidInput, "type=ssh is not supported"),
    "FROM base\nRUN --mount=from=base,source=/none,target=/x true\n": (NotFound, "there is no '/none' to mount"),
    "FROM base\nRUN --mount=source=none,target=/x true\n": (NotFound, "'none' is not in the context"),
    "FROM base\nRUN --security=insecure true\n": (InvalidInput, "--security=insecure is not given to builds"),
    "FROM base\nRUN --network=other true\n": (InvalidInput, "there is no network 'other'"),
    "FROM base\nENV x=${none:?say}\n": (InvalidInput, "Containerfile:2: none: say "),
    "FROM base\nEXPOSE 99999\n": (InvalidInput, "Containerfile:2: '99999' is no port"),
    "FROM base\nSTOPSIGNAL SIGNONE\n": (InvalidInput, "Containerfile:2: there is no signal"),
    "FROM --platform=linux/unheard-of base\n": (InvalidInput, "cannot build for linux/unheard-of"),
    "ARG x\nFROM $x\n": (InvalidInput, "Containerfile:2: FROM names nothing"),
    "FROM host\n": (InvalidInput, "Containerfile:1: the image 'host'"),
    "FROM ./missing.tar\n": (NotFound, "Containerfile:1: there is no archive or folder"),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_errors(text: str, build: BuildIt, base_engine: Engine) -> None:
    kind, message = WRONG[text]
    before = {container.id for container in base_engine.containers()}
    with pytest.raises(kind) as caught:
        build(text)
    assert message in str(caught.value)
    assert caught.value.hint
    assert {container.id for container in base_engine.containers()} == before
    assert leftovers(base_engine) == []


def leftovers(engine: Engine) -> list[str]:
    """What a build must not leave in the store."""
    home = Path(engine.store.home)
    known = {container.id for container in engine.containers()}
    layers = {row["id"] for row in engine.store.query("select id from layers")}
    return [
        *(name for name in os.listdir(home / "containers") if name not in known),
        *(name for name in os.listdir(home / "layers") if name not in layers),
        *(path.name for path in home.glob("contexts/unpacked-*")),
    ]


def test_an_unknown_target_and_a_missing_file_are_told(build: BuildIt, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has no stage 'b'") as caught:
        build("FROM base AS a\n", target="b")
    assert caught.value.hint == "it has a"
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no Containerfile or Dockerfile"):
        find_file(str(tmp_path / "empty"), None)


def test_a_failure_ends_the_other_stages(build: BuildIt, base_engine: Engine) -> None:
    text = (
        "FROM base AS long\nRUN sleep 1000\nFROM base AS wrong\nRUN sleep 0.2; exit 5\n"
        "FROM base\nCOPY --from=long /x /\nCOPY --from=wrong /x /\n"
    )
    with pytest.raises(ProcessFailed, match="ended with status 5"):
        build(text)
    assert leftovers(base_engine) == []


def test_a_containerfile_cannot_widen_its_network(build: BuildIt) -> None:
    for network in (None, "none", "nat"):
        with pytest.raises(Denied, match="Containerfile:2: "):
            build("FROM base\nRUN --network=host true\n", network=network)
    build('FROM base\nRUN test "$(ls /sys/class/net)" = lo\n', network="none")


def test_unused_build_arguments_are_warned_of(build: BuildIt) -> None:
    result = build("FROM base\nARG a\n", arguments={"a": "1", "b": "2", "HTTPS_PROXY": "http://p:1"})
    assert result.warnings == ("no ARG takes the build argument b",)


def test_sources_stay_within_the_context(build: BuildIt, base_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("outside")
    context = tmp_path / "context"
    context.mkdir()
    os.symlink(tmp_path / "outside", context / "absolute")
    os.symlink("../outside", context / "relative")
    os.symlink(tmp_path, context / "folder")
    os.mkdir(context / "kept")
    os.symlink("../../outside", context / "kept/link")
    for source in ("absolute", "relative", "folder/outside", "../outside"):
        with pytest.raises(NotFound):
            build(f"FROM base\nCOPY {source} /x\n")
    result = build("FROM base\nCOPY kept /x\n")
    assert look(base_engine, result.image.id, "readlink /x/link; test -e /x/link || echo dangling") == (
        "../../outside\ndangling"
    )


def test_destinations_stay_within_the_image(build: BuildIt, base_engine: Engine, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    links = f"mkdir -p {victim} && ln -s {victim} /out && ln -s /../../..{victim} /up"
    text = f"FROM base\nRUN {links}\nCOPY f /out/\nCOPY f /up/g\n"
    result = build(text, {"f": "x"})
    assert list(victim.iterdir()) == []
    assert look(base_engine, result.image.id, f"ls {victim}") == "f\ng"


def test_secrets_are_nowhere_afterwards(
    build: BuildIt, base_engine: Engine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    needle = "S3CR3T-" + os.urandom(8).hex()
    (tmp_path / "token").write_text(needle)
    text = (
        "FROM base\nRUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN "
        'test "$(cat /run/secrets/token)" = "$TOKEN" && test -n "$TOKEN"\nRUN env > /env; find / -xdev -name token\n'
    )
    result = build(text, secrets=(Secret("token", str(tmp_path / "token")),), tags=("with-secret",))
    base_engine.catalog.completed(base_engine.catalog.find(result.image.id))
    found = subprocess.run(
        ["grep", "-rlF", needle, base_engine.store.home], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
    assert needle not in capfd.readouterr().err
    assert look(base_engine, result.image.id, "cat /env").count(needle) == 0


def test_proxies_reach_run_steps_and_stay_out_of_the_image(
    build: BuildIt, base_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://name:word@proxy.example:3128")
    text = 'FROM base\nRUN case "$https_proxy" in *:3128) ;; *) exit 1;; esac\n'
    result = build(f"{text}RUN find / -xdev > /dev/null\n")
    row = base_engine.catalog.find(result.image.id)
    assert "proxy.example" not in json.dumps(base_engine.catalog.config(row).document)
    monkeypatch.setenv("https_proxy", "http://another.example:1")
    assert build(text).cached
    build('FROM base\nRUN test -z "$https_proxy$SSL_CERT_FILE"\n', host_settings=False)
    build('FROM base\nRUN test "$https_proxy" = given\n', arguments={"https_proxy": "given"})


def test_what_a_step_leaves_running_is_ended(build: BuildIt, base_engine: Engine) -> None:
    result = build("FROM base\nRUN sleep 1000 & echo $! > /pid; (while true; do date > /busy; done) &\n")
    assert look(base_engine, result.image.id, "test -s /pid && echo yes") == "yes"
    assert leftovers(base_engine) == []


# ADD


def tarball(kind: str, members: dict[str, str], **special: tarfile.TarInfo) -> bytes:
    memory = io.BytesIO()
    mode: Any = f"w:{kind}"
    with tarfile.open(fileobj=memory, mode=mode) as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.gid, member.mode = len(text), 11, 12, 0o640
            archive.addfile(member, io.BytesIO(text.encode()))
        for member in special.values():
            archive.addfile(member)
    return memory.getvalue()


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_archives_are_unpacked_by_add(kind: str, build: BuildIt, base_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "context").mkdir()
    (tmp_path / "context/a.bin").write_bytes(tarball(kind, {"one": "1", "sub/two": "2"}))
    (tmp_path / "context/no.tar").write_text("no archive, for all its name")
    result = build("FROM base\nADD a.bin /x\nADD no.tar a.bin /y/\nADD --unpack=false a.bin /z\nCOPY a.bin /w\n")
    seen = look(
        base_engine,
        result.image.id,
        "cat /x/one /x/sub/two /y/sub/two; echo; stat -c %u:%g:%a /x/one; ls /y; test -f /z && test -f /w && echo yes",
    )
    assert seen == "122\n11:12:640\nno.tar\none\nsub\nyes"


def test_a_hostile_archive_stays_inside(build: BuildIt, base_engine: Engine, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    link = tarfile.TarInfo("evil")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    (tmp_path / "context").mkdir()
    through = io.BytesIO()
    with tarfile.open(fileobj=through, mode="w") as archive:
        archive.addfile(link)
        member = tarfile.TarInfo("evil/victim")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    (tmp_path / "context/a.tar").write_bytes(through.getvalue())
    with contextlib.suppress(InvalidInput):  # what the link leads to need not be in the image
        build("FROM base\nADD a.tar /x/\n")
    assert not victim.exists()
    (tmp_path / "context/b.tar").write_bytes(tarball("", {"../../victim": "x"}))
    with pytest.raises(InvalidInput, match="Containerfile:2: "):
        build("FROM base\nADD b.tar /x/\n")
    assert not victim.exists()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A web server on loopback: its address, its folder, the requests it had."""
    folder = tmp_path / "web"
    folder.mkdir()
    seen: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            seen.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with contextlib.closing(server.socket):
        yield f"http://127.0.0.1:{server.server_port}", folder, seen
        server.shutdown()
        thread.join()


def test_add_downloads(
    build: BuildIt, base_engine: Engine, web: tuple[str, Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    address, folder, seen = web
    (folder / "file").write_bytes(b"from the net")
    (folder / "a.tar").write_bytes(tarball("gz", {"one": "1"}))
    os.utime(folder / "file", (10**9, 10**9))
    digest = f"sha256:{hashlib.sha256(b'from the net').hexdigest()}"
    text = (
        f"FROM base\nADD {address}/file /x/\nADD --chmod=644 {address}/file?query /y\n"
        f"ADD {address}/a.tar /tar\nADD --unpack {address}/a.tar /unpacked\n"
    )
    result = build(text)
    seen_inside = look(
        base_engine,
        result.image.id,
        "cat /x/file /y /unpacked/one; stat -c %a:%Y /x/file /y; test -f /tar && echo file",
    )
    assert seen_inside == f"from the netfrom the net1600:{10**9}\n644:{10**9}\nfile"
    text = f"FROM base\nADD --checksum={digest} {address}/file /z\n"
    build(text)
    count = len(seen)
    assert build(text).cached
    assert len(seen) == count
    (folder / "file").write_bytes(b"something else")
    with pytest.raises(InvalidInput, match=r"Containerfile:2: .* has the digest"):
        build(text, cached=False)
    with pytest.raises(NotFound, match=r"Containerfile:2: .* answered 404"):
        build(f"FROM base\nADD {address}/none /z\n")
    assert leftovers(base_engine) == []


def test_from_a_folder_and_an_archive(build: BuildIt, base_engine: Engine, tmp_path: Path, busybox_tar: bytes) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "root.tar").write_bytes(busybox_tar)
    (tmp_path / "root").mkdir()
    subprocess.run(["tar", "-x", "--no-same-owner", "-f", context / "root.tar", "-C", tmp_path / "root"], check=True)
    first = build(f"FROM {context}/root.tar\nRUN echo 1 > /x\n")
    assert look(base_engine, first.image.id, "cat /x; cat /etc/group | wc -l") == "1\n2"
    second = build(f"FROM {tmp_path}/root\nRUN echo 2 > /x\n")
    assert look(base_engine, second.image.id, "cat /x") == "2"
    assert build(f"FROM {context}/root.tar\nRUN echo 1 > /x\n").image.id == first.image.id


# The command line


def nbhull(
    engine: Engine, *words: str | Path, data: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [Path(sys.executable).with_name("nbhull"), *words],
        input=data, capture_output=True, cwd=cwd, env={**os.environ, "NBHULL_HOME": engine.store.home}, check=False,
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_contexts_from_standard_input(base_engine: Engine, tmp_path: Path) -> None:
    done = nbhull(base_engine, "build", "-q", "-", data=b"FROM base\nRUN echo in > /x\n")
    assert done.returncode == 0, done
    assert look(base_engine, done.stdout.strip().removeprefix("sha256:"), "cat /x") == "in"
    packed = tarball("gz", {"sub/file": "packed", "other": "FROM base\nCOPY sub /x\n"})
    done = nbhull(base_engine, "build", "-q", "-f", "other", "-", data=packed)
    assert done.returncode == 0, done
    assert look(base_engine, done.stdout.strip().removeprefix("sha256:"), "cat /x/file") == "packed"
    (tmp_path / "file").write_text("here")
    done = nbhull(base_engine, "build", "-q", "-f", "-", tmp_path, data=b"FROM base\nCOPY file /x\n")
    assert done.returncode == 0, done
    assert leftovers(base_engine) == []


@pytest.mark.nosubuid
def test_the_command_line(base_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM base\nLABEL a=file b=file\nRUN echo out; echo err >&2\n")
    words: list[str | Path] = [
        "-t",
        "line:1",
        "-t",
        "line:2",
        "--label",
        "b=line",
        "--iidfile",
        tmp_path / "id",
        "--progress",
        "plain",
    ]
    done = nbhull(base_engine, "build", *words, tmp_path)
    assert done.returncode == 0, done
    assert done.stdout == "line:1\n"
    assert "[3/3] out\n[3/3] err\n" in done.stderr
    row = base_engine.catalog.find("line:2")
    assert (tmp_path / "id").read_text().removeprefix("sha256:") == row["id"]
    assert base_engine.catalog.config(row).document["config"]["Labels"] == {"a": "file", "b": "line"}
    again = nbhull(base_engine, "build", *words, tmp_path)
    assert "[3/3] cached\n" in again.stderr
    (tmp_path / "Dockerfile").write_text("FROM base\nRUN echo last words; false\n")
    failed = nbhull(base_engine, "build", "--progress", "quiet", tmp_path)
    assert failed.returncode == 1
    assert "nbhull: Dockerfile:2: RUN echo last words; false ended with status 1" in failed.stderr
    assert "last words" in failed.stderr
