"""Which variables an instruction sees."""

from __future__ import annotations

import pytest

from nbhull.runtime.builder import instructions, syntax
from nbhull.runtime.builder.scope import GlobalScope, StageScope, platform
from nbhull.runtime.errors import InvalidInput


def scopes(text: str, given: dict[str, str] | None = None, env: dict[str, str] | None = None) -> list[StageScope]:
    """The scope at the end of each stage."""
    program = instructions.program(syntax.parse(text.encode()))
    outer = GlobalScope(given or {}, program.arguments, program.escape, "end")
    found = []
    for stage in program.stages:
        scope = StageScope(outer, env or {})
        for command in stage.commands:
            (scope.declare if command.name == "arg" else scope.set)(command)
        found.append(scope)
    return found


def test_global_arguments_reach_from_and_stages_that_declare_them() -> None:
    text = "ARG a=1\nARG b=$a-2\nFROM x\nARG a\nFROM y\nARG b c"
    first, second = scopes(text)
    assert first.outer.expand("img:$a$b$TARGETARCH") == f"img:11-2{platform()[1]}"
    assert first.variables() == {"a": "1"}
    assert second.variables() == {"b": "1-2"}


def test_given_arguments_win_and_are_marked_as_used() -> None:
    (scope,) = scopes("ARG a=1\nFROM x\nARG a\nARG b=2\nARG c=${b}3", {"a": "A", "b": "B", "z": "Z"})
    assert scope.variables() == {"a": "A", "b": "B", "c": "B3"}
    assert scope.outer.given.keys() - scope.outer.used == {"z"}


def test_environment_wins_over_arguments() -> None:
    (scope,) = scopes("FROM x\nARG a=arg\nENV a=env b=$a\nARG b=arg", {"b": "given"}, {"p": "base"})
    assert scope.variables() == {"a": "env", "b": "arg", "p": "base"}
    assert scope.env == {"a": "env", "b": "arg", "p": "base"}


def test_values_of_one_instruction_see_the_variables_before_it() -> None:
    (scope,) = scopes('FROM x\nENV a=1\nENV a=2 b=$a c="${a} ${b:-none}"\nENV old $a and $b')
    assert scope.env == {"a": "2", "b": "1", "c": "1 none", "old": "2 and 1"}


def test_platform_arguments_must_be_declared_in_a_stage() -> None:
    undeclared, declared = scopes("FROM x\nENV a=$TARGETOS\nFROM y\nARG TARGETOS TARGETARCH=other\nENV a=$TARGETOS")
    assert undeclared.env == {"a": ""}
    assert declared.env == {"a": "linux"}
    assert declared.args["TARGETARCH"] == "other"


def test_proxy_arguments_need_no_declaration_and_are_no_variables() -> None:
    (scope,) = scopes("FROM x\nENV p=$HTTP_PROXY", {"HTTP_PROXY": "http://p:1"})
    assert scope.outer.proxies() == {"HTTP_PROXY": "http://p:1"}
    assert scope.env == {"p": ""}
    assert scope.outer.used == {"HTTP_PROXY"}


def test_names_are_checked() -> None:
    with pytest.raises(InvalidInput):
        scopes("FROM x\nENV $no=1")
    with pytest.raises(InvalidInput):
        scopes("FROM x\nARG $no=1")
