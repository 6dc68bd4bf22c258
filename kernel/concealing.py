"""What errors and tables tell a container of this machine: no path but those that it was given itself."""

from __future__ import annotations

from typing import Any

from nbhull.runtime import policy
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import HullError, SyscallFailed
from nbhull.runtime.launcher.client import runtime_folder


def conceal(error: HullError, engine: Engine) -> HullError:
    """The error, without the paths of nbhull's own folders."""
    words = {
        engine.store.home: "(nbhull's store)",
        runtime_folder(): "(nbhull's runtime folder)",
        policy.user_file(): "(the user's) nbhull/config.toml",
    }

    def concealed(text: str) -> str:
        for path, word in words.items():
            text = text.replace(path, word)
        return text

    error.message, error.hint = concealed(error.message), concealed(error.hint)
    if isinstance(error, SyscallFailed):
        error.subject = concealed(error.subject)
    return error


def without_sources(item: dict[str, Any]) -> dict[str, Any]:
    """A container's data, without where on this machine its folders lie."""
    return item | {"mounts": [{key: value for key, value in m.items() if key != "source"} for m in item["mounts"]]}
