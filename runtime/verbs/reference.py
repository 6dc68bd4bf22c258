"""Prints docs/reference.md, made from the verb table: `python -m nbhull.runtime.verbs.reference`."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import Argument, Verb
from nbhull.runtime.verbs.help import explanation, usage
from nbhull.runtime.verbs.table import verbs

HEAD = """\
# Reference of the verbs

<!-- made by `python -m nbhull.runtime.verbs.reference > docs/reference.md`; do not edit -->

The same verbs are spoken in three places: `nbhull VERB` and `jupyter container VERB` are one program, and
`%container VERB` is its magic in notebooks. They have one definition, from which this page, `--help` and
the parsers are made.

How words are read:

- `--opt value`, `--opt=value`, `-o value` and `-ovalue` mean the same; flags can be bundled (`-it`); options
  cannot be abbreviated.
- `--` ends the options.
- For `run` and `exec`, options end at the image or container: what follows belongs to the command.
- An option given twice counts as given last, unless it may be given several times.

What goes wrong is said in one line, with a hint that mends it. The exit status is then 2 for wrong usage and
1 for all else, but 125 for `run` and `exec`, whose other statuses are their command's.
"""


def main() -> None:
    """Print the page."""
    print(page(), end="")


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD, "## On the command line\n", *(section(verb, "cli") for verb in verbs("cli"))]
    parts += [
        "## In a notebook\n\nThe magic speaks of the container that the notebook's kernel runs in.\n",
        *(section(verb, "magic") for verb in verbs("magic") if verb.name != "help"),
    ]
    return "\n".join(parts)


def section(verb: Verb, where: str) -> str:
    """One verb as Markdown."""
    title = f"### {verb.name}\n" if where == "cli" else f"### %container {verb.name}\n"
    written = usage(verb, where)
    if where == "magic" and verb.name == "info":
        written = "%container [info]"
    lines = [title, f"    {written}\n", verb.help[0].upper() + verb.help[1:] + ".\n"]
    if story := verb.story(where):
        lines.append(story + "\n")
    arguments = [*verb.positionals(where), *verb.options(where)]
    if arguments:
        lines += ["| | |", "|---|---|", *(row(argument) for argument in arguments), ""]
    if where == "cli":
        for line, what in verb.examples:
            lines.append(f"    nbhull {line}\n\n{what[0].upper() + what[1:]}.\n")
    return "\n".join(lines)


def row(argument: Argument) -> str:
    """One argument as a line of a Markdown table."""
    names = ", ".join(f"`{name}`" for name in (argument.short, argument.name) if name)
    if argument.metavar:
        names += f" `{argument.metavar}`".replace("|", "\\|")
    return f"| {names} | {explanation(argument)} |"


if __name__ == "__main__":
    main()
