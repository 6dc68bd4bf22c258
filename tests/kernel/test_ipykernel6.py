"""The IPython side on ipykernel 6: all other tests have the one of the environment, which is 7 or later."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from jupyter_client.manager import KernelManager

from support import older_ipykernel
from support.jupyter import PATIENCE, Place, Running, execute, install_spec, kernels_by_name, make_image, value

INSIDE = "/opt/ipykernel-6"


@pytest.fixture(scope="module")
def kernels(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    """A kernel in a container, `older`, and an ordinary one, `python3`, for all tests of this module."""
    library = older_ipykernel.folder()
    install_spec("older", place.prefix, mounts=[f"{library}:{INSIDE}:ro"], environment={"PYTHONPATH": INSIDE})

    def start(name: str, manager: KernelManager) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if name == "python3":
                patch.setenv("PYTHONPATH", str(library))
            manager.start_kernel(cwd=str(tmp_path_factory.mktemp("older")))

    with kernels_by_name(start) as get:
        yield get


@pytest.fixture(params=["older", "python3"])
def both(request: pytest.FixtureRequest, kernels: Callable[[str], Running]) -> Running:
    return kernels(request.param)


@pytest.fixture
def contained(kernels: Callable[[str], Running]) -> Running:
    return kernels("older")


def test_it_is_that_one(both: Running) -> None:
    assert value(both[1], "__import__('ipykernel').version_info[0]") == "6"


def test_cells_in_other_containers(both: Running) -> None:
    _, client = both
    assert execute(client, "%%container run host\necho said; exit 3").text == "said\n"
    code = "import asyncio\nawait asyncio.sleep(0)\n%container run host echo from a cell that awaits"
    assert execute(client, code).text == "from a cell that awaits\n"
    assert "host" in execute(client, "images = %container images\nprint(images[0]['name'])").text


@pytest.mark.parametrize("before", ["", "import asyncio\nawait asyncio.sleep(0)\n"])
def test_an_interrupt(both: Running, before: str) -> None:
    manager, client = both
    request = client.execute(f"{before}%container run host sh -c 'echo seen; exec sleep 1000'", allow_stdin=False)
    text = ""
    while "seen\n" not in text:  # it may come in pieces
        text += client.get_iopub_msg(timeout=PATIENCE)["content"].get("text", "")
    manager.interrupt_kernel()
    while (reply := client.get_shell_msg(timeout=PATIENCE))["parent_header"]["msg_id"] != request:
        pass
    assert reply["content"]["ename"] == "CellInterrupted"


def test_progress_is_one_display(both: Running) -> None:
    outcome = execute(both[1], "%%container build\nFROM no-such-base")
    assert "cell:2: there is no image" in outcome.evalue


def test_snapshot_reset_and_undo(contained: Running) -> None:
    _, client = contained
    execute(client, "open('/root/mine', 'w').write('1'); kept = 1")
    assert execute(client, "%container snapshot of-older").status == "ok"
    execute(client, "open('/root/mine', 'w').write('2')")
    assert execute(client, "import asyncio\nawait asyncio.sleep(0)\n%container reset of-older").status == "ok"
    assert value(client, "open('/root/mine').read(), 'kept' in globals()") == "1 False"
    assert execute(client, "%container undo").status == "ok"
    assert value(client, "open('/root/mine').read()") == "2"


def test_memory(contained: Running) -> None:
    _, client = contained
    execute(client, "kept = [1]")
    assert execute(client, "%container snapshot --memory memory-of-older").status == "ok"
    execute(client, "kept.append(2)")
    outcome = execute(client, "%container reset memory-of-older")
    assert "files and memory are as they were" in outcome.text, outcome
    assert value(client, "kept") == "[1]"


def test_another_image(contained: Running, place: Place) -> None:
    _, client = contained
    image = make_image(place, "image-of-older", "echo other >/srv/which")
    assert execute(client, f"%container use {image}").status == "ok"
    assert value(client, "open('/srv/which').read(), __import__('ipykernel').version_info[0]") == "other\n 6"
    assert execute(client, "%container undo").status == "ok"


def test_the_panel_and_the_picker(contained: Running) -> None:
    _, client = contained
    for verb in ("panel", "picker"):
        outcome = execute(client, f"%container {verb}")
        assert outcome.status == "ok", outcome.errors
        assert "application/vnd.jupyter.widget-view+json" in outcome.data[-1]
