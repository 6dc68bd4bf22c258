"""The command line: `nbhull …` and, the same program, `jupyter container …`."""

from __future__ import annotations

import os
import sys

from nbhull.runtime.errors import CommandNotExecutable, CommandNotFound, HullError
from nbhull.runtime.verbs.parser import execute, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from nbhull.runtime.launcher.client import Client
    from nbhull.runtime.verbs.definition import Verb
    from nbhull.runtime.verbs.results import Result

FAILED = 1
WRONG_USAGE = 2
OWN_FAILURE = 125
"""of `run` and `exec`, for wrong usage too: every other status is the command's own (as with Docker)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the words after the program's name say; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _main(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever read us has gone; without this Python complains when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + 13
    except KeyboardInterrupt:
        return 128 + 2
    return status


def _main(words: list[str]) -> int:
    in_foreground = words[:1] == ["run"] or words[:1] == ["exec"]
    begun = None
    try:
        if words[:1] == ["run"] and "--help" not in words:
            begun = begin_launcher()
        verb, values = parse(words)
    except HullError as error:
        if begun is not None:
            begun.close()
        _complain(error)
        return OWN_FAILURE if in_foreground else WRONG_USAGE
    try:
        result = _execute(verb, values, begun)
    except HullError as error:
        _complain(error)
        return _foreground_status(error) if in_foreground else FAILED
    shown = _json(result.data()) if values.get("json") else result.text()
    if shown:
        print(shown)
    for notice in result.notices:
        print(f"nbhull: {notice}", file=sys.stderr)
    for failure in result.failures:
        _complain(failure)
    return result.status


def _foreground_status(error: HullError) -> int:
    if isinstance(error, CommandNotFound):
        return 127
    if isinstance(error, CommandNotExecutable):
        return 126
    return OWN_FAILURE


def _execute(verb: Verb, values: dict[str, Any], begun: Client | None) -> Result:
    if not verb.needs_engine:
        if begun is not None:
            begun.close()
        return execute(verb, values, None)
    from nbhull.runtime.engine import Engine

    with Engine(fork=True, begun=begun) as engine:
        return execute(verb, values, engine)


def begin_launcher() -> Client | None:
    """Start a launcher, which takes as long as what is imported here next. None where the store is not there yet."""
    from nbhull.runtime.launcher import client
    from nbhull.runtime.running import default_home

    home = default_home()
    return client.begin(home, fork=True) if os.path.isdir(home) else None


def _complain(error: HullError) -> None:
    print(f"nbhull: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)


def _json(data: Any) -> str:
    import json

    return json.dumps(data, indent=2, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
