"""The grammar of a Containerfile: from its bytes to instructions with flags, arguments and heredocs.

As BuildKit reads it (https://docs.docker.com/reference/dockerfile/): parser directives, lines continued by the escape
character, comments within continued lines, arguments in JSON form, heredocs. Nothing is expanded or looked up here.
"""

from __future__ import annotations

import re

from nbhull.runtime.builder.expansion import SPACES, Rules, expand_words
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.record import Record

LONGEST_LINE = 65535
"""bytes"""
LARGEST_FILE = 8 << 20
"""bytes"""
DIRECTIVES = ("syntax", "escape", "check")
DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
HEREDOC = re.compile(r"(\d*)<<(-?)\s*([^<]+)")
BLANKS = re.compile(r"[\t\v\f\r ]+")
LISTS = ("add", "copy", "volume")
"""instructions whose arguments are a JSON list or words"""
COMMANDS = ("cmd", "entrypoint", "run", "shell")
"""instructions whose arguments are a JSON list or one text"""
PAIRS = ("env", "label")
WITH_HEREDOCS = ("add", "copy", "run")
KNOWN = (
    "add arg cmd copy entrypoint env expose from healthcheck label maintainer onbuild run shell stopsignal user volume "
    "workdir"
).split()


class Heredoc(Record):
    """A document within the Containerfile."""

    name: str
    content: str
    """with its line ends; leading tabs are still there"""
    descriptor: int = 0
    """number before `<<`"""
    expands: bool = True
    """whether variables in it are replaced: no part of the name was quoted"""
    strips_tabs: bool = False
    """written with `<<-`"""

    def text(self) -> str:
        """The content as it is meant: without leading tabs where `<<-` says so."""
        return re.sub(r"^\t+", "", self.content, flags=re.MULTILINE) if self.strips_tabs else self.content


class Instruction(Record):
    """One instruction as it is written."""

    name: str
    """in lower case"""
    flags: tuple[str, ...] = ()
    """with their dashes, quotes and escapes taken off"""
    args: tuple[str, ...] = ()
    """of `env` and `label`: names and values in turn"""
    json: bool = False
    """the arguments were a JSON list"""
    heredocs: tuple[Heredoc, ...] = ()
    line: int = 0
    """where it begins, from 1"""
    end_line: int = 0
    original: str = ""
    """its text, continued lines joined"""
    trigger: tuple[Instruction, ...] = ()
    """of `onbuild`: the one instruction in it"""


class Containerfile(Record):
    """A parsed file."""

    instructions: tuple[Instruction, ...]
    escape: str
    directives: dict[str, str]
    warnings: tuple[str, ...] = ()


class Lines:
    """The lines of a file, one after the other, and the number of the one last taken."""

    def __init__(self, text: str, name: str, before: int = 0) -> None:
        """`before`: lines that stand above the text where `name` is read."""
        self.left = [""] * before + text.split("\n")
        if self.left[-1] == "":
            self.left.pop()
            self.ends = True
        else:
            self.ends = False
        self.name = name
        self.number = before

    def take(self) -> str | None:
        """The next line with its end, None when there are no more. Raises InvalidInput for one too long."""
        if self.number == len(self.left):
            return None
        line = self.left[self.number]
        self.number += 1
        if len(line) > LONGEST_LINE or len(line.encode(errors="surrogateescape")) > LONGEST_LINE:
            raise self.wrong(InvalidInput(f"a line is longer than {LONGEST_LINE:,} bytes", "continue it in a next one"))
        return line + ("\n" if self.number < len(self.left) or self.ends else "")

    def wrong(self, error: InvalidInput, line: int = 0) -> InvalidInput:
        """The error with the file's name and the line's number before it."""
        return InvalidInput(f"{self.name}:{line or self.number}: {error.message}", error.hint)


def parse(data: bytes, name: str = "Containerfile", before: int = 0) -> Containerfile:
    """Parse a file; `name` is said in errors, and lines are counted from `before` on. Raises InvalidInput, with the
    line's number."""
    if len(data) > LARGEST_FILE:
        raise InvalidInput(f"{name} is larger than {LARGEST_FILE >> 20} MiB", "is it the right file?")
    lines = Lines(data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape"), name, before)
    return Parser(lines).parse()


class Parser:
    """One file being parsed."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.directives: dict[str, str] = {}
        self.in_directives = True
        self.warnings: list[str] = []
        self.set_escape("\\")

    def set_escape(self, escape: str) -> None:
        """The escape character; a line that ends in one, not itself escaped, goes on in the next line."""
        self.escape = escape
        mark = re.escape(escape)
        self.continues = re.compile(rf"(?:(?<=[^{mark}])|^){mark}[ \t]*\Z")

    def parse(self) -> Containerfile:
        """All instructions."""
        found: list[Instruction] = []
        while (raw := self.lines.take()) is not None:
            text = raw.rstrip("\r\n").lstrip(SPACES)
            self.read_directive(text)
            start = self.lines.number
            if text.startswith("#"):
                continue
            line, goes_on = self.cut(text)
            if line or goes_on:
                found.append(self.instruction(self.joined(line, goes_on), start))
        if not found:
            raise InvalidInput(f"{self.lines.name} has no instructions", "begin with FROM")
        return Containerfile(tuple(found), self.escape, self.directives, tuple(self.warnings))

    def read_directive(self, text: str) -> None:
        """A parser directive, `# name=value`, which stands before everything else."""
        if not self.in_directives:
            return
        match = DIRECTIVE.fullmatch(text)
        name = match[1].lower() if match else ""
        if match is None or name not in DIRECTIVES:
            self.in_directives = False
            return
        if name in self.directives:
            raise self.lines.wrong(InvalidInput(f"the parser directive {name!r} is given twice", "keep one of them"))
        if name == "escape":
            if match[2] not in ("\\", "`"):
                raise self.lines.wrong(InvalidInput(f"{match[2]!r} cannot be the escape character", "give \\ or `"))
            self.set_escape(match[2])
        self.directives[name] = match[2]

    def cut(self, line: str) -> tuple[str, bool]:
        """A line without the character that continues it, and whether there was one."""
        match = self.continues.search(line)
        return (line[: match.start()], True) if match else (line, False)

    def joined(self, line: str, goes_on: bool) -> str:
        """A line with those that continue it; comments and empty lines between them do not count."""
        start, empty = self.lines.number, False
        while goes_on and (raw := self.lines.take()) is not None:
            more = raw.rstrip("\r\n")
            stripped = more.lstrip(SPACES)
            if stripped.startswith("#"):
                continue
            if not stripped:
                empty = True
                continue
            more, goes_on = self.cut(more)
            line += more
        if empty:
            self.warnings.append(f"{self.lines.name}:{start}: an empty line within a continued one")
        return line

    def instruction(self, line: str, start: int) -> Instruction:
        """An instruction of its joined line, and the heredocs that follow it."""
        try:
            parsed = read(line, self.escape)
            innermost = parsed.trigger[0] if parsed.trigger else parsed
            heredocs = []
            if innermost.name in WITH_HEREDOCS and not innermost.json:
                heredocs = [self.document(heredoc, start) for heredoc in heredocs_of(line)]
        except InvalidInput as error:
            if error.message.startswith(f"{self.lines.name}:"):
                raise
            raise self.lines.wrong(error, start) from None
        end = self.lines.number
        trigger = tuple(one.but(line=start, end_line=end, heredocs=tuple(heredocs)) for one in parsed.trigger)
        return parsed.but(line=start, end_line=end, heredocs=tuple(heredocs), trigger=trigger)

    def document(self, heredoc: Heredoc, start: int) -> Heredoc:
        """A heredoc with the lines up to its name."""
        content: list[str] = []
        while (raw := self.lines.take()) is not None:
            line = raw.rstrip("\r\n")
            if (line.lstrip("\t") if heredoc.strips_tabs else line) == heredoc.name:
                return heredoc.but(content="".join(content))
            content.append(raw)
        raise self.lines.wrong(
            InvalidInput(f"the heredoc {heredoc.name!r} does not end", f"end it by a line that is just {heredoc.name}"),
            start,
        )


def read(line: str, escape: str = "\\") -> Instruction:
    """An instruction of one line, without heredocs. Raises InvalidInput, without the place."""
    name, *more = BLANKS.split(line.strip(SPACES), maxsplit=1)
    name = name.lower()
    flags, rest = split_flags(more[0] if more else "")
    rest = rest.strip(SPACES)
    if name == "onbuild":
        trigger = (read(rest, escape),) if rest else ()
        return Instruction(name, flags, trigger=trigger, original=line)
    args: tuple[str, ...] = ()
    json = False
    if name == "healthcheck":
        kind, command = split_word(rest)
        if kind:
            args, json = maybe_list(command)
            args = (kind, *args)
    elif name in LISTS:
        args, json = maybe_list(rest)
        if not json:
            args = tuple(BLANKS.split(rest)) if rest else ()
    elif name in COMMANDS:
        args, json = maybe_list(rest)
    else:
        args = arguments(name, rest, escape)
    return Instruction(name, flags, args, json, original=line)


def arguments(name: str, rest: str, escape: str) -> tuple[str, ...]:
    """The arguments of an instruction that knows no JSON form."""
    if not rest or name not in KNOWN:
        return ()
    if name in PAIRS:
        return pairs(name, rest, escape)
    if name == "arg":
        return tuple(split_words(rest, escape))
    if name in ("expose", "from"):
        return tuple(BLANKS.split(rest))
    return (rest,)


def split_word(rest: str) -> tuple[str, str]:
    """The first word, and what follows the white space behind it."""
    length = next((at for at, char in enumerate(rest) if char in SPACES), len(rest))
    return rest[:length], rest[length:].lstrip(SPACES)


def maybe_list(rest: str) -> tuple[tuple[str, ...], bool]:
    """The strings of a JSON list and True, else the text alone and False. Raises InvalidInput for a list of
    anything but strings; text that only looks like JSON is text."""
    if not rest.startswith("["):
        return ((rest,) if rest else ()), False
    import json

    try:
        found = json.loads(rest)
    except (ValueError, RecursionError):
        return (rest,), False
    if not all(isinstance(item, str) for item in found):
        raise InvalidInput("the JSON list has something in it that is no string", 'write it like ["ls", "-l"]')
    return tuple(found), True


def split_flags(rest: str) -> tuple[tuple[str, ...], str]:
    """The words that begin with `--`, quotes and escapes taken off, and what follows them; `--` alone ends them."""
    flags: list[str] = []
    at = 0
    while True:
        while at < len(rest) and rest[at] in SPACES:
            at += 1
        if not rest.startswith("--", at):
            return tuple(flags), rest[at:]
        word, quote, at = "", "", at
        while at < len(rest) and (quote or rest[at] not in SPACES):
            char = rest[at]
            at += 1
            if char == quote:
                quote = ""
            elif not quote and char in "'\"":
                quote = char
            elif char == "\\":
                word += rest[at : at + 1]
                at += 1
            else:
                word += char
        if word == "--":
            return tuple(flags), rest[at:]
        flags.append(word)


def split_words(rest: str, escape: str) -> list[str]:
    """Words with their quotes and escapes still on."""
    words: list[str] = []
    word, quote, blank = "", "", False
    at = 0
    while at < len(rest):
        char = rest[at]
        at += 1
        if not quote and char in SPACES:
            if word or blank:
                words.append(word)
            word, blank = "", False
            continue
        if char == escape and quote != "'":
            if at < len(rest):  # an escape character at the end escapes nothing
                word += char + rest[at]
                at += 1
            continue
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote, blank = char, True
        word += char
    return [*words, word] if word or blank else words


def pairs(name: str, rest: str, escape: str) -> tuple[str, ...]:
    """Names and values of `NAME=value …`, or of the old form `NAME value`."""
    words = split_words(rest, escape)
    if not words:
        return ()
    if "=" not in words[0]:
        parts = BLANKS.split(rest, maxsplit=1)
        if len(parts) < 2:
            raise InvalidInput(f"{name.upper()} has a name without a value", f"write it like {name.upper()} NAME=value")
        return tuple(parts)
    for word in words:
        if "=" not in word:
            raise InvalidInput(f"there is no '=' in {word!r}", "write it like NAME=value, and quote values with spaces")
    return tuple(part for word in words for part in word.split("=", 1))


RAW = Rules(keep_quotes=True, keep_escapes=True, keep_unset=True)
BARE = Rules(keep_unset=True)
QUOTED = Rules(keep_quotes=True, keep_unset=True)


def heredocs_of(line: str) -> list[Heredoc]:
    """The heredocs that a line announces, without their content. Raises InvalidInput for a name badly quoted."""
    if "<<" not in line:
        return []
    try:
        words = expand_words(line, {}, RAW)
    except InvalidInput:
        return []  # no words of the shell's kind: then the shell, or nobody, understands it
    # a name may stand apart from its `<<`
    joined: list[str] = []
    for word in words:
        if joined and re.fullmatch(r"\d*<<-?", joined[-1]):
            joined[-1] += word if not joined[-1].endswith("<<") or not word.startswith("-") else f" {word}"
        else:
            joined.append(word)
    return [found for found in map(heredoc, joined) if found is not None]


def heredoc(word: str) -> Heredoc | None:
    """The heredoc that a word such as `<<EOF`, `3<<-'EOF'` announces; None for any other word.

    Raises InvalidInput where its quotes do not close."""
    match = HEREDOC.fullmatch(word)
    if match is None:
        return None
    names = expand_words(match[3], {}, BARE)
    if len(names) != 1:
        return None
    quoted = expand_words(match[3], {}, QUOTED)[0]
    quotes = [sum(text.count(quote) for quote in "'\"") for text in (names[0], quoted)]
    return Heredoc(names[0], "", int(match[1] or 0), quotes[0] == quotes[1], match[2] == "-")
