"""The grammar: what BuildKit's own cases of its parser show, made anew and told in our own form."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbhull.runtime.builder import instructions, syntax
from nbhull.runtime.builder.syntax import Instruction
from nbhull.runtime.errors import InvalidInput


def told(instruction: Instruction) -> str:
    """An instruction in one line: its name, its flags in brackets, its arguments, and what ONBUILD holds."""
    words = [instruction.name]
    if instruction.flags:
        words.append(f"[{' '.join(instruction.flags)}]")
    words += [json.dumps(arg, ensure_ascii=False) for arg in instruction.args]
    if instruction.json:
        words.append("(list)")
    return " ".join([*words, *(f"<{told(inner)}>" for inner in instruction.trigger)])


def tree(text: str) -> list[str]:
    """All instructions of a file."""
    return [told(instruction) for instruction in syntax.parse(text.encode(errors="surrogateescape")).instructions]


CASES = {
    "one instruction": ("FROM busybox", ['from "busybox"']),
    "no line end, and white space around": ("  \n\tfrom   busybox  ", ['from "busybox"']),
    "names in any case": ("From a\nrUn ls", ['from "a"', 'run "ls"']),
    "carriage returns": ("FROM a\r\nRUN ls \\\r\n -l\r\n", ['from "a"', 'run "ls  -l"']),
    "byte order mark": ("\ufeffFROM a", ['from "a"']),
    "a mark within comments before": ("# hello\n\n   # world\nFROM a", ['from "a"']),
    "continued lines": (
        "FROM a\nRUN echo hello\\\n  world\\\n  goodnight  \\\n  moon\\\n  light\\\nning",
        ['from "a"', 'run "echo hello  world  goodnight    moon  lightning"'],
    ),
    "an escape alone in a line": (
        "FROM a\nRUN echo hi \\\n \\\n world \\\n\\\n good\\\n\\\nnight",
        ['from "a"', 'run "echo hi   world  goodnight"'],
    ),
    "white space behind an escape": ("FROM a\nRUN a \\  \t\n b", ['from "a"', 'run "a  b"']),
    "a comment within continued lines": (
        "FROM a\nRUN one \\\n# no\n  # neither\n two\nRUN three",
        ['from "a"', 'run "one  two"', 'run "three"'],
    ),
    "a comment that is not one": ("FROM a\nRUN echo # said", ['from "a"', 'run "echo # said"']),
    "empty lines within continued lines": ("FROM a\nRUN one \\\n\n\n two", ['from "a"', 'run "one  two"']),
    "continued at the end of the file": ("FROM a\nRUN something \\", ['from "a"', 'run "something"']),
    "two escapes continue nothing": (
        "FROM a\nENV C trailing\\\\\nENV D next",
        ['from "a"', 'env "C" "trailing\\\\\\\\"', 'env "D" "next"'],
    ),
    "another escape": (
        "# escape=`\nFROM a\nENV GOPATH `\n\\go\nRUN echo `\n C:\\x\\\nRUN b",
        ['from "a"', 'env "GOPATH" "\\\\go"', 'run "echo  C:\\\\x\\\\"', 'run "b"'],
    ),
    "another escape, with white space": ("  #  ESCAPE = `  \n\nFROM a\nENV b `\n=c", ['from "a"', 'env "b" "=c"']),
    "a directive too late": ("# a comment\n# escape=`\nFROM a\nRUN x \\\n y", ['from "a"', 'run "x  y"']),
    "a directive nobody knows ends them": ("# hello=1\n# escape=`\nFROM a\nRUN x \\\n y", ['from "a"', 'run "x  y"']),
    "all directives": (
        "# syntax=docker/dockerfile:1\n# check=skip=all\n# escape=\\\nFROM a",
        ['from "a"'],
    ),
    "lists": (
        'FROM a\nRUN [ "ls" , "-l" ]\nCMD ["a b"]\nENTRYPOINT []\nSHELL ["sh","-c"]\nCOPY ["a b", "/c"]\nVOLUME ["/d"]',
        [
            'from "a"',
            'run "ls" "-l" (list)',
            'cmd "a b" (list)',
            "entrypoint (list)",
            'shell "sh" "-c" (list)',
            'copy "a b" "/c" (list)',
            'volume "/d" (list)',
        ],
    ),
    "escapes in lists": (
        r"FROM a" "\n" r'CMD ["\/usr\\\"/bin", "\u2603\t"]',
        ['from "a"', r'cmd "/usr\\\"/bin" "☃\t" (list)'],
    ),
    "what only looks like a list": (
        'FROM a\nRUN [ "a", \'b\' ]\nCMD ["a" "b"]\nCMD [a]\nENTRYPOINT [ -x f ] && y\nCOPY [a] b',
        [
            'from "a"',
            'run "[ \\"a\\", \'b\' ]"',
            'cmd "[\\"a\\" \\"b\\"]"',
            'cmd "[a]"',
            'entrypoint "[ -x f ] && y"',
            'copy "[a]" "b"',
        ],
    ),
    "a list in a continued line": ('FROM a\nCMD [ \\\n"a", \\\n "b" ]', ['from "a"', 'cmd "a" "b" (list)']),
    "flags": (
        "FROM --platform=linux/amd64 a AS b\nCOPY --from=b --chown=1:2 --link x y\nRUN --mount=type=cache,target=/c "
        "--network=none ls --color\nADD --checksum=sha256:0 -- --x /y",
        [
            'from [--platform=linux/amd64] "a" "AS" "b"',
            'copy [--from=b --chown=1:2 --link] "x" "y"',
            'run [--mount=type=cache,target=/c --network=none] "ls --color"',
            'add [--checksum=sha256:0] "--x" "/y"',
        ],
    ),
    "quotes in flags": (
        "FROM a\nCOPY --from=\"b c\" --chown='x'y a\\ b /c\nHEALTHCHECK --interval=5s\\ 6 CMD x",
        ['from "a"', 'copy [--from=b c --chown=xy] "a\\\\" "b" "/c"', 'healthcheck [--interval=5s 6] "CMD" "x"'],
    ),
    "pairs": (
        'FROM a\nENV name value w  s\nENV a=b c=\'d e\' f="g h" i=\\ j k=l\\\n m=n o=\nLABEL x y\nLABEL "p q"=r',
        [
            'from "a"',
            'env "name" "value w  s"',
            'env "a" "b" "c" "\'d e\'" "f" "\\"g h\\"" "i" "\\\\ j" "k" "l" "m" "n" "o" ""',
            'label "x" "y"',
            'label "\\"p q\\"" "r"',
        ],
    ),
    "a pair whose value has an equals sign": ("FROM a\nENV a=b=c d==", ['from "a"', 'env "a" "b=c" "d" "="']),
    "arguments": (
        'ARG foo bar=baz\nFROM a\nARG abc="123 456" def',
        ['arg "foo" "bar=baz"', 'from "a"', 'arg "abc=\\"123 456\\"" "def"'],
    ),
    "health": (
        "FROM a\nHEALTHCHECK\nHEALTHCHECK --interval=5s --retries=3 \\\n  CMD /check --quiet\nHEALTHCHECK NONE\n"
        'HEALTHCHECK CMD ["a", "b"]\nHEALTHCHECK CONNECT TCP 7000',
        [
            'from "a"',
            "healthcheck",
            'healthcheck [--interval=5s --retries=3] "CMD" "/check --quiet"',
            'healthcheck "NONE"',
            'healthcheck "CMD" "a" "b" (list)',
            'healthcheck "CONNECT" "TCP 7000"',
        ],
    ),
    "onbuild": (
        'FROM a\nONBUILD RUN echo hi\nONBUILD COPY --chown=1 . /x\nonbuild cmd ["a"]\nONBUILD',
        [
            'from "a"',
            'onbuild <run "echo hi">',
            'onbuild <copy [--chown=1] "." "/x">',
            'onbuild <cmd "a" (list)>',
            "onbuild",
        ],
    ),
    "one text": (
        'FROM a\nMAINTAINER  Erik \\\\H <e@h.org>\\"\nWORKDIR /a b\nUSER  me\nSTOPSIGNAL SIGTERM',
        [
            'from "a"',
            'maintainer "Erik \\\\\\\\H <e@h.org>\\\\\\""',
            'workdir "/a b"',
            'user "me"',
            'stopsignal "SIGTERM"',
        ],
    ),
    "words": (
        "FROM a\nEXPOSE 80   443/tcp\t53/udp\nVOLUME /a /b",
        ['from "a"', 'expose "80" "443/tcp" "53/udp"', 'volume "/a" "/b"'],
    ),
    "tabs between": ("FROM\ta\nRUN\t\tls\t-l", ['from "a"', 'run "ls\\t-l"']),
    "unknown instructions": ("FROM a\nFLY me to the moon", ['from "a"', "fly"]),
}


@pytest.mark.parametrize("name", CASES)
def test_tree(name: str) -> None:
    text, expected = CASES[name]
    assert tree(text) == expected


def test_lines_are_numbered() -> None:
    text = "\n# c\n\nFROM a\n\n\n\n\nRUN one \\\n two\n\n# d\nRUN <<X cat\nthree\n\nX\nCOPY a b"
    found = syntax.parse(text.encode()).instructions
    assert [(one.line, one.end_line) for one in found] == [(4, 4), (9, 10), (13, 16), (17, 17)]


HEREDOCS = {
    "RUN ls": [],
    "USER <<EOF": [],
    "RUN <<EOF\nEOF": [("EOF", "", 0, True, False)],
    "RUN 3<<EOF\nEOF": [("EOF", "", 3, True, False)],
    'RUN "<<EOF"': [],
    "RUN '<<EOF'": [],
    "RUN \\<<EOF": [],
    "RUN <<<EOF": [],
    'RUN ["<<EOF"]': [],
    "RUN <<EOF\n\tfoo\n\tbar\nEOF": [("EOF", "\tfoo\n\tbar\n", 0, True, False)],
    "RUN <<-EOF\n\tfoo\n\tbar\nEOF": [("EOF", "\tfoo\n\tbar\n", 0, True, True)],
    "RUN <<-EOF\n\tfoo\n\t\tEOF": [("EOF", "\tfoo\n", 0, True, True)],
    "RUN <<-'EOF'\n\t$x\nEOF": [("EOF", "\t$x\n", 0, False, True)],
    'RUN <<E"O"F\n$x\nEOF': [("EOF", "$x\n", 0, False, False)],
    "RUN <<eo'f'\nx\neof": [("eof", "x\n", 0, False, False)],
    "RUN <<eo\\'f\nx\neo'f": [("eo'f", "x\n", 0, True, False)],
    "RUN <<'e'o\\'f\nx\neo'f": [("eo'f", "x\n", 0, False, False)],
    "RUN <<'one two'\nx\none two": [("one two", "x\n", 0, False, False)],
    "RUN <<$EOF\n$EOF": [("$EOF", "", 0, True, False)],
    "RUN <<  EOF\nEOF": [("EOF", "", 0, True, False)],
    "RUN << -EOF\n-EOF": [("-EOF", "", 0, True, False)],
    "RUN <<- EOF > foo\nEOF": [("EOF", "", 0, True, True)],
    "RUN <<EOF\n# no comment\nx # nor this\nEOF": [("EOF", "# no comment\nx # nor this\n", 0, True, False)],
    "RUN <<EOF\na \\\nb\n\nEOF": [("EOF", "a \\\nb\n\n", 0, True, False)],
    "RUN <<EOF\r\nx\r\nEOF\r\n": [("EOF", "x\r\n", 0, True, False)],
    "RUN --mount=type=cache,target=/f <<EOF sh\nx\nEOF": [("EOF", "x\n", 0, True, False)],
    "COPY <<A <<B /d\na\nA\nb\nB": [("A", "a\n", 0, True, False), ("B", "b\n", 0, True, False)],
    "COPY <<X <<Y /d\nY\nX\nX\nY": [("X", "Y\n", 0, True, False), ("Y", "X\n", 0, True, False)],
    "ADD <<file.txt /d\nx\nfile.txt": [("file.txt", "x\n", 0, True, False)],
    "ONBUILD RUN <<EOF\nx\nEOF": [("EOF", "x\n", 0, True, False)],
    "RUN <<EOF cat \\\n  -\nx\nEOF": [("EOF", "x\n", 0, True, False)],
}


@pytest.mark.parametrize("text", HEREDOCS)
def test_heredocs(text: str) -> None:
    (_, instruction) = syntax.parse(f"FROM a\n{text}".encode()).instructions
    found = [(h.name, h.content, h.descriptor, h.expands, h.strips_tabs) for h in instruction.heredocs]
    assert found == HEREDOCS[text]
    assert all(inner.heredocs == instruction.heredocs for inner in instruction.trigger)


def test_leading_tabs_of_a_heredoc_are_taken_off() -> None:
    (_, one) = syntax.parse(b"FROM a\nRUN <<-E\n\thello\n\t\tworld\n x\n\tE\n").instructions
    assert one.heredocs[0].text() == "hello\nworld\n x\n"


WRONG = {
    "": "no instructions",
    "# just a comment\n": "no instructions",
    "FROM a\nENV x": "f:2: ENV has a name without a value",
    "FROM a\nENV a=b c": "f:2: there is no '=' in 'c'",
    "FROM a\nLABEL a=b c": "f:2: there is no '=' in 'c'",
    'FROM a\nCMD ["a", 1]': "f:2: the JSON list has something in it",
    'FROM a\nCMD ["a", [["b"]]]': "f:2: the JSON list has something in it",
    'FROM a\nCMD ["a", null]': "f:2: the JSON list has something in it",
    "FROM a\n\nRUN <<EOF\nx\n": "f:3: the heredoc 'EOF' does not end",
    "# escape=x\nFROM a": "f:1: 'x' cannot be the escape character",
    "# escape=\\\n# escape=`\nFROM a": "f:2: the parser directive 'escape' is given twice",
    "FROM a\nLABEL test=" + "a" * 65536: "f:2: a line is longer",
    "RUN ls": "f:1: RUN stands before the first FROM",
    "ARG a": "f has no FROM",
    "FROM": "f:1: FROM takes one argument, or three",
    "FROM a b c": "f:1: FROM takes one argument, or three",
    "FROM a AS 1x": "f:1: '1x' cannot be a stage's name",
    "FROM a AS x\nFROM b AS X": "f:2: there is another stage 'x'",
    "FROM a\nFLY": "f:2: there is no instruction 'FLY'",
    "FROM a\nCOYP a b": "did you mean COPY?",
    "FROM a\nRUN": "f:2: RUN has no argument",
    "FROM a\nRUN []": "f:2: RUN has no command",
    "FROM a\nCOPY a": "f:2: COPY has no destination",
    "FROM a\nCOPY a <<E\nE": "f:2: the destination of COPY is a heredoc",
    "FROM a\nCOPY --from=x --from=y a b": "f:2: COPY has --from twice",
    "FROM a\nCOPY --form=x a b": "f:2: COPY knows no flag --form",
    "FROM a\nCOPY --link=maybe a b": "f:2: --link=maybe is neither true nor false",
    "FROM a\nCOPY --chown a b": "f:2: --chown has no value",
    "FROM a\nUSER": "f:2: USER takes exactly one argument",
    "FROM a\nUSER --x y": "f:2: USER knows no flag --x",
    "FROM a\nSHELL sh -c": "f:2: SHELL is no JSON list",
    "FROM a\nENV =x": "f:2: a name of ENV is empty",
    "FROM a\nARG =x": "f:2: a name of ARG is empty",
    "FROM a\nHEALTHCHECK": "f:2: HEALTHCHECK has no argument",
    "FROM a\nHEALTHCHECK NONE x": "f:2: HEALTHCHECK NONE takes no arguments",
    "FROM a\nHEALTHCHECK CONNECT x": "f:2: HEALTHCHECK knows no 'CONNECT'",
    "FROM a\nHEALTHCHECK CMD": "f:2: HEALTHCHECK CMD has no command",
    "FROM a\nHEALTHCHECK --interval=5 CMD x": "f:2: --interval=5 is not a duration",
    "FROM a\nHEALTHCHECK --interval=5ns CMD x": "f:2: --interval=5ns is less than a millisecond",
    "FROM a\nHEALTHCHECK --retries=-1 CMD x": "f:2: --retries=-1 is not a whole number",
    "FROM a\nONBUILD": "f:2: ONBUILD has no instruction in it",
    "FROM a\nONBUILD ONBUILD RUN x": "f:2: ONBUILD cannot stand within ONBUILD",
    "FROM a\nONBUILD FROM x": "f:2: FROM cannot stand within ONBUILD",
    "FROM a\nONBUILD FLY": "f:2: there is no instruction 'FLY'",
}


@pytest.mark.parametrize("text", WRONG)
def test_errors_name_the_file_and_the_line(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        instructions.program(syntax.parse(text.encode(), "f"), "f")
    assert WRONG[text] in str(caught.value)
    assert caught.value.hint


def test_stages() -> None:
    text = "ARG v=1\nFROM a:$v AS Build\nRUN x\nFROM scratch\nCOPY --from=build --exclude=*.o --exclude=t /x /\n"
    made = instructions.program(syntax.parse(text.encode()))
    assert [(stage.name, stage.base, [c.name for c in stage.commands]) for stage in made.stages] == [
        ("build", "a:$v", ["run"]),
        ("1", "scratch", ["copy"]),
    ]
    assert [command.args for command in made.arguments] == [("v=1",)]
    flags = made.stages[1].commands[0].flags
    assert (flags["from"], flags["link"], flags["exclude"]) == ("build", False, ("*.o", "t"))


def test_onbuild_keeps_its_text_with_heredocs() -> None:
    text = "FROM a\nONBUILD RUN <<E cat\nhi\nE\n"
    (command,) = instructions.program(syntax.parse(text.encode())).stages[0].commands
    again = syntax.parse(command.args[0].encode()).instructions[0]
    assert (again.name, again.args, again.heredocs[0].content) == ("run", ("<<E cat",), "hi\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("5s", 5 * 10**9), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), ("250ms", 25 * 10**7)],
)
def test_durations(text: str, expected: int) -> None:
    assert instructions.duration(text, "--interval") == expected


def test_an_empty_line_in_a_continued_one_is_warned_of() -> None:
    parsed = syntax.parse(b"FROM a\nRUN one \\\n\n two\nRUN three \\\n # c\n four\n")
    assert parsed.warnings == ("Containerfile:2: an empty line within a continued one",)


PIECES = st.sampled_from(
    [
        "FROM",
        "RUN",
        "COPY",
        "ENV",
        "ONBUILD",
        "HEALTHCHECK",
        "ARG",
        "\n",
        "\\\n",
        " ",
        "\t",
        "\r\n",
        "#",
        "<<",
        "<<-",
        "EOF",
        "'",
        '"',
        "[",
        "]",
        ",",
        "=",
        "--",
        "--from=",
        "$",
        "${",
        "}",
        "\\",
        "`",
        "# escape=`\n",
        "a",
        "1",
        "\0",
        "é",
        "\ufeff",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.lists(PIECES, max_size=40).map("".join), st.text(max_size=200)))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    data = text.encode(errors="surrogatepass")
    refused, made = None, None
    try:
        made = instructions.program(syntax.parse(data, "f"), "f")
    except InvalidInput as error:
        refused = error
    if made is not None:
        assert made.stages
        assert all(0 < command.line <= len(data) + 1 for stage in made.stages for command in stage.commands)
    else:
        assert refused is not None
        assert refused.message.startswith("f")
        assert refused.hint


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    message = "f:"
    try:
        syntax.parse(b"FROM a\n" + data, "f")
    except InvalidInput as error:
        message = error.message
    assert message.startswith("f:")
