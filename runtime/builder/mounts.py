"""RUN --mount: what a step may see beside the image's own files.

https://docs.docker.com/reference/dockerfile/#run---mount
"""

from __future__ import annotations

import posixpath

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.model import parse_bytes
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BIND, CACHE, SECRET, TMPFS, SSH = "bind", "cache", "secret", "tmpfs", "ssh"
KEYS = {
    BIND: ("target", "source", "from", "rw"),
    CACHE: ("target", "id", "ro", "sharing", "from", "source", "mode", "uid", "gid"),
    SECRET: ("target", "id", "required", "mode", "uid", "gid", "env"),
    TMPFS: ("target", "size"),
    SSH: ("target", "id", "required", "mode", "uid", "gid"),
}
ALIASES = {"dst": "target", "destination": "target", "src": "source", "readonly": "ro", "readwrite": "rw"}
SHARING = ("shared", "private", "locked")


class StepMount(Record):
    """One mount of one step."""

    kind: str
    target: str
    """absolute path; empty for a secret that is a variable alone"""
    source: str = "/"
    """path in what it is taken from"""
    origin: str = ""
    """`from`: a stage or an image; empty is the build context, or for a cache an empty folder"""
    id: str = ""
    read_only: bool = False
    sharing: str = "shared"
    required: bool = False
    mode: int = 0
    uid: int = 0
    gid: int = 0
    env: str = ""
    """of a secret: the variable that holds it"""
    size: int | None = None
    """bytes of a tmpfs"""


def parse_mount(text: str, folder: str, expand: Callable[[str], str]) -> StepMount:
    """The mount of one `--mount`; `folder`: the working folder. Raises InvalidInput, without the place."""
    import csv

    fields: dict[str, str] = {}
    try:
        (words,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise InvalidInput(f"--mount={text} is badly quoted", "write it like --mount=type=cache,target=/c") from None
    for word in words:
        name, equals, value = word.partition("=")
        name = ALIASES.get(name.strip().lower(), name.strip().lower())
        if not equals and name not in ("ro", "rw", "required"):
            raise InvalidInput(f"--mount={text}: {word!r} has no value", f"write {name}=VALUE")
        fields[name] = expand(value) if equals else "true"
    kind = fields.pop("type", BIND)
    if kind not in KEYS:
        raise InvalidInput(f"--mount knows no type {kind!r}", f"one of: {', '.join(KEYS)}")
    if kind == SSH:
        raise InvalidInput("--mount=type=ssh is not supported", "hand in a deploy key with --mount=type=secret")
    if kind == BIND and "ro" in fields:
        fields["rw"] = "false" if truth("ro", fields.pop("ro")) else "true"
    if kind == CACHE and "rw" in fields:
        fields["ro"] = "false" if truth("rw", fields.pop("rw")) else "true"
    for name in fields:
        if name not in KEYS[kind]:
            raise InvalidInput(f"a mount of type {kind} knows no {name!r}", f"it knows {', '.join(KEYS[kind])}")
    return checked(kind, fields, folder)


def checked(kind: str, fields: dict[str, str], folder: str) -> StepMount:
    """The mount with these fields."""
    target = fields.get("target", "")
    identity = fields.get("id", "")
    env = fields.get("env", "")
    if kind == SECRET:
        identity = identity or posixpath.basename(target)
        if not identity:
            raise InvalidInput("a secret has no id", "write it like --mount=type=secret,id=token")
        if not target and not env:
            target = f"/run/secrets/{posixpath.basename(identity)}"
    elif not target:
        raise InvalidInput(f"a mount of type {kind} has no target", f"write it like --mount=type={kind},target=/path")
    if target:
        target = posixpath.normpath(posixpath.join(folder, target))
        target = "/" + target.lstrip("/")
        if target == "/":
            raise InvalidInput("nothing can be mounted on /", "choose another target")
    sharing = fields.get("sharing", "shared")
    if sharing not in SHARING:
        raise InvalidInput(f"there is no sharing {sharing!r}", f"one of: {', '.join(SHARING)}")
    values: dict[str, Any] = {
        "source": fields.get("source", "/"),
        "origin": fields.get("from", ""),
        "id": identity or (target if kind == CACHE else ""),
        "read_only": truth("ro", fields.get("ro", "0")) if kind == CACHE else not truth("rw", fields.get("rw", "0")),
        "sharing": sharing,
        "required": truth("required", fields.get("required", "false")),
        "mode": number("mode", fields.get("mode", "0400" if kind == SECRET else "0755"), 8, 0o7777),
        "uid": number("uid", fields.get("uid", "0"), 10, 65535),
        "gid": number("gid", fields.get("gid", "0"), 10, 65535),
        "env": env,
        "size": parse_bytes(fields["size"], "size of the tmpfs") if "size" in fields else None,
    }
    return StepMount(kind, target, **values)


def truth(name: str, text: str) -> bool:
    """Yes or no, as Go reads it."""
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidInput(f"{name}={text} is neither true nor false", f"write {name}=true, or leave it out")


def number(name: str, text: str, base: int, most: int) -> int:
    """A number of a mount."""
    try:
        value = int(text, base)
    except ValueError:
        value = -1
    if not 0 <= value <= most or not text.isalnum():
        example = "0755" if base == 8 else "1000"
        raise InvalidInput(f"{name}={text} is no number for a mount", f"write it like {name}={example}")
    return value


class Secret(Record):
    """`--secret`: where the value of an id comes from."""

    id: str
    source: str = ""
    """a file"""
    env: str = ""
    """a variable of our own environment"""
    value: bytes | None = None
    """itself, where it was handed over"""

    def read(self) -> bytes:
        """Its value. Raises InvalidInput where there is none."""
        import os

        if self.value is not None:
            return self.value
        if self.env:
            if self.env not in os.environ:
                raise InvalidInput(f"the secret {self.id!r} has no value: {self.env} is not set", "set it, or use src=")
            return os.fsencode(os.environ[self.env])
        try:
            with open(self.source, "rb") as file:
                return file.read()
        except OSError as error:
            raise InvalidInput(
                f"the file {self.source!r} of the secret {self.id!r} cannot be read: {error.strerror}", "correct src="
            ) from error


def parse_secret(text: str) -> Secret:
    """`id=token,src=path`, `id=token,env=TOKEN`, `id=token` (the variable of that name, else the file)."""
    import os

    fields = dict(word.partition("=")[::2] for word in text.split(","))
    kind = fields.pop("type", "")
    identity = fields.pop("id", "")
    source = fields.pop("src", fields.pop("source", ""))
    env = fields.pop("env", "")
    form = "write it like id=token,src=token.txt or id=token,env=TOKEN"
    if fields or not identity or kind not in ("", "file", "env") or (source and env):
        raise InvalidInput(f"--secret {text!r} is not of the form id=NAME,src=FILE", form)
    if kind == "env" and source:
        source, env = "", source
    if not source and not env:
        source, env = ("", identity) if identity in os.environ else (identity, "")
    return Secret(identity, os.path.abspath(source) if source else "", env)
