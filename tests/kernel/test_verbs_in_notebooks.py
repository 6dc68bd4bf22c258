"""The verbs of the command line, said in notebooks: in an ordinary kernel on the host, and in a container."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from nbhull import load_ipython_extension
from nbhull.kernel.rpc import ContainerError
from nbhull.runtime.model import ContainerSpec
from support.jupyter import Place, Start, execute, make_image
from support.roots import busybox_root


@pytest.fixture
def shell(place: Place, folder: Path) -> InteractiveShell:
    """A shell of IPython's in this process, which runs in no container."""
    shell = InteractiveShell()
    shell.history_manager.end_session()
    load_ipython_extension(shell)
    return shell


def test_on_the_host_by_the_engine(shell: InteractiveShell, place: Place) -> None:
    make_image(place, "made-here", "echo kept > /srv/kept")

    def say(line: str) -> Any:
        return shell.run_line_magic("container", line)

    images = say("images")
    assert [image["name"] for image in images if image["name"] == "made-here"] == ["made-here"]
    assert len(images) >= 2
    assert images[0]["name"] == "host"
    assert "<table>" in images._repr_html_()
    assert say("tag made-here other-name").data == ["other-name"]
    assert say("inspect other-name")[0]
    say("history other-name")
    assert any(share["count"] for share in say("df"))
    say("rmi other-name made-here")
    assert "made-here" not in [image["name"] for image in say("images")]
    for line in ("rmi other-name", "rm no-such-box", "stop no-such-box", "inspect nothing", "pull nothing.invalid/x"):
        with pytest.raises(ContainerError):
            say(line)


def test_archives_and_containers_on_the_host(
    shell: InteractiveShell, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    def say(line: str) -> Any:
        return shell.run_line_magic("container", line)

    place.engine.catalog.import_root([busybox_root()], ["archived-here"])
    spec = ContainerSpec(name="box-of-verbs", image="archived-here")
    container = place.engine.start(place.engine.create(spec).id)
    try:
        say("exec -w /tmp box-of-verbs sh -c 'pwd; echo of-errors >&2; echo kept >file'")
        said = capsys.readouterr()
        assert (said.out, said.err) == ("/tmp\n", "of-errors\n")
        with pytest.raises(ContainerError, match="ended with status 3"):
            say("exec box-of-verbs sh -c 'exit 3'")
        with pytest.raises(ContainerError, match="no-such-program"):
            say("exec box-of-verbs no-such-program")
        assert say("commit -c 'CMD [\"x\"]' box-of-verbs committed-here").data == ["committed-here"]
        say("export -o box.tar box-of-verbs")
        assert Path("box.tar").stat().st_size
    finally:
        place.engine.remove(container.id, force=True)
    say("save -o image.tar archived-here")
    say("rmi archived-here committed-here")
    assert say("load -i image.tar").data == ["archived-here"]
    Path("root.tar").write_bytes(busybox_root())
    assert say("import root.tar imported-here").data == ["imported-here"]
    say("rmi archived-here imported-here")
    for line in ("save -o - host", "load", "import - x", "export box"):
        with pytest.raises(ContainerError, match="no standard input and output"):
            say(line)


def test_in_a_container_a_verb_for_the_machine_says_where(start: Start) -> None:
    _, client = start()
    outcome = execute(client, "%container rmi host")
    assert outcome.status == "error"
    assert "is about more than the container" in outcome.evalue
    assert "nbhull rmi host" in outcome.evalue
    assert execute(client, "images = %container images\nprint(images[0]['name'], len(images))").text.startswith("host")


def test_in_a_terminal_s_ipython(place: Place, folder: Path) -> None:
    code = "%load_ext nbhull\n%container images\n%container run host echo from-a-cell\n"
    (folder / "session.ipy").write_text(code)
    command = [str(Path(sys.executable).with_name("ipython")), "--no-banner", "--colors=NoColor", "session.ipy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "from-a-cell" in done.stdout, done.stderr
