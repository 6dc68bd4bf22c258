"""Completion and `?` for lines that begin with %container: verbs, options, and names of images and containers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from nbhull.runtime.errors import HullError
from nbhull.runtime.verbs.definition import Verb
from nbhull.runtime.verbs.parser import find_verb
from nbhull.runtime.verbs.table import verbs

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    Lister = Callable[[str], list[dict[str, Any]]]
    """gives what a verb lists, as data"""

LINE = re.compile(r"^\s*%%?container\s")
QUESTION = re.compile(r"^\s*%%?container(?P<words>(?:\s+[a-z]+)*)\s*\?+\s*$")
"""what asks for help, as `name?` does elsewhere"""
NAMED = {"NAME": "images", "IMAGE": "images", "SNAPSHOT": "images", "CONTAINER": "ps"}
"""what stands where such an argument is written: the verb that lists it"""



def register(shell: InteractiveShell, listed: Lister) -> None:
    """Have a shell complete. `listed` gives what a verb lists, as data."""
    shell.set_hook("complete_command", lambda _, event: candidates(event.line, event.symbol, listed), re_key=LINE)
    shell.input_transformers_cleanup.append(answer_questions)


def candidates(line: str, word: str, listed: Lister) -> list[str]:
    """What the last word of a line may become. `word`: as much of it as IPython takes for one."""
    behind = LINE.sub("", line)
    words = behind.split()
    if behind and not behind[-1:].isspace():
        words.pop()
    fitting = [text for text in possible(words, listed) if text.startswith(word)]
    return sorted(dict.fromkeys(fitting))


def possible(words: list[str], listed: Lister) -> list[str]:
    """What may stand behind `words`."""
    try:
        verb, values = find_verb(words, "magic") if words else (None, [])
    except HullError:
        verb, values = None, words  # the verb is not whole yet
    if verb is None:
        begun = [name.split() for name in (verb.name for verb in verbs("magic")) if name.split()[: len(words)] == words]
        return [name[len(words)] for name in begun if len(name) > len(words)]
    return [*options(verb), *names(verb, values, listed)]


def options(verb: Verb) -> list[str]:
    """A verb's options."""
    return [*(option.name for option in verb.options("magic")), "--help"]


def names(verb: Verb, values: list[str], listed: Lister) -> list[str]:
    """Names of what the verb's arguments name."""
    if verb.name == "help":
        return [other.name.split()[0] for other in verbs("magic")]
    kinds = {NAMED[argument.name] for argument in verb.positionals("magic") if argument.name in NAMED}
    found: list[str] = []
    for kind in sorted(kinds):
        try:
            found += [str(item["name"]) for item in listed(kind) if item.get("name")]
        except HullError:
            continue  # completion is no place for complaints: the line itself will tell
    return found


def answer_questions(lines: list[str]) -> list[str]:
    """`%container VERB?` is `%container help VERB`. Called by IPython with the lines of a cell."""
    if len(lines) == 1 and (match := QUESTION.match(lines[0])):
        return [f"%container help{match['words']}\n"]
    return lines
