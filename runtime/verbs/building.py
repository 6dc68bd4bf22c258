"""The verb `build`."""

from __future__ import annotations

import os

from nbhull.runtime.builder.build import Build, Options
from nbhull.runtime.builder.build import Result as BuildResult
from nbhull.runtime.builder.context import has_file
from nbhull.runtime.builder.scope import platform
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.verbs.archives import refuse_terminal
from nbhull.runtime.verbs.results import Names, Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.engine import Engine


def build(engine: Engine, values: dict[str, Any]) -> Result:
    """`build`: gives back what names the image, its first tag or its id."""
    from nbhull.runtime.builder.inputs import empty, opened
    from nbhull.runtime.builder.progress import INSTEAD

    notebook = values["context"].endswith(".ipynb") and os.path.isfile(values["context"])
    context = (os.path.dirname(values["context"]) or ".") if notebook else values["context"]
    found = empty(engine) if values.get("no_context") else opened(engine, context, values["file"])
    with found as (folder, file):
        options = Options(
            text=values.get("text"),
            teller=INSTEAD.get(),
            context=folder,
            file=file,
            tags=values["tag"],
            target=values["target"],
            arguments=dict(pair for pair in values["build_arg"] if pair is not None),
            labels=dict(pair for pair in values["label"] if pair is not None),
            secrets=values["secret"],
            cached=not values["no_cache"],
            pull=values["pull"],
            network=values["network"],
            host_settings=not values["no_host_settings"],
            progress="quiet" if values.get("quiet") else values.get("progress", "auto"),
            epoch=epoch(dict(pair for pair in values["build_arg"] if pair is not None)),
            cache_from=values["cache_from"],
            cache_to=values["cache_to"],
        )
        result = build_and_hand_on(engine, options, values, values["context"] if notebook else "")
    identity = result.image.id if len(result.image.id) < 64 else f"sha256:{result.image.id}"
    if values.get("iidfile"):
        with open(values["iidfile"], "w") as opened_file:
            opened_file.write(identity)
    if any(output.target == "-" for output in values["output"]):
        return Names([])  # the files stand there
    return Names([identity if values.get("quiet") or not values["tag"] else values["tag"][0]])


def build_and_hand_on(engine: Engine, options: Options, values: dict[str, Any], notebook: str) -> BuildResult:
    """Build, with caches from elsewhere, and give the image and its steps to where they are to go."""
    for output in values["output"]:
        if output.target == "-":
            refuse_terminal("-")
    if options.cache_from:
        from nbhull.runtime.builder import travel
        from nbhull.runtime.builder.progress import Terminal

        travel.fetch(engine, options.cache_from, options.teller or Terminal(options.progress))
    result = build_it(engine, options, values, notebook)
    for place in options.cache_to:
        if place.kind != "inline":
            from nbhull.runtime.builder import travel

            travel.publish(engine, place, result.steps, platform())
    for output in values["output"]:
        from nbhull.runtime.builder.output import write

        write(engine, result.image, output)
    return result


def build_it(engine: Engine, options: Options, values: dict[str, Any], notebook: str) -> BuildResult:
    """Build a Containerfile if there is one, else what environment files or a notebook ask for."""
    of_files = ("base", "locked", "relock")
    if notebook or (options.file is None and options.text is None and not has_file(options.context)):
        from nbhull.runtime.builder import repository
        from nbhull.runtime.builder.environment import EnvironmentBuild

        asked = repository.find(notebook or options.context)
        if asked is not None:
            environment = EnvironmentBuild(engine, options, asked, values["base"], notebook or options.context)
            return environment.run(locked=values["locked"], relock=values["relock"])
    for name in of_files:
        if values[name]:
            raise InvalidInput(
                f"--{name} is for environment files, and a Containerfile is built", "leave it out, or remove that file"
            )
    one = Build(engine, options)
    try:
        return one.run()
    finally:
        one.close()


def epoch(arguments: dict[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH, as a build argument or a variable. Raises InvalidInput if it is no number."""
    text = arguments.get("SOURCE_DATE_EPOCH", os.environ.get("SOURCE_DATE_EPOCH", ""))
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 12:
        raise InvalidInput(f"SOURCE_DATE_EPOCH {text[:40]!r} is not a number of seconds", "unset it, or correct it")
    return int(text)


def parse_progress(text: str) -> str:
    """How progress is shown."""
    if text not in ("auto", "plain", "tty", "quiet"):
        raise InvalidInput(f"there is no progress {text!r}", "one of: auto, plain, tty, quiet")
    return text


