"""`%%container build`: the cell is a Containerfile."""

from __future__ import annotations

import base64
import os
from typing import Any

from nbhull.kernel.rpc import connect, converse, decode_result
from nbhull.magics.cells import CellInterrupted, interruptible
from nbhull.magics.progress import Notes
from nbhull.runtime.builder.context import find_file
from nbhull.runtime.builder.syntax import LARGEST_FILE
from nbhull.runtime.errors import Denied, InvalidInput
from nbhull.runtime.verbs.building import epoch
from nbhull.runtime.verbs.results import Result

ON_THE_HOST = ("base", "locked", "relock", "output", "cache_from", "cache_to")
"""options of environment files, whose lock is written beside them, and of what comes from or goes to elsewhere"""


def check_cell(values: dict[str, Any], body: str | None) -> None:
    """Raise InvalidInput for what a cell, or the line alone, cannot have."""
    if body is not None and values["file"] is not None:
        raise InvalidInput("--file names a Containerfile, and the cell is one", "leave one of them out")
    if values["no_context"] and values["context"] is not None:
        raise InvalidInput("--context and --no-context exclude each other", "leave one of them out")
    if body is None and values["no_context"] and values["file"] is None:
        raise InvalidInput("there is no Containerfile", "write one in the cell below %%container build, or give --file")


def for_host(values: dict[str, Any], body: str | None) -> dict[str, Any]:
    """The values of the command line's verb, for a kernel that runs in no container."""
    check_cell(values, body)
    return values | {"text": body, "context": values["context"] or "."}


def request(values: dict[str, Any], body: str | None) -> dict[str, Any]:
    """What a kernel in a container asks the server for (`kernel.cells.building.BuildRequest`). Raises InvalidInput,
    NotFound, Denied."""
    check_cell(values, body)
    for name in ON_THE_HOST:
        if values.get(name):
            raise Denied(
                f"--{name.replace('_', '-')} is not for builds that a kernel in a container asks for",
                "say it in a terminal of the machine: nbhull build",
            )
    context = None if values["no_context"] else os.path.abspath(values["context"] or ".")
    called: str | None = None
    if body is None:
        path = find_file(context or ".", values["file"])
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            body = file.read(LARGEST_FILE + 1)
        called = values["file"] or os.path.basename(path)
    variables = dict(pair for pair in values["build_arg"] if pair is not None)
    settings: dict[str, Any] = {"network": values["network"]} if values["network"] else {}
    if values["no_host_settings"]:
        settings["host_settings"] = False
    return {
        "text": body,
        "name": called,
        "context": context,
        "tags": list(values["tag"]),
        "target": values["target"],
        "arguments": variables,
        "labels": dict(pair for pair in values["label"] if pair is not None),
        "secrets": {secret.id: base64.b64encode(secret.read()).decode() for secret in values["secret"]},
        "cached": not values["no_cache"],
        "pull": values["pull"],
        "epoch": epoch(variables),
        "settings": settings,
    }


def build(control: str, values: dict[str, Any], body: str | None, notes: Notes) -> Result:
    """Have the server that made this kernel's container build. Raises HullError, CellInterrupted."""
    params = request(values, body)
    try:
        with interruptible():
            return decode_result(converse(connect(control), "build", params, notes.hear))
    except KeyboardInterrupt:
        raise CellInterrupted("the build was interrupted") from None
