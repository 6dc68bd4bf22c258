"""Help, made from the verb table."""

from __future__ import annotations

from textwrap import wrap

from nbhull.runtime.verbs.definition import Argument, Verb
from nbhull.runtime.verbs.parser import PROGRAMS, find_verb, is_group
from nbhull.runtime.verbs.results import Text
from nbhull.runtime.verbs.table import verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.verbs.results import Result

WIDTH = 96
INDENT = 30


def show(engine: Engine | None, values: dict[str, Any]) -> Result:
    """`help`: about one verb, a group of verbs, or all."""
    words: list[str] = " ".join(values["verb"]).split()
    where: str = values["where"]
    if not words:
        return Text(overview(where))
    if len(words) == 1 and is_group(words[0], where):
        return Text(overview(where, words[0] + " "))
    verb, _ = find_verb(words, where)
    return Text(verb_help(verb, where))


def overview(where: str, group: str = "") -> str:
    """All verbs with a line each, or those whose names begin with `group`."""
    program = PROGRAMS[where]
    about = (
        ""
        if group
        else "Every notebook kernel in a container of its own: no Docker, no daemon, no root needed.\n\n"
    )
    lines = [_entry(verb.name, verb.help) for verb in verbs(where) if verb.name.startswith(group)]
    return (
        f"usage: {program} {group or ''}VERB [OPTION...] [ARGUMENT...]\n\n{about}verbs:\n"
        + "\n".join(lines)
        + f"\n\n'{program} VERB --help' explains one."
    )


def verb_help(verb: Verb, where: str) -> str:
    """All about one verb."""
    parts = [f"usage: {usage(verb, where)}", "\n".join(wrap(sentence(verb.help), WIDTH))]
    if story := verb.story(where):
        parts += ["\n".join(wrap(plain(paragraph), WIDTH)) for paragraph in story.split("\n\n")]
    positionals = verb.positionals(where)
    if positionals:
        parts.append("arguments:\n" + "\n".join(_entry(a.name, explanation(a)) for a in positionals))
    options = [_entry(spelling(a), explanation(a)) for a in verb.options(where)]
    options.append(_entry("    --help", "print this"))
    parts.append("options:\n" + "\n".join(options))
    examples = [(line, what) for line, what in verb.examples if where == "cli"]
    if examples:
        shown = "\n".join(f"  {PROGRAMS[where]} {line}\n      {plain(what)}" for line, what in examples)
        parts.append("examples:\n" + shown)
    return "\n\n".join(parts)


def usage(verb: Verb, where: str) -> str:
    """How a verb is written."""
    words = [PROGRAMS[where], verb.name]
    if verb.options(where):
        words.append("[OPTION...]")
    for argument in verb.positionals(where):
        many = "..." if argument.many else ""
        word = f"{argument.name} [ARGUMENT...]" if argument.rest else argument.name + many
        words.append(word if argument.required else f"[{word}]")
    return " ".join(words)


def spelling(argument: Argument) -> str:
    """How an option is written: `-m, --memory SIZE`."""
    short = f"{argument.short}, " if argument.short else "    "
    return short + argument.name + (f" {argument.metavar}" if argument.metavar else "")


def explanation(argument: Argument) -> str:
    """What an argument means, with its default and whether it may be repeated; code is in backticks."""
    text = argument.help
    if argument.is_option and argument.many:
        text += "; may be given several times"
    if argument.default not in (None, False, ()):
        default = f"{argument.default:g}" if isinstance(argument.default, float) else argument.default
        text += f" (default: `{default}`)"
    return text


def plain(text: str) -> str:
    """Text of the table, which marks code with backticks, as a terminal shows it."""
    return text.replace("`", "'")


def sentence(text: str) -> str:
    """A table's help line as a sentence."""
    return plain(text[0].upper() + text[1:] + ".")


def _entry(name: str, text: str) -> str:
    lines = wrap(plain(text), WIDTH - INDENT) or [""]
    head = f"  {name}"
    if len(head) >= INDENT - 1:
        lines.insert(0, "")
    return f"{head.ljust(INDENT)}{lines[0]}".rstrip() + "".join(
        f"\n{' ' * INDENT}{line}" for line in lines[1:]
    )
