"""%container in a real IPython shell that runs in no container, and how results are shown."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from nbhull.kernel.rpc import ContainerError
from nbhull.magics.display import Shown
from nbhull.runtime.verbs.results import Fields, Names, Table


def test_images_on_the_host(shell: InteractiveShell) -> None:
    shown = shell.run_line_magic("container", "images")
    assert shown.data[0]["name"] == "host"
    assert "host" in repr(shown)
    assert "<table>" in shown._repr_html_()


@pytest.mark.parametrize("line", ["", "snapshot", "reset"])
def test_there_is_no_container_here(shell: InteractiveShell, line: str) -> None:
    with pytest.raises(ContainerError, match="does not run in a container"):
        shell.run_line_magic("container", line)


@pytest.mark.parametrize(
    ("line", "reason"), [("snapshto", "snapshot"), ("snapshot 'a", "quotation"), ("ps --x", "--x")]
)
def test_a_slip(shell: InteractiveShell, line: str, reason: str) -> None:
    with pytest.raises(ContainerError, match=reason):
        shell.run_line_magic("container", line)


def test_an_error_is_shown_without_a_traceback(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell("%container snapshot")
    assert isinstance(result.error_in_exec, ContainerError)
    printed = capsys.readouterr()
    assert "nbhull: this kernel does not run in a container" in printed.out + printed.err
    assert "Traceback" not in printed.out + printed.err


def test_help(shell: InteractiveShell) -> None:
    assert "snapshot" in repr(shell.run_line_magic("container", "help"))


def test_names_are_escaped() -> None:
    hostile = "<script>alert(1)</script>"
    table = Shown(Table([hostile], [[hostile]], [{}]))._repr_html_()
    fields = Shown(Fields([(hostile, hostile)], {}))._repr_html_()
    assert table is not None
    assert fields is not None
    assert "<script" not in table + fields
    assert table.count("&lt;script&gt;") == 2


def test_plain_results_have_no_html() -> None:
    assert Shown(Names(["a", "b"]))._repr_html_() is None
    assert repr(Shown(Names(["a", "b"]))) == "a\nb"
