"""The verbs of registries."""

from __future__ import annotations

import sys

from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.verbs.results import Names, Result, Text, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.engine import Engine


def pull(engine: Engine, values: dict[str, Any]) -> Result:
    """`pull`: gives back what names the image here."""
    from nbhull.runtime.verbs.progress import shown

    with shown(quiet=values.get("quiet", False)) as progress:
        image = engine.pull(values["image"], plain_http=values.get("plain_http", False), progress=progress)
    return Names([image.name or short_id(image.id)])


def push(engine: Engine, values: dict[str, Any]) -> Result:
    """`push`: gives back the digest."""
    from nbhull.runtime.verbs.progress import shown

    with shown(quiet=values.get("quiet", False)) as progress:
        digest = engine.push(
            values["image"], values["target"], plain_http=values.get("plain_http", False), progress=progress
        )
    return Names([digest])


def login(engine: Engine | None, values: dict[str, Any]) -> Result:
    """`login`: says where the credentials are now."""
    from nbhull.runtime.registry import credentials
    from nbhull.runtime.registry.client import check_login

    host = registry(values["registry"])
    username = values["username"] or ask("Username: ", "--username NAME")
    if values["password_stdin"]:
        secret = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    else:
        secret = ask("Password: ", "--password-stdin", secret=True)
    if not username or not secret or ":" in username:
        raise InvalidInput("the user name or the password is empty, or the name has a colon in it", "give both")
    given = credentials.Credentials(username, secret)
    check_login(host, given, plain_http=values["plain_http"])
    return Text(f"logged in to {host}; kept in {credentials.keep(host, given)}")


def logout(engine: Engine | None, values: dict[str, Any]) -> Result:
    """`logout`: says from where the credentials were taken."""
    from nbhull.runtime.registry import credentials

    host = registry(values["registry"])
    places = credentials.forget(host)
    if not places:
        raise NotFound(f"no credentials for {host} are kept here", f"looked in: {', '.join(credentials.files())}")
    return Text(f"logged out of {host}; taken from {', '.join(places)}")


def registry(text: str) -> str:
    """A registry's host, with its port. Raises InvalidInput."""
    from nbhull.runtime.registry.transfer import parse_remote

    host = text.removeprefix("https://").removeprefix("http://").rstrip("/")
    try:
        if parse_remote(f"{host}/image").registry == host:
            return host
    except InvalidInput:
        pass  # said in the words of this verb
    raise InvalidInput(f"{text[:100]!r} is no registry", "give its host, like registry.example.org or localhost:5000")


def ask(prompt: str, option: str, *, secret: bool = False) -> str:
    """Ask at the terminal. Raises InvalidInput where there is none."""
    if not sys.stdin.isatty():
        raise InvalidInput(f"there is no terminal to ask for the {prompt.strip(': ').lower()}", f"give {option}")
    if secret:
        from getpass import getpass

        return getpass(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip()
