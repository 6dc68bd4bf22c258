"""What a verb is: its name, options and help, and where it is implemented.

The command line reads this on every start, so it is plain data: no dataclasses, no enumerations, and
every function is named by a reference (`package.module:function`) that is imported when it is called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLI = ("cli",)
MAGIC = ("magic",)
EVERYWHERE = ("cli", "magic")


class Argument:
    """One option or positional argument of a verb.

    Options have a `name` that begins with `--`; positionals are named as they are written in help.
    """

    __slots__ = (
        "default",
        "flag",
        "help",
        "many",
        "metavar",
        "name",
        "parse",
        "required",
        "rest",
        "short",
        "where",
    )

    def __init__(
        self,
        name: str,
        help: str,
        *,
        short: str = "",
        metavar: str = "",
        parse: str = "",
        default: Any = None,
        flag: bool = False,
        many: bool = False,
        required: bool = False,
        rest: bool = False,
        where: tuple[str, ...] = EVERYWHERE,
    ) -> None:
        self.name = name
        self.help = help
        self.short = short
        """one letter with its dash, such as `-m`"""
        self.metavar = metavar
        self.parse = parse
        """reference of a function from text to value that raises InvalidInput; empty keeps the text"""
        self.default = () if many else False if flag else default
        self.flag = flag
        """an option without a value"""
        self.many = many
        """may be given several times; the value is a tuple"""
        self.required = required
        self.rest = rest
        """a positional that takes every word left, options included"""
        self.where = where

    @property
    def is_option(self) -> bool:
        """Whether it is written with dashes."""
        return self.name.startswith("--")

    @property
    def key(self) -> str:
        """Its key in the parsed values: `pids_limit` for `--pids-limit`, `container` for CONTAINER."""
        return self.name.lstrip("-").replace("-", "_").lower()

    def as_text(self) -> Argument:
        """The same with its value as it was written, for who writes it down and has it parsed later."""
        return Argument(
            self.name, self.help, short=self.short, metavar=self.metavar, default=self.default, flag=self.flag,
            many=self.many, required=self.required, rest=self.rest, where=self.where,
        )  # fmt: skip


class Verb:
    """One verb: what may follow it, and what does it."""

    __slots__ = (
        "about",
        "arguments",
        "examples",
        "help",
        "implementation",
        "in_notebooks",
        "name",
        "needs_engine",
        "where",
    )

    def __init__(
        self,
        name: str,
        help: str,
        implementation: str,
        arguments: tuple[Argument, ...] = (),
        *,
        about: str = "",
        in_notebooks: str = "",
        examples: tuple[tuple[str, str], ...] = (),
        where: tuple[str, ...] = CLI,
        needs_engine: bool = True,
    ) -> None:
        self.name = name
        """one word or two, such as `run` or `kernel install`"""
        self.help = help
        self.implementation = implementation
        """reference of `function(engine, values) -> Result`"""
        self.arguments = arguments
        self.about = about
        """what a reader must know beyond `help`; paragraphs are separated by an empty line"""
        self.in_notebooks = in_notebooks
        """what the magic's readers must know, in place of `about`"""
        self.examples = examples
        """pairs of what follows the program's name, and what it does"""
        self.where = where
        self.needs_engine = needs_engine
        """whether `engine` is an Engine, and not None"""

    def story(self, where: str) -> str:
        """What readers must know beyond `help`."""
        return (where == "magic" and self.in_notebooks) or self.about

    def options(self, where: str) -> list[Argument]:
        """The options it has on the command line ("cli") or in the magic ("magic")."""
        return [a for a in self.arguments if a.is_option and where in a.where]

    def positionals(self, where: str) -> list[Argument]:
        """The positional arguments it has there, in their order."""
        return [a for a in self.arguments if not a.is_option and where in a.where]
