"""Variables, quotes and escapes, as BuildKit's own tables of them show."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbhull.runtime.builder.expansion import Rules, expand, expand_words
from nbhull.runtime.errors import InvalidInput

HERE = {
    "HOME": "/root",
    "SHELL": "ash",
    "CITY": "서울",
    "EMPTY": "",
    "V": "xxyy",
    "STARS": "a***yy*",
    "P": "/tmp/tmp/b.txt",
}

TEXTS = {
    "plain": "plain",
    "pl'ai'n": "plain",
    "pl\\'ain": "pl'ain",
    "a\\tb": "atb",
    '"a\\tb"': "a\\tb",
    '"a\\\\tb"': "a\\tb",
    "'a\\\\tb'": "a\\\\tb",
    "end\\": "end",
    "end\\\\": "end\\",
    "'end\\'": "end\\",
    '"it\'s"': "it's",
    "'\"x\"'": '"x"',
    "$.": "$.",
    "a$": "a$",
    "a$1b": "ab",
    "a$11b": "ab",
    "a$.b": "a$.b",
    "a$home.": "a.",
    "a$HOME": "a/root",
    "a\\$HOME": "a$HOME",
    "a\\\\$HOME": "a\\/root",
    '"a\\$HOME"': "a$HOME",
    "'a$HOME'": "a$HOME",
    "'\\$HOME'": "\\$HOME",
    "\"a'$HOME'\"": "a'/root'",
    "\\${}x": "${}x",
    "a${no}b": "ab",
    "a${HOME}b": "a/rootb",
    "$CITY 부산": "서울 부산",
    "${CITY:-x}": "서울",
    "$$": "",
    "$@x": "x",
    "${no:-d}": "d",
    "${no-d}": "d",
    "${EMPTY:-d}": "d",
    "${EMPTY-d}": "",
    "${HOME:-d}": "/root",
    "${no:-$HOME}": "/root",
    "${no:-${HOME:-y}}z": "/rootz",
    "${no:-${non:-y}}z": "yz",
    "${no:-'a b'}": "a b",
    "${HOME:+d}": "d",
    "${HOME:+${SHELL}}": "ash",
    "${EMPTY:+d}": "",
    "${EMPTY+d}": "d",
    "${no+d}": "",
    "${HOME?why}": "/root",
    "${EMPTY?why}": "",
    "${V#*x}": "xyy",
    "${V##*x}": "yy",
    "${V#*x*y}": "y",
    "${V#*}": "xxyy",
    "${V##*}": "",
    "${V#}": "xxyy",
    "${V#?}": "xyy",
    "${V#z}": "xxyy",
    "${V%y*}": "xxy",
    "${V%%y*}": "xx",
    "${V%x}": "xxyy",
    "${V%}": "xxyy",
    "${STARS%%\\**\\*}": "a",
    "${STARS%\\*}": "a***yy",
    "${V#$EMPTY}": "xxyy",
    "${V%${V#xx}}": "xx",
    "${P/\\/tmp/}": "/tmp/b.txt",
    "${P//\\/tmp/}": "/b.txt",
    "${P/t?p/X}": "/X/tmp/b.txt",
    "${P/\\/*\\//:}": ":b.txt",
    "${V/$EMPTY/w}": "wxxyy",
    "${V//x/$HOME}": "/root/rootyy",
    "${V/q/w}": "xxyy",
    "${no/a/b}": "",
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts(text: str) -> None:
    assert expand(text, HERE) == TEXTS[text]


WRONG = [
    "pl'ain",
    '"plain',
    '"plain\\"',
    "'plain",
    "${}",
    "a${}",
    "${",
    "${HOME",
    "${.}",
    "${:x}",
    "${{x}",
    "${no:x}",
    "${no:?}",
    "${no?}",
    "${EMPTY:?}",
    "${no:?why}",
    "${HOME=x}",
    "${HOME:=x}",
    "${HOME:-x",
    "${V/x",
    "${V/x/y",
    "${V#\\x}",
    "${V//ww}",
    "${no:-${non}",
]


@pytest.mark.parametrize("text", WRONG)
def test_wrong_texts(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        expand(text, HERE)
    assert caught.value.hint


def test_the_message_of_a_variable_that_must_be_set() -> None:
    with pytest.raises(InvalidInput, match="no: give /root"):
        expand("${no:?give $HOME}", HERE)


WORDS = {
    "": [],
    "  a  b ": ["a", "b"],
    "a' 'b c": ["a b", "c"],
    'a" b"': ["a b"],
    "a\\ b c": ["a b", "c"],
    "$two": ["x", "y"],
    '"$two"': ["x y"],
    "a$two": ["ax", "y"],
    "${two:-z} ${no:-p q}": ["x", "y", "p", "q"],
    "'' a": ["a"],
}


@pytest.mark.parametrize("text", WORDS)
def test_words(text: str) -> None:
    assert expand_words(text, {"two": "x y"}) == WORDS[text]


@pytest.mark.parametrize(
    ("rules", "text", "expected"),
    [
        (Rules("`"), "`$HOME \\$HOME a\\b", "$HOME \\/root a\\b"),
        (Rules("`"), '"`" `x"', '" `x'),
        (Rules(quotes=False), "'$HOME' \"x", "'/root' \"x"),
        (Rules(keep_quotes=True), "'a b' \"$HOME\"", "'a b' \"/root\""),
        (Rules(keep_escapes=True), "a\\ b \\$HOME", "a\\ b \\$HOME"),
        (Rules(keep_unset=True), "$no ${no} ${no:-x} ${no#y} $HOME", "$no ${no} ${no:-x} ${no#y} /root"),
        (Rules(keep_unset=True), "${no/a/b} ${no//a/b}", "${no/a/b} ${no//a/b}"),
    ],
)
def test_rules(rules: Rules, text: str, expected: str) -> None:
    assert expand(text, HERE, rules) == expected


PIECES = st.sampled_from(
    ["$", "${", "}", ":", "-", "+", "#", "%", "/", "?", "*", "\\", "'", '"', " ", "V", "no", "x", "`"]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join), st.booleans())
def test_any_text_is_expanded_or_refused(text: str, keep: bool) -> None:
    try:
        expanded = expand(text, HERE, Rules(keep_unset=keep))
        expand_words(text, HERE)
    except InvalidInput:
        return
    assert isinstance(expanded, str)


def test_many_wildcards_take_no_time() -> None:
    assert expand("${A##" + "*a" * 200 + "b}", {"A": "a" * 2000}) == "a" * 2000


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab", max_size=8), st.text(alphabet="ab*?", max_size=6))
def test_patterns_match_as_a_shell_s(value: str, pattern: str) -> None:
    """Against the definition: the shortest and the longest beginning and end that the pattern matches."""
    from fnmatch import fnmatchcase

    starts = [length for length in range(len(value) + 1) if fnmatchcase(value[:length], pattern)]
    ends = [at for at in range(len(value) + 1) if fnmatchcase(value[at:], pattern)]
    variables = {"V": value}
    if not pattern.startswith(("#", "%")):
        assert expand(f"${{V#{pattern}}}", variables) == (value[min(starts) :] if starts else value)
        assert expand(f"${{V##{pattern}}}", variables) == (value[max(starts) :] if starts else value)
        assert expand(f"${{V%{pattern}}}", variables) == (value[: max(ends)] if ends else value)
        assert expand(f"${{V%%{pattern}}}", variables) == (value[: min(ends)] if ends else value)
