"""What a process gets that nobody asked for: environment, folder, user and command of its image."""

from __future__ import annotations

from nbhull.runtime import hostimage
from nbhull.runtime.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from nbhull.runtime.accounts import Account


def environment(record: Mapping[str, Any], account: Account) -> dict[str, str]:
    """The image's environment variables."""
    config = record.get("config")
    if config is None:
        return {**hostimage.process_environment(record["environment"]), "HOME": account.home}
    variables = {"PATH": hostimage.PATH, "HOME": account.home}
    variables.update(variable.split("=", 1) for variable in config["env"])
    return variables


def user(record: Mapping[str, Any]) -> str:
    """The image's user, `USER[:GROUP]`."""
    config = record.get("config")
    return str(config["user"]) if config and config["user"] else "0"


def folder(record: Mapping[str, Any], variables: Mapping[str, str], uid: int) -> str:
    """The image's working folder."""
    config = record.get("config")
    if config is not None:
        return f"/{config['working_dir'].strip('/')}"
    return variables.get("HOME", "/") if uid == 0 else "/"


def command(record: Mapping[str, Any], words: Sequence[str], entrypoint: str | None) -> tuple[str, ...]:
    """What `run` runs: the image's Entrypoint, and the words given, else its Cmd; a given `entrypoint` takes the place
    of both (empty: of the Entrypoint alone). Empty where the image `host` is to run its shell. Raises InvalidInput
    where there is nothing to run."""
    config = record.get("config")
    if config is None or entrypoint is not None:
        first = [entrypoint] if entrypoint else []
        return (*first, *words)
    whole = (*config["entrypoint"], *(words or config["cmd"]))
    if not whole:
        raise InvalidInput("the image has no command of its own", "give one: nbhull run IMAGE COMMAND")
    return whole


def stop_signal(record: Mapping[str, Any]) -> int:
    """The signal that asks the image's processes to end: its StopSignal, else SIGTERM."""
    config = record.get("config")
    return int(config["stop_signal"]) if config else 15
