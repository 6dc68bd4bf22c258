"""The reference page and the help say all that the verb table knows."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from nbhull.runtime.verbs import reference
from nbhull.runtime.verbs.definition import Verb
from nbhull.runtime.verbs.help import explanation, plain, spelling, verb_help
from nbhull.runtime.verbs.parser import parse
from nbhull.runtime.verbs.table import verbs

PAGE = Path(__file__).parents[2] / "docs/reference.md"


def test_the_reference_is_current() -> None:
    # mended by: python -m nbhull.runtime.verbs.reference > docs/reference.md
    assert PAGE.read_text() == reference.page()


@pytest.mark.parametrize("verb", verbs("cli"), ids=lambda verb: verb.name)
def test_every_verb_and_option_is_in_the_reference_and_in_help(verb: Verb) -> None:
    section = PAGE.read_text().partition(f"\n### {verb.name}\n")[2].partition("\n### ")[0]
    shown = " ".join(verb_help(verb, "cli").split())
    assert verb.help.lower() in section.lower()
    assert verb.examples
    for argument in (a for a in verb.arguments if "cli" in a.where):
        assert f"`{argument.name}`" in section
        assert plain(explanation(argument)) in shown
        assert not argument.is_option or spelling(argument).strip() in shown


@pytest.mark.parametrize("verb", verbs(), ids=lambda verb: verb.name)
def test_the_table_is_without_contradictions(verb: Verb) -> None:
    for where in verb.where:
        names = [name for a in verb.options(where) for name in (a.name, a.short) if name]
        assert len(names) == len(set(names))
        positionals = verb.positionals(where)
        assert not any(a.many or a.rest for a in positionals[:-1]), "only the last one can take several words"
        required = [a.required for a in positionals]
        assert required == sorted(required, reverse=True), "optional ones come last"
    assert all(a.metavar or a.flag for a in verb.arguments if a.is_option)
    assert all(line.startswith(verb.name) for line, _ in verb.examples)


@pytest.mark.parametrize("line", [line for verb in verbs() for line, _ in verb.examples])
def test_examples_are_well_formed(line: str) -> None:
    parse(shlex.split(line))
