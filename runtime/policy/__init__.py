"""What the administrator allows, and within that the user: /etc/nbhull/config.toml and the user's own config.toml.

The engine applies it to every container that it makes or starts, whoever asks. Where neither file exists it costs two
failed stat(2). The path of the administrator's file is fixed: whatever could name another would let users leave it.
"""

from __future__ import annotations

import os
import stat

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.model import HOST_IMAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.model import ContainerSpec, Network
    from nbhull.runtime.policy.rules import Policy
    from nbhull.runtime.store import Store

SYSTEM = "/etc/nbhull/config.toml"


def user_file() -> str:
    """The user's own file: $XDG_CONFIG_HOME/nbhull/config.toml."""
    base = os.environ.get("XDG_CONFIG_HOME") or f"{os.path.expanduser('~')}/.config"
    return f"{base}/nbhull/config.toml"


def files() -> list[str]:
    """The files that there are, the administrator's first. Raises InvalidInput for one that cannot be read."""
    return [path for path in (SYSTEM, user_file()) if exists(path)]


def exists(path: str) -> bool:
    """Whether a file is there; what cannot be told is an error, since rules must not be lost."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", "see the permissions of its folders") from error
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInput(f"{path} is no regular file", "replace it by one")
    return True


def load() -> Policy | None:
    """The rules in force; None where there are none. Raises InvalidInput that names file, line and key."""
    found = files()
    if not found:
        return None
    from nbhull.runtime.policy.reading import read

    return read(found)


def apply(spec: ContainerSpec) -> ContainerSpec:
    """A container's spec with the defaults that hold. Raises Denied, naming the rule, for what is not allowed."""
    policy = load()
    return spec if policy is None else policy.apply(spec)


def check_image(store: Store, ref: str) -> None:
    """Raise Denied for an image that may not be run. Raises NotFound where there are rules, and no such image."""
    policy = load()
    if policy is not None:
        policy.check_image(ref, origins(store, ref))


def origins(store: Store, ref: str) -> list[str]:
    """The names of an image, and of those that it was made from by snapshots."""
    names: list[str] = []
    identity: str | None = ref
    while identity is not None and identity != HOST_IMAGE:
        row = store.find("images", identity, "image")
        names += [tag["name"] for tag in store.query("select name from tags where image = ?", row["id"])]
        identity = row["parent"]
        if identity is None and row["base"] == HOST_IMAGE:
            identity = HOST_IMAGE
    return names if identity is None else [*names, HOST_IMAGE]


def check_registry(name: str) -> None:
    """Raise Denied for an image's full name, REGISTRY/REPOSITORY, that may not be pulled or pushed."""
    policy = load()
    if policy is not None:
        policy.check_registry(name)


def check_siblings() -> None:
    """Raise Denied where kernels may have no other containers run for them."""
    policy = load()
    if policy is not None:
        policy.refuse_unless("kernels.siblings", "have another container run for it")


def fallback() -> Network:
    """The network where none was asked for, and none of a container's own can be had."""
    policy = load()
    return "host" if policy is None else policy.fallback()
