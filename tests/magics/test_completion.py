"""Completion and `?` of %container in a real shell on the host."""

from __future__ import annotations

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell


def completed(shell: InteractiveShell, line: str) -> set[str]:
    """What the shell offers at the end of a line."""
    with provisionalcompleter():
        return {completion.text for completion in shell.Completer.completions(line, len(line))}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%container im", "images"),
        ("%container help im", "images"),
        ("%container ps --a", "--all"),
        ("%container use ho", "host"),
        ("%container build --no-con", "--no-context"),
        ("%container pi", "picker"),
    ],
)
def test_on_the_host(shell: InteractiveShell, line: str, offered: str) -> None:
    assert offered in completed(shell, line)


def test_other_lines_are_left_alone(shell: InteractiveShell) -> None:
    assert "images" not in completed(shell, "%containers im")
    assert shell.transform_cell("len?") != shell.transform_cell("%container help")
    assert "help snapshot" in shell.transform_cell("%container snapshot?")
    assert shell.transform_cell("x = 1\n%container?\n").count("help") == 0
