"""From words to a verb and its values. POSIX's rules with GNU's long options, and nothing clever:

- `--opt value`, `--opt=value`, `-o value`, `-ovalue`, bundled flags `-it`; no abbreviations
- `--` ends the options
- options may stand behind positionals, except for verbs that end in a command (`run`, `exec`): there
  they end at the first positional, so that the command's own options reach it untouched.
"""

from __future__ import annotations

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.verbs.definition import Argument, Verb
from nbhull.runtime.verbs.table import groups, verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.verbs.results import Result

PROGRAMS = {"cli": "nbhull", "magic": "%container"}


def find_verb(words: Sequence[str], where: str = "cli") -> tuple[Verb, list[str]]:
    """The verb that `words` begin with, and the words behind it. The magic without a verb is `info`.

    Raises InvalidInput for no verb or an unknown one, with the nearest one in the hint.
    """
    if not words and where == "magic":
        words = ["info"]
    for group in groups(where):
        for verb in group:
            length = verb.name.count(" ") + 1
            if verb.name == " ".join(words[:length]):
                return verb, list(words[length:])
    program = PROGRAMS[where]
    if not words:
        raise InvalidInput("no verb is given", f"'{program} --help' lists them")
    known = [verb.name for verb in verbs(where)]
    members = [name for name in known if name.startswith(words[0] + " ")]
    if members and (len(words) == 1 or words[1].startswith("-")):
        raise InvalidInput(f"'{words[0]}' is no verb by itself", f"one of: {', '.join(members)}")
    name = " ".join(words[:2]) if members else words[0]
    raise InvalidInput(
        f"unknown verb {name!r}",
        nearest(name, known, f"'{program} --help' lists them"),
    )


def parse_values(verb: Verb, words: Sequence[str], where: str = "cli") -> dict[str, Any]:
    """The values of a verb's arguments, by `Argument.key`, defaults included.

    Raises InvalidInput for what the verb does not know, lacks, or cannot read.
    """
    see = f"see '{PROGRAMS[where]} {verb.name} --help'"
    options: dict[str, Argument] = {}
    for argument in verb.options(where):
        options[argument.name] = argument
        if argument.short:
            options[argument.short] = argument
    positionals = verb.positionals(where)
    ends_in_command = bool(positionals) and positionals[-1].rest
    values: dict[str, Any] = {}
    loose: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            loose += left
            break
        if word == "--help" or (word == "-h" and "-h" not in options):
            return {"help": True}
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            option = options.get(name)
            if option is None:
                known = [known for known in options if known.startswith("--")]
                raise InvalidInput(f"unknown option {name!r}", nearest(name, known, see))
            if option.flag and equals:
                raise InvalidInput(f"option {name!r} takes no value", see)
            _store(values, option, value if equals else _value(option, name, left, see))
        elif word.startswith("-") and word != "-":
            letters = word[1:]
            while letters:
                name, letters = "-" + letters[0], letters[1:]
                option = options.get(name)
                if option is None:
                    raise InvalidInput(f"unknown option {name!r}", see)
                if not option.flag and letters:
                    _store(values, option, letters)
                    break
                _store(values, option, _value(option, name, left, see))
        else:
            loose.append(word)
            if ends_in_command:
                loose += left
                break
    _place(values, positionals, loose, see)
    for argument in verb.arguments:
        if where in argument.where:
            values.setdefault(argument.key, argument.default)
    return values


def parse(words: Sequence[str], where: str = "cli") -> tuple[Verb, dict[str, Any]]:
    """The verb that a line's words name, and the values of its arguments; raises InvalidInput.

    `--help` gives the verb `help`, so whoever runs a verb need not know of it.
    """
    if words and words[0] in ("--help", "-h"):
        words = ["help", *words[1:]]
    elif words and words[0] == "--version":
        words = ["version", *words[1:]]
    elif len(words) == 2 and words[1] == "--help" and is_group(words[0], where):
        words = ["help", words[0]]
    verb, rest = find_verb(words, where)
    values = parse_values(verb, rest, where)
    if values.pop("help", False):
        verb, rest = find_verb(["help", verb.name], where)
        values = parse_values(verb, rest, where)
    if verb.name == "help":
        values["where"] = where
    return verb, values


def is_group(word: str, where: str) -> bool:
    """Whether verbs of two words begin with `word`."""
    return any(verb.name.startswith(word + " ") for verb in verbs(where))


def execute(verb: Verb, values: dict[str, Any], engine: Engine | None) -> Result:
    """Do what a verb does; raises HullError. `engine` may be None where `verb.needs_engine` is false."""
    function: Callable[[Engine | None, dict[str, Any]], Result] = resolve(verb.implementation)
    return function(engine, values)


def resolve(reference: str) -> Any:
    """What `package.module:name` refers to."""
    module, _, name = reference.partition(":")
    if not module.startswith("nbhull.runtime."):
        from nbhull.runtime.entry import use_site

        use_site()  # what speaks with Jupyter must know the environment
    # the same as importlib.import_module, whose own import costs more than the verbs have
    return getattr(__import__(module, fromlist=[name]), name)


def nearest(word: str, known: Sequence[str], otherwise: str) -> str:
    """A hint that names the known word most like `word`, else `otherwise`."""
    from difflib import get_close_matches

    matches = get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else otherwise


def _value(option: Argument, name: str, left: list[str], see: str) -> str:
    if option.flag:
        return ""
    if not left:
        raise InvalidInput(f"option {name!r} needs a value", f"write it as {name} {option.metavar}; {see}")
    return left.pop(0)


def _store(values: dict[str, Any], argument: Argument, text: str) -> None:
    value: Any = text
    if argument.flag:
        value = True
    elif argument.parse:
        value = resolve(argument.parse)(text)
    values[argument.key] = (*values.get(argument.key, ()), value) if argument.many else value


def _place(values: dict[str, Any], positionals: list[Argument], words: list[str], see: str) -> None:
    """Hand the words that are no options to the positionals, in order."""
    for argument in positionals:
        if argument.required and not words:
            raise InvalidInput(f"{argument.name} is missing", see)
        if argument.rest:
            values[argument.key], words = tuple(words), []
        elif argument.many:
            for word in words:
                _store(values, argument, word)
            words = []
        elif words:
            _store(values, argument, words[0])
            words = words[1:]
    if words:
        raise InvalidInput(f"unexpected argument {words[0]!r}", see)
