"""`.containerignore` and `.dockerignore`: which files of a context are left out.

The rules are Docker's (https://docs.docker.com/build/concepts/context/#dockerignore-files): a pattern is matched
against whole paths, `**` stands for any number of folders, `!` takes files back in, the last pattern that matches
decides, and what matches a folder matches all that is in it.
"""

from __future__ import annotations

import re

from nbhull.runtime.errors import InvalidInput

WILD = re.compile(r"[*?\[\\]")


class Pattern:
    """One line of the file."""

    __slots__ = ("literal", "negated", "parts", "regex")

    def __init__(self, text: str, *, negated: bool) -> None:
        self.negated = negated
        self.parts = text.split("/")
        self.literal = None if WILD.search(text) else text
        self.regex = re.compile(translate(text), re.DOTALL) if self.literal is None else None

    def matches(self, path: str) -> bool:
        """Whether it matches just that path."""
        return path == self.literal if self.regex is None else self.regex.fullmatch(path) is not None

    def may_match_below(self, folder: str) -> bool:
        """Whether it can match anything in a folder; in doubt yes."""
        for part, name in zip(self.parts, folder.split("/"), strict=False):
            if "**" in part:
                return True
            if re.fullmatch(translate(part), name, re.DOTALL) is None:
                return False
        return True


class Ignore:
    """All patterns of a file."""

    def __init__(self, patterns: list[Pattern]) -> None:
        self.patterns = patterns
        self.exceptions = [pattern for pattern in patterns if pattern.negated]

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matched(self, path: str, above: tuple[bool, ...] | None) -> tuple[bool, ...]:
        """Which patterns match a path, `above` being the same of the folder that it lies in."""
        if above is None:
            return tuple(pattern.matches(path) for pattern in self.patterns)
        return tuple(
            over or pattern.matches(path) for over, pattern in zip(above, self.patterns, strict=True)
        )

    def excludes(self, matched: tuple[bool, ...]) -> bool:
        """Whether the path with these matches is left out: the last match decides."""
        for pattern, match in zip(reversed(self.patterns), reversed(matched), strict=True):
            if match:
                return not pattern.negated
        return False

    def ignores(self, path: str) -> bool:
        """Whether a path, given whole, is left out."""
        above: tuple[bool, ...] | None = None
        parts = path.split("/")
        for length in range(1, len(parts) + 1):
            above = self.matched("/".join(parts[:length]), above)
        return self.excludes(above or ())

    def needs_look(self, folder: str) -> bool:
        """Whether something in a folder that is left out may have been taken back in."""
        return any(pattern.may_match_below(folder) for pattern in self.exceptions)


def parse(text: str, name: str = ".containerignore") -> Ignore:
    """The patterns of a file. Raises InvalidInput, with the line's number, for a pattern that means nothing."""
    patterns = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            made = pattern(line.strip())
        except InvalidInput as error:
            raise InvalidInput(f"{name}:{number}: {error.message}", error.hint) from None
        if made is not None:
            patterns.append(made)
    return Ignore(patterns)


def from_patterns(texts: tuple[str, ...]) -> Ignore:
    """The same of patterns given one by one (`COPY --exclude`)."""
    made = [pattern(text.strip()) for text in texts]
    return Ignore([one for one in made if one is not None])


def pattern(line: str) -> Pattern | None:
    """The pattern of one line; None for one that names nothing, or the whole context."""
    negated = line.startswith("!")
    text = line[1:].strip() if negated else line
    if not text:
        raise InvalidInput("'!' is followed by no pattern", "write the files to take back in behind it")
    text = clean(text)
    if text == ".":
        return None
    try:
        return Pattern(text, negated=negated)
    except re.error as error:
        raise InvalidInput(f"{line!r} is no pattern: {error}", "close its brackets") from None


def clean(path: str) -> str:
    """A path without empty parts, `.` and `..` where they can be resolved, and without a slash at either end."""
    result: list[str] = []
    for part in path.split("/"):
        if part == ".." and result and result[-1] != "..":
            result.pop()
        elif part == "..":
            if not path.startswith("/"):
                result.append(part)
        elif part not in ("", "."):
            result.append(part)
    return "/".join(result) or "."


def translate(text: str) -> str:
    """A pattern as a regular expression. Raises InvalidInput for brackets that do not close."""
    result: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if text.startswith("**", at - 1):
            at += 1
            if text.startswith("/", at):
                at += 1
            result.append(".*" if at == len(text) else "(?:.*/)?")
        elif char == "*":
            result.append("[^/]*")
        elif char == "?":
            result.append("[^/]")
        elif char == "\\":
            if at == len(text):
                raise InvalidInput(f"{text!r} ends in a backslash", "leave it out, or double it")
            result.append(re.escape(text[at]))
            at += 1
        elif char == "[":
            end, found = bracket(text, at)
            result.append(found)
            at = end
        else:
            result.append(re.escape(char))
    return "".join(result)


def bracket(text: str, at: int) -> tuple[int, str]:
    """Where a bracket expression that begins before `at` ends, and its regular expression."""
    negated = text.startswith("^", at)
    at += 1 if negated else 0
    items: list[str] = []
    while at < len(text) and (text[at] != "]" or not items):
        low, at = one_char(text, at)
        high = low
        if text.startswith("-", at) and at + 1 < len(text) and text[at + 1] != "]":
            high, at = one_char(text, at + 1)
        if low > high:
            raise InvalidInput(f"{text!r} has the empty range {low}-{high}", "write the lower character first")
        items.append(f"{re.escape(low)}-{re.escape(high)}" if high != low else re.escape(low))
    if at >= len(text):
        raise InvalidInput(f"{text!r} has a bracket that does not close", "close it, or write \\[")
    return at + 1, f"(?!/)[{'^' if negated else ''}{''.join(items)}]"


def one_char(text: str, at: int) -> tuple[str, int]:
    """A character in brackets, which may be escaped, and where the next one is."""
    if text[at] == "\\" and at + 1 < len(text):
        return text[at + 1], at + 2
    return text[at], at + 1
