"""Patterns of `.containerignore`, each with paths that it leaves out and paths that it does not."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbhull.runtime.builder.ignore import from_patterns, parse, translate
from nbhull.runtime.errors import InvalidInput

CASES: list[tuple[str, str, str]] = [
    ("a", "a a/b a/b/c", "b ab b/a"),
    ("/a", "a a/b", "b/a"),
    ("a/", "a a/b", "b"),
    ("./a/../b", "b b/c", "a"),
    ("../b", "", "b a/b"),
    ("*", "a a/b .x", ""),
    (".", "", "a a/b"),
    ("*.py", "x.py .py x.py/y", "a/x.py xpy"),
    ("*/x", "a/x a/x/y", "x a/b/x"),
    ("**/x", "x a/x a/b/x a/x/y", "xx ax a/xx"),
    ("**/*.o", "x.o a/x.o a/b/c.o", "xo a/xo"),
    ("a/**", "a/b a/b/c", "a b ab/c"),
    ("a/**/b", "a/b a/x/b a/x/y/b a/x/b/c", "a ab axb x/a/b"),
    ("**", "a a/b", ""),
    ("a**b", "ab a/b ax/b a/x/b", "axb b"),
    ("a?c", "abc axc", "ac a/c abbc"),
    ("[a-c]x", "ax bx cx", "dx x"),
    ("[^a-c]x", "dx", "ax bx /x"),
    ("[ab-]x", "-x ax bx", "cx"),
    ("[]a]x", "]x ax", "bx"),
    ("a\\*b", "a*b", "axb ab"),
    ("a\\[b", "a[b", "ab"),
    ("a.b", "a.b", "axb"),
    ("a+b(c)", "a+b(c)", "aab(c)"),
    ("# x", "", "x"),
    ("a\n!a/b", "a a/c", "a/b a/b/c"),
    ("*\n!a/b\na/b/c", "x a a/b/c", "a/b a/b/d"),
    ("*.md\n!README*.md\nREADME-secret.md", "x.md README-secret.md", "README.md README-x.md"),
    ("*.md\nREADME-secret.md\n!README*.md", "x.md", "README.md README-secret.md"),
    ("!a\na", "a a/b", "b"),
    ("**\n!**/*.py", "a a/b", "a.py a/b.py a/b/c.py"),
    ("a\n!a/**/k", "a a/b", "a/k a/b/k"),
    ("  a  \n\n   \n! a/b", "a", "a/b"),
]


@pytest.mark.parametrize(("text", "left_out", "kept"), CASES)
def test_patterns(text: str, left_out: str, kept: str) -> None:
    ignore = parse(text)
    assert [path for path in left_out.split() if not ignore.ignores(path)] == []
    assert [path for path in kept.split() if ignore.ignores(path)] == []


@pytest.mark.parametrize("text", ["a\n!", "a\n[a", "a\nb\\", "x\n[b-a]"])
def test_wrong_patterns_are_named_with_their_line(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"^\.containerignore:2: "):
        parse(text)


@pytest.mark.parametrize(
    ("text", "folder", "needed"),
    [
        ("a", "a", False),
        ("a\n!a/b", "a", True),
        ("*\n!a/b", "x", False),
        ("*\n!a/b", "a/c", False),
        ("*\n!**/b", "x/y", True),
        ("*\n!*/b", "x", True),
        ("*\n!a*/b/c", "ax/b", True),
        ("*\n!a*/b/c", "bx/b", False),
    ],
)
def test_folders_are_looked_into_only_for_exceptions(text: str, folder: str, needed: bool) -> None:
    assert parse(text).needs_look(folder) is needed


PATHS = st.lists(st.sampled_from(["a", "b", "ab", "a.b", "[x]", "é"]), min_size=1, max_size=4).map("/".join)
PATTERN = st.text(alphabet="ab*?/!.[]^-\\ x", min_size=1, max_size=8)


@settings(max_examples=300, deadline=None)
@given(st.lists(PATTERN, max_size=4).map("\n".join), PATHS)
def test_any_patterns_mean_something_or_are_refused(text: str, path: str) -> None:
    try:
        ignore = parse(text)
    except InvalidInput:
        return
    ignored = ignore.ignores(path)
    if not ignore.exceptions and ignored:
        assert ignore.ignores(f"{path}/below")  # without exceptions, all that is in a folder goes with it
    if ignored is False and "/" in path and ignore.ignores(path.rpartition("/")[0]):
        assert ignore.needs_look(path.rpartition("/")[0])


@settings(max_examples=200, deadline=None)
@given(PATHS)
def test_a_quoted_path_matches_itself_alone(path: str) -> None:
    quoted = re.sub(r"([\[\]*?\\])", r"\\\1", path)
    assert re.fullmatch(translate(quoted), path)
    assert from_patterns((quoted,)).ignores(path)
