"""`%%container build`: from a kernel in a container, and from an ordinary one."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from nbhull.runtime.errors import NotFound
from nbhull.runtime.images import upkeep
from nbhull.runtime.model import ContainerSpec, ProcessSpec
from support.boxes import run
from support.jupyter import (
    PATIENCE,
    Outcome,
    Place,
    Running,
    Start,
    ask_from_inside,
    execute,
    install_spec,
    kernels_by_name,
)
from support.roots import busybox_root
from support.waiting import eventually


@pytest.fixture(scope="module")
def base(place: Place) -> Iterator[str]:
    """An image to build on."""
    place.engine.catalog.import_root([busybox_root()], ["base-of-builds"], {"Cmd": ["/bin/sh"]})
    yield "base-of-builds"
    for image in place.engine.images():
        if image.name == "base-of-builds" or image.name.startswith("built-"):
            upkeep.remove(place.engine.catalog, image.name)


@pytest.fixture(scope="module")
def kernels(place: Place, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    """Kernels that all tests of this module use, by their kernelspecs' names."""
    install_spec("builder", place.prefix, network="none")
    install_spec("limited-builder", place.prefix, memory="160m", network="none")
    folder = tmp_path_factory.mktemp("builds")

    def start(name: str, manager: KernelManager) -> None:
        (folder / name).mkdir(exist_ok=True)
        manager.start_kernel(cwd=str(folder / name))

    with kernels_by_name(start) as get:
        yield get


@pytest.fixture(params=["builder", "python3"])
def both(request: pytest.FixtureRequest, kernels: Callable[[str], Running]) -> Running:
    return kernels(request.param)


@pytest.fixture
def contained(kernels: Callable[[str], Running]) -> Running:
    return kernels("builder")


def build(client: BlockingKernelClient, options: str, text: str) -> Outcome:
    return execute(client, f"%%container build {options}\n{text}")


def out(place: Place, image: str, script: str) -> str:
    """What a script writes in a container of an image."""
    container = place.engine.start(place.engine.create(ContainerSpec(image=image, network="none")).id)
    try:
        return run(place.engine, container.id, ProcessSpec(("sh", "-c", script))).stdout
    finally:
        place.engine.remove(container.id, force=True)


def left_over(place: Place) -> list[str]:
    return [c.name for c in place.engine.containers() if not c.name.startswith("kernel-")]


def test_the_cell_is_a_containerfile(both: Running, place: Place) -> None:
    manager, client = both
    name = f"built-{manager.kernel_name}"
    execute(client, "import os; os.makedirs('data', exist_ok=True); open('data/in', 'w').write('from the notebook')")
    outcome = build(
        client,
        f"-t {name} --build-arg WHO=me --label team=ours",
        'ARG WHO=nobody\nFROM base-of-builds\nARG WHO\nCOPY data/in /in\nRUN echo $WHO >/who; echo seen\n'
        "COPY <<END /doc\nwritten here\nEND\n",
    )
    assert outcome.status == "ok", outcome.errors
    assert out(place, name, "cat /in /who /doc") == "from the notebookme\nwritten here\n"
    assert outcome.data[-1]["text/plain"] == name
    told = outcome.data[-2]
    assert "[4/5] RUN" in told["text/plain"]
    assert "✓" in told["text/plain"]
    assert "<code>[4/5] RUN" in told["text/html"]
    again = build(
        client, f"-t {name} --build-arg WHO=me --label team=ours --no-context", "FROM base-of-builds\nRUN true"
    )
    assert again.status == "ok", "a name may be given anew by who gave it"
    nothing = build(client, "--no-context", "FROM base-of-builds\nCOPY data/in /in")
    assert "cell:3: 'data/in' is not in the context" in nothing.evalue


def test_errors_name_the_line_of_the_cell(both: Running, place: Place) -> None:
    _, client = both
    for text, told in {
        "FROM base-of-builds\n\nRUN echo last words; exit 3": "cell:4: RUN echo last words; exit 3 ended with status 3",
        "# syntax=x\nFROM base-of-builds\nRNU true": "cell:4: ",
        "FROM no-such-base": "cell:2: there is no image 'no-such-base'",
        "FROM base-of-builds\nCOPY missing /": "cell:3: 'missing' is not in the context",
    }.items():
        outcome = build(client, "-t built-wrong", text)
        assert told in outcome.evalue, outcome
    assert "last words" in build(client, "", "FROM base-of-builds\nRUN echo last words; exit 3").data[-1]["text/plain"]
    for line, told in {
        "%%container build -f x\nFROM base-of-builds": "the cell is one",
        "%%container build --context . --no-context\nFROM base-of-builds": "exclude each other",
        "%container build --no-context": "there is no Containerfile",
        "%container build": "there is no Containerfile",
    }.items():
        assert told in execute(client, line).evalue
    assert left_over(place) == []


def test_a_line_builds_the_folder_s_own(both: Running, place: Place) -> None:
    manager, client = both
    name = f"built-line-{manager.kernel_name}"
    write = "import os; os.makedirs('own', exist_ok=True); open('own/Containerfile', 'w').write"
    execute(client, f"{write}('FROM base-of-builds\\nRUN exit 5')")
    assert "Containerfile:2: RUN exit 5" in execute(client, f"%container build -t {name} --context own").evalue
    execute(client, f"{write}('FROM base-of-builds\\nRUN echo own >/own')")
    outcome = execute(client, f"%container build -t {name} --context own")
    assert outcome.status == "ok", outcome.errors
    assert out(place, name, "cat /own") == "own\n"


def test_it_is_live_and_an_interrupt_leaves_nothing(both: Running, place: Place) -> None:
    manager, client = both
    request = client.execute(
        "%%container build -t built-never\nFROM base-of-builds\nRUN echo se''en; exec sleep 1000", allow_stdin=False
    )
    seen = ""
    while "\n    seen" not in seen:
        message = client.get_iopub_msg(timeout=PATIENCE)
        seen = message["content"].get("data", {}).get("text/plain", "")
    manager.interrupt_kernel()
    while (reply := client.get_shell_msg(timeout=PATIENCE))["parent_header"]["msg_id"] != request:
        pass
    assert reply["content"]["ename"] == "CellInterrupted"
    assert left_over(place) == []
    while message["content"].get("execution_state") != "idle":
        if "text/plain" in message["content"].get("data", {}):
            seen = message["content"]["data"]["text/plain"]
        message = client.get_iopub_msg(timeout=PATIENCE)
    assert "interrupted" in seen, "the last state is right"
    with pytest.raises(NotFound):
        place.engine.store.find_image("built-never")
    assert execute(client, "print('goes on')").text == "goes on\n"


def test_updates_are_few(both: Running) -> None:
    _, client = both
    outcome = build(
        client, "--no-cache", "FROM base-of-builds\nRUN i=0; while [ $i -lt 5000 ]; do i=$((i+1)); echo $i; done"
    )
    assert outcome.status == "ok", outcome.errors
    assert len(outcome.data) < 30


# -- never wider than the kernel -------------------------------------------------------------------


def ask(client: BlockingKernelClient, **params: Any) -> dict[str, Any]:
    """The reply to a request to build that no magic has made."""
    return ask_from_inside(client, "build", {"text": "FROM base-of-builds"} | params)


def failure(client: BlockingKernelClient, **params: Any) -> str:
    reply = ask(client, **params)
    assert reply["error"]["data"]["hint"]
    return str(reply["error"]["message"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FROM /etc", "would be a file of this machine"),
        ("FROM oci-archive:/tmp/x.tar", "would be a file of this machine"),
        ("FROM base-of-builds\nCOPY --from=/etc passwd /", "would be a file of this machine"),
        ("FROM base-of-builds\nRUN --mount=type=bind,from=/etc,target=/x true", "would be a file of this machine"),
        ("FROM base-of-builds\nADD http://127.0.0.1:1/x /", "which a kernel's network is not"),
        ("FROM base-of-builds\nRUN --network=host true", "asks for the host's network"),
        ("FROM base-of-builds\nRUN --security=insecure true", "is not given to builds"),
        ("FROM base-of-builds\nRUN --mount=type=secret,id=x,required=true true", "was not given"),
        ("FROM host", "cannot be built on"),
    ],
)
def test_a_containerfile_gets_nothing_of_the_machine(contained: Running, text: str, told: str) -> None:
    assert told in failure(contained[1], text=text)


@pytest.mark.parametrize(
    "params",
    [
        {"text": None},
        {"text": 5},
        {"text": "x" * (2 << 20)},
        {"tags": "x"},
        {"tags": [5]},
        {"tags": ["host"]},
        {"tags": ["../x"]},
        {"arguments": [1]},
        {"arguments": {"x": 5}},
        {"labels": {"x": None}},
        {"secrets": {"x": "?"}},
        {"cached": 1},
        {"context": 5},
        {"context": "a\0b"},
        {"epoch": -1},
        {"epoch": "1"},
        {"target": []},
        {"settings": 5},
    ],
)
def test_malformed_requests(contained: Running, params: dict[str, Any]) -> None:
    assert ask(contained[1], **params)["error"]["data"]["kind"] == "InvalidInput"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"network": "nat"}, "allows 'none' at most"),
        ({"memory": "10g"}, "memory, which only a kernelspec may set"),
        ({"mounts": ["/etc"]}, "mounts, which only"),
        ({"privileged": True}, "privileged, which only"),
    ],
)
def test_wider_than_the_kernel_is_refused(contained: Running, settings: dict[str, Any], told: str) -> None:
    assert told in failure(contained[1], settings=settings)


def test_the_context_is_the_kernel_s_folder(contained: Running, tmp_path: Path) -> None:
    _, client = contained
    (tmp_path / "secret").write_text("of the host")
    here = str(tmp_path)
    execute(
        client,
        f"os.makedirs('trap', exist_ok=True); os.symlink({here!r}, 'trap/out')\n"
        f"os.symlink({here + '/secret'!r}, 'trap/link')\n"
        f"os.symlink({here + '/secret'!r}, 'trap/.dockerignore'); os.mkfifo('trap/fifo')",
    )
    folder = execute(client, "print(os.getcwd())").text.strip()
    assert "in none of the folders" in failure(client, context="/etc")
    assert "in none of the folders" in failure(client, context=here)
    assert "in none of the folders" in failure(client, context=folder + "x")
    for way in (f"{folder}/trap/out", f"{folder}/../..", f"{folder}/trap/../../.."):
        assert "cannot be opened" in failure(client, context=way)
    for source in ("out/secret", "link", "../secret", "o*/secret"):
        reply = ask(
            client, context=f"{folder}/trap", text=f"FROM base-of-builds\nCOPY {source} /got\nRUN cat /got; false"
        )
        assert "of the host" not in json.dumps(reply)
        assert "error" in reply
    assert "device or a pipe" in failure(client, context=f"{folder}/trap", text="FROM base-of-builds\nCOPY . /got")


@pytest.mark.requires("root")
def test_what_others_own_in_the_folder_is_not_read(contained: Running) -> None:
    """The server is root and may read all; the container's root is not."""
    manager, client = contained
    folder = Path(manager.provisioner.contained.folder.path)
    (folder / "theirs").mkdir()
    for path in (folder / "theirs-file", folder / "theirs/file"):
        path.write_text("private")
        path.chmod(0o600 if path.parent == folder else 0o644)
        os.chown(path, 200000, 200000)
    (folder / "theirs").chmod(0o700)
    os.chown(folder / "theirs", 200000, 200000)
    assert "Permission" in execute(client, "print(open('theirs-file').read())").errors
    for source in ("theirs-file", "theirs/file", "theirs"):
        assert "Permission denied" in failure(
            client, context=str(folder), text=f"FROM base-of-builds\nCOPY {source} /x/"
        )


def test_a_name_must_be_free(contained: Running, place: Place, start: Start) -> None:
    _, client = contained
    assert "is in use" in failure(client, tags=["base-of-builds"])
    assert ask(client, tags=["built-ours"])["result"]["names"] == ["built-ours"]
    assert ask(client, tags=["built-ours"], text="FROM base-of-builds\nLABEL other=1")["result"]
    _, other = start("builder")
    assert "is in use" in failure(other, tags=["built-ours"]), "it was built in another folder"
    place.engine.catalog.tag("base-of-builds", "built-ours")
    assert "is in use" in failure(client, tags=["built-ours"]), "it is another's by now"


@pytest.mark.requires("cgroup-memory")
def test_steps_have_the_kernel_s_limits(kernels: Callable[[str], Running]) -> None:
    _, client = kernels("limited-builder")
    told = failure(client, text="FROM base-of-builds\nRUN head -c 200000000 /dev/zero | tail", cached=False)
    assert "cell:3:" in told, "the step is killed at the limit"


def test_steps_and_caches_of_others_do_not_count(contained: Running, place: Place, tmp_path: Path) -> None:
    """What a kernel leaves in a cache mount, or had a step do with it, is for its own folder's builds."""
    from support.builds import built

    text = "FROM base-of-builds\nRUN --mount=type=cache,target=/c cat /c/x >/got || true; echo poison >/c/x"
    assert "result" in ask(contained[1], text=text)
    (tmp_path / "Containerfile").write_text(text)
    built(place.engine, tmp_path, tags=("built-by-user",))
    assert out(place, "built-by-user", "cat /got") == ""


def test_secrets_are_handed_over(contained: Running, place: Place) -> None:
    _, client = contained
    execute(client, "os.environ['TOKEN'] = 'open-sesame'")
    outcome = build(
        client,
        "-t built-secret --secret id=t,env=TOKEN",
        "FROM base-of-builds\nRUN --mount=type=secret,id=t [ $(cat /run/secrets/t) = open-sesame ]",
    )
    assert outcome.status == "ok", outcome.errors
    assert base64.b64encode(b"open-sesame").decode() not in json.dumps(outcome.data)


def test_the_rules_hold(contained: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nbhull").mkdir()
    rules = tmp_path / "nbhull/config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    rules.write_text("[kernels]\nsiblings = false\n")
    assert "kernels.siblings = false" in failure(contained[1])
    rules.write_text('[images]\nallowed = ["host"]\n')
    for text in ("FROM base-of-builds", "FROM scratch\nLABEL a=1", "FROM scratch AS x\nCOPY --from=base-of-builds / /"):
        assert "images.allowed" in failure(contained[1], text=text)


def test_a_build_ends_with_its_kernel(start: Start, place: Place) -> None:
    manager, client = start("builder")
    client.execute("%%container build -t built-never\nFROM base-of-builds\nRUN exec sleep 1000", allow_stdin=False)
    eventually(lambda: left_over(place) != [], "the step runs")
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    assert left_over(place) == []
