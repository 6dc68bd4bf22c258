"""Quotes, escapes and variables in the words of a Containerfile, as BuildKit reads them.

It is a subset of the POSIX shell's word expansion (Shell Command Language, 2.6.2), with `${name/pattern/text}` of
bash: https://docs.docker.com/reference/dockerfile/#environment-replacement.
"""

from __future__ import annotations

from nbhull.runtime.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SPACES = " \t\n\v\f\r\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""what separates words: the white space of Unicode"""
SPECIAL = "@*#?-$!"
"""names of one character, the shell's special parameters"""
DEEPEST = 50
"""`${a:-${b:-…}}` within one another, at most"""


class Rules:
    """How text is read; each instruction has rules of its own."""

    __slots__ = ("escape", "keep_escapes", "keep_quotes", "keep_unset", "quotes")

    def __init__(
        self,
        escape: str = "\\",
        *,
        quotes: bool = True,
        keep_quotes: bool = False,
        keep_escapes: bool = False,
        keep_unset: bool = False,
    ) -> None:
        self.escape = escape
        """the escape character, `\\` or `` ` ``"""
        self.quotes = quotes
        """whether quotes mean anything; if not, they are characters like others (heredocs)"""
        self.keep_quotes = keep_quotes
        self.keep_escapes = keep_escapes
        self.keep_unset = keep_unset
        """leave variables that are not set as they are written"""


DEFAULT = Rules()


def expand(text: str, variables: Mapping[str, str], rules: Rules = DEFAULT) -> str:
    """The text with its variables replaced, quotes and escapes taken off. Raises InvalidInput."""
    return Expansion(text, variables, rules).whole()[0]


def expand_words(text: str, variables: Mapping[str, str], rules: Rules = DEFAULT) -> list[str]:
    """The words that the text is, split at white space after variables are replaced, but not within quotes.

    Raises InvalidInput."""
    return Expansion(text, variables, rules).whole()[1]


class Words:
    """Words as they grow."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.now = ""

    def add(self, text: str) -> None:
        """Text whose white space separates words."""
        for char in text:
            if char not in SPACES:
                self.now += char
            elif self.now:
                self.done.append(self.now)
                self.now = ""

    def finish(self) -> list[str]:
        """All words."""
        if self.now:
            self.done.append(self.now)
            self.now = ""
        return self.done


class Expansion:
    """One text being read, from left to right."""

    def __init__(self, text: str, variables: Mapping[str, str], rules: Rules) -> None:
        self.text = text
        self.at = 0
        self.variables = variables
        self.rules = rules
        self.keep_escapes = rules.keep_escapes
        self.depth = 0

    def peek(self) -> str:
        """The next character; empty at the end."""
        return self.text[self.at : self.at + 1]

    def take(self) -> str:
        """The next character, gone past."""
        char = self.text[self.at : self.at + 1]
        self.at += 1 if char else 0
        return char

    def whole(self) -> tuple[str, list[str]]:
        """All of it, as one text and as words."""
        return self.until("", self.rules.keep_escapes)

    def until(self, stop: str, keep_escapes: bool) -> tuple[str, list[str]]:
        """Up to a character, which is gone past; up to the end if it is empty."""
        before, self.keep_escapes = self.keep_escapes, keep_escapes
        result: list[str] = []
        words = Words()
        while True:
            char = self.peek()
            if char == stop:
                self.take()
                break
            if not char:
                raise InvalidInput(f"{self.text!r} ends where {stop!r} is missing", f"close it with {stop}")
            if char == "$":
                value = self.dollar()
                words.add(value)
            elif self.rules.quotes and char in "'\"":
                value = self.quoted()
                words.now += value
            elif char == self.rules.escape:
                self.take()
                value = (char if self.keep_escapes else "") + self.take()
                words.now += value
            else:
                value = self.take()
                words.add(value)
            result.append(value)
        self.keep_escapes = before
        return "".join(result), words.finish()

    def quoted(self) -> str:
        """What stands in quotes. In double ones `$` and the escape character keep their meaning."""
        quote = self.take()
        result = [quote] if self.rules.keep_quotes else []
        while (char := self.peek()) != quote:
            if not char:
                raise InvalidInput(f"{self.text!r} ends within {quote} quotes", f"close them with {quote}")
            if char == "$" and quote == '"':
                result.append(self.dollar())
                continue
            self.take()
            if char == self.rules.escape and quote == '"':
                following = self.peek()
                if following and following in ('"', "$", self.rules.escape):
                    char = (char if self.keep_escapes else "") + self.take()
                elif not following:
                    continue  # an escape character at the end escapes nothing
                elif self.keep_escapes:
                    char += char
            result.append(char)
        self.take()
        return "".join(result) + (quote if self.rules.keep_quotes else "")

    def dollar(self) -> str:
        """A variable: `$name`, `${name}`, or with a modifier; a `$` before anything else stands for itself."""
        self.take()
        if self.peek() != "{":
            name = self.name()
            if not name:
                return "$"
            return self.variables.get(name, f"${name}" if self.rules.keep_unset else "")
        self.take()
        if not self.peek():
            raise self.wrong("'}' is missing")
        if self.peek() in "{}:":
            raise self.wrong("there is no name between '${' and '}'")
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.wrong(f"substitutions stand within one another more than {DEEPEST} times")
        value = self.braced(self.name())
        self.depth -= 1
        return value

    def wrong(self, what: str) -> InvalidInput:
        """The error for a substitution that means nothing."""
        shown = self.text if len(self.text) < 80 else f"{self.text[:77]}..."
        return InvalidInput(f"bad substitution in {shown!r}: {what}", "write it like ${NAME} or ${NAME:-default}")

    def braced(self, name: str) -> str:
        """What follows the name within `${…}`."""
        modifier = self.take()
        is_set, value = name in self.variables, self.variables.get(name, "")
        unset = self.rules.keep_unset and not is_set
        if modifier == "}":
            return f"${{{name}}}" if unset else value
        if modifier == "/":
            return self.replaced(name, value, unset)
        counts = is_set
        written = modifier
        if modifier == ":":
            counts = bool(value)
            modifier = self.take()
            written += modifier
        if not modifier or modifier not in "+-?#%":
            raise self.wrong(f"{written!r} is no modifier" if modifier else "'}' is missing")
        word = self.until("}", modifier in "#%")[0]
        if unset:
            return f"${{{name}{written}{word}}}"
        if modifier == "-":
            return value if counts else word
        if modifier == "+":
            return word if counts else ""
        if modifier == "?":
            if not counts:
                why = word or ("is not set" if not is_set else "is empty")
                raise InvalidInput(f"{name}: {why}", f"give it a value, such as --build-arg {name}=VALUE")
            return value
        longest = word.startswith(modifier)
        pattern = tokens(word[1:] if longest else word)
        if modifier == "#":
            ends = matches(pattern, value)
            return value[(max if longest else min)(ends) :] if ends else value
        ends = matches(pattern[::-1], value[::-1])
        return value[: len(value) - (max if longest else min)(ends)] if ends else value

    def replaced(self, name: str, value: str, unset: bool) -> str:
        """`${name/pattern/text}` replaces the first match, `${name//pattern/text}` every one."""
        every = self.peek() == "/"
        if every:
            self.take()
        pattern, _ = self.until("/", True)
        text, _ = self.until("}", True)
        if unset:
            return f"${{{name}{'//' if every else '/'}{pattern}/{text}}}"
        parts = tokens(pattern)
        result: list[str] = []
        at = 0
        while at <= len(value):
            ends = matches(parts, value[at:])
            if ends:
                result.append(text)
                length = max(ends)
                if not every:
                    return "".join(result) + value[at + length :]
                if length:
                    at += length
                    continue
            result.append(value[at : at + 1])
            at += 1
        return "".join(result)

    def name(self) -> str:
        """A variable's name: letters, digits and `_`; all digits if it begins with one; one special character."""
        char = self.peek()
        start = self.at
        if char and char in SPECIAL:
            return self.take()
        digits = char.isdigit()
        while (char := self.peek()) and (char.isdigit() if digits else char.isalnum() or char == "_"):
            self.take()
        return self.text[start : self.at]


ANY, ONE = 0, 1
"""tokens of a pattern: any number of characters, one character"""


def tokens(pattern: str) -> list[str | int]:
    """A shell pattern's characters and wildcards; `*`, `?` and `\\` are escaped by `\\`. Raises InvalidInput."""
    result: list[str | int] = []
    chars = iter(pattern)
    for char in chars:
        if char == "\\":
            escaped = next(chars, "")
            if escaped not in ("*", "?", "\\", "}", "/"):
                raise InvalidInput(f"the pattern {pattern!r} escapes {escaped!r}", "only *, ?, \\, } and / are escaped")
            result.append(escaped)
        else:
            result.append(ANY if char == "*" else ONE if char == "?" else char)
    return result


def matches(pattern: list[str | int], value: str) -> set[int]:
    """How many characters at the beginning of a value a pattern can match; empty if none. Linear in both."""
    reached = {0}
    for token in pattern:
        if token == ANY:
            reached = set(range(min(reached), len(value) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(value) and token in (ONE, value[at])}
        if not reached:
            break
    return reached
