"""Who the user is to a registry: the files that Podman and Docker keep, and their credential helpers.

containers-auth.json(5); Docker's config.json; the protocol of docker-credential-helpers.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from typing import Any, NamedTuple

from nbhull.runtime.errors import HullError, InvalidInput, NotFound

HELPER_TIMEOUT = 60.0
"""seconds; a helper may ask the user"""
IDENTITY_TOKEN = "<token>"
"""the user name by which a helper says that its secret is an identity token"""


class Credentials(NamedTuple):
    """A user name and a secret, or an identity token in place of both."""

    username: str = ""
    secret: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r}, …)"  # secrets are in no log


def files() -> list[str]:
    """Where credentials are looked for, in this order; not all exist."""
    if chosen := os.environ.get("REGISTRY_AUTH_FILE"):
        return [chosen]
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    docker = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    found = [f"{runtime}/containers/auth.json"] if runtime else []
    return [*found, f"{config}/containers/auth.json", f"{docker}/config.json"]


def own_file() -> str:
    """Where `login` keeps what it is given: a file that Podman, Buildah and Skopeo read too."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.environ.get("REGISTRY_AUTH_FILE") or f"{config}/containers/auth.json"


def find(host: str, repository: str) -> Credentials | None:
    """The credentials for a repository of a registry; the most special entry of the first file that has one.

    Raises InvalidInput for a file that cannot be read, HullError for a helper that fails."""
    keys = [host]
    for part in repository.split("/"):
        keys.insert(0, f"{keys[0]}/{part}")
    for path in files():
        document = read(path)
        for key in keys:
            if (helper := helper_of(document, key)) is not None:
                found = ask_helper(helper, key)
            else:
                found = entry_of(document, key, path)
            if found is not None:
                return found
    return None


def read(path: str) -> dict[str, Any]:
    """A file of credentials; empty if there is none. Raises InvalidInput."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"the credentials in {path!r} cannot be read: {error}", "mend the file, or delete it"
        ) from error
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key) or {}, dict) for key in ("auths", "credHelpers")
    ):
        raise InvalidInput(f"the credentials in {path!r} are not of the right form", "mend the file, or delete it")
    return document


def helper_of(document: dict[str, Any], key: str) -> str | None:
    """The helper that keeps the credentials for a registry."""
    helper = (document.get("credHelpers") or {}).get(key) or ("/" not in key and document.get("credsStore")) or None
    return helper if isinstance(helper, str) and helper else None


def entry_of(document: dict[str, Any], key: str, path: str) -> Credentials | None:
    """What stands in a file itself for a registry. Raises InvalidInput."""
    auths = document.get("auths") or {}
    entry = next((auths[k] for k in (key, f"https://{key}", f"http://{key}", f"https://{key}/v2/") if k in auths), None)
    if not isinstance(entry, dict):
        return None
    if isinstance(token := entry.get("identitytoken"), str) and token:
        return Credentials(identity_token=token)
    encoded = entry.get("auth")
    if not isinstance(encoded, str) or not encoded:
        return None
    try:
        username, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise InvalidInput(f"the entry for {key} in {path!r} is not valid", f"nbhull login {key.partition('/')[0]}")
    return Credentials(username, secret.rstrip("\0"))


def ask_helper(helper: str, key: str) -> Credentials | None:
    """What a credential helper has for a registry, if anything. Raises HullError if it fails."""
    answer = run_helper(helper, "get", key)
    if answer is None:
        return None
    try:
        document = json.loads(answer)
        username, secret = str(document["Username"]), str(document["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise HullError(f"the credential helper docker-credential-{helper} gave no valid answer") from error
    return Credentials(identity_token=secret) if username == IDENTITY_TOKEN else Credentials(username, secret)


def run_helper(helper: str, action: str, text: str) -> str | None:
    """Run `docker-credential-HELPER ACTION`; None where it has no such entry. Raises NotFound, HullError."""
    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise InvalidInput(f"the credential helper {helper[:100]!r} is not a name", "correct the file of credentials")
    try:
        done = subprocess.run(
            [program, action], input=text, capture_output=True, text=True, timeout=HELPER_TIMEOUT, check=False
        )
    except FileNotFoundError:
        raise NotFound(f"the credential helper {program} is not installed", f"install {program}") from None
    except subprocess.TimeoutExpired:
        raise HullError(f"the credential helper {program} does not answer") from None
    if done.returncode == 0:
        return done.stdout
    said = (done.stdout or done.stderr).strip()
    if "credentials not found" in said:
        return None
    raise HullError(f"the credential helper {program} failed: {said[:200]}")


def keep(host: str, credentials: Credentials) -> str:
    """Remember credentials, by the user's helper for this registry where there is one; where they are now."""
    path = own_file()
    document = read(path)
    if (helper := helper_of(document, host)) is not None:
        username = IDENTITY_TOKEN if credentials.identity_token else credentials.username
        secret = credentials.identity_token or credentials.secret
        run_helper(helper, "store", json.dumps({"ServerURL": host, "Username": username, "Secret": secret}))
        return f"docker-credential-{helper}"
    entry = {"auth": base64.b64encode(f"{credentials.username}:{credentials.secret}".encode()).decode()}
    if credentials.identity_token:
        entry = {"identitytoken": credentials.identity_token}
    document.setdefault("auths", {})[host] = entry
    write(path, document)
    return path


def forget(host: str) -> list[str]:
    """Forget the credentials for a registry, wherever they are; from where they were taken."""
    places = []
    for path in files():
        document = read(path)
        helper = helper_of(document, host)
        if helper is not None and run_helper(helper, "get", host) is not None:
            run_helper(helper, "erase", host)
            places.append(f"docker-credential-{helper}")
        if host in (document.get("auths") or {}):
            del document["auths"][host]
            write(path, document)
            places.append(path)
    return places


def write(path: str, document: dict[str, Any]) -> None:
    """Write a file of credentials whole or not at all, for its user alone."""
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(document, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, os.path.realpath(path))
