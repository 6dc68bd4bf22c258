"""What a request carries to show who asks: nothing at first, then what the registry's challenge asks for.

Each state is an object that makes the header, and gives the next state when a request is refused (RFC 7235, and the
token specification of the distribution project).
"""

from __future__ import annotations

import base64
import json
import re
from typing import Protocol
from urllib.parse import urlencode

from nbhull.runtime.errors import Denied, HullError, InvalidInput
from nbhull.runtime.registry.credentials import Credentials
from nbhull.runtime.registry.transport import Response, Transport

LARGEST = 1 << 20
"""bytes of a token server's answer"""
PARAMETER = re.compile(r'([a-zA-Z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:\[\]-]+(?:[/?][!-~]*)?")
CLIENT = "nbhull"


class Authorization(Protocol):
    """One state."""

    def header(self) -> dict[str, str]:
        """What a request carries."""

    def escalate(self, challenges: list[str], scope: str) -> Authorization:
        """The next state after a refusal with these challenges. Raises Denied where there is none."""


class Anonymous:
    """Nothing is shown yet."""

    def __init__(self, transport: Transport, credentials: Credentials | None) -> None:
        self.transport = transport
        self.credentials = credentials

    def header(self) -> dict[str, str]:
        return {}

    def escalate(self, challenges: list[str], scope: str) -> Authorization:
        for text in challenges:
            scheme, _, rest = text.strip().partition(" ")
            parameters = {key.lower(): quoted or plain for key, quoted, plain in PARAMETER.findall(rest)}
            if scheme.lower() == "bearer" and parameters.get("realm"):
                return self.token(parameters, scope)
            if scheme.lower() == "basic" and self.credentials is not None and self.credentials.username:
                return Basic(self.transport, self.credentials)
        raise refused(self.transport.host, known=self.credentials is not None)

    def token(self, parameters: dict[str, str], scope: str) -> Bearer:
        """A token of the registry's token server. Raises Denied, HullError."""
        realm = parameters["realm"]
        if ADDRESS.fullmatch(realm) is None:
            raise InvalidInput(f"the registry {self.transport.host} names no token server, but {realm[:200]!r}")
        if realm.partition(":")[0] not in ("https", self.transport.scheme):
            raise InvalidInput(
                f"the registry {self.transport.host} asks for credentials to be sent to {realm[:200]!r}, "
                "which is not encrypted"
            )
        asked = {key: parameters[key] for key in ("service",) if parameters.get(key)}
        # What the registry says it needs, beside what will be needed next (push after pull).
        scopes = list(dict.fromkeys(filter(None, [*parameters.get("scope", "").split(" "), scope])))
        if self.credentials is not None and self.credentials.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": self.credentials.identity_token, **asked}
            form |= {"client_id": CLIENT, "scope": " ".join(scopes)}
            response = self.transport.request(
                "POST",
                realm,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(form).encode(),
            )
        else:
            query = urlencode([*asked.items(), *(("scope", one) for one in scopes)])
            shown = basic(self.credentials) if self.credentials is not None else {}
            joint = "&" if "?" in realm else "?"
            response = self.transport.request("GET", f"{realm}{joint}{query}", headers=shown)
        return Bearer(self, read_token(self.transport.host, response, known=self.credentials is not None))


class Basic:
    """Name and secret with every request."""

    def __init__(self, transport: Transport, credentials: Credentials) -> None:
        self.transport = transport
        self.credentials = credentials

    def header(self) -> dict[str, str]:
        return basic(self.credentials)

    def escalate(self, challenges: list[str], scope: str) -> Authorization:
        raise refused(self.transport.host, known=True)


class Bearer:
    """A token. One that was refused is renewed, as it may have run out or be of a smaller scope."""

    def __init__(self, origin: Anonymous, token: str) -> None:
        self.origin = origin
        self.token = token

    def header(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def escalate(self, challenges: list[str], scope: str) -> Authorization:
        return self.origin.escalate(challenges, scope)


def basic(credentials: Credentials) -> dict[str, str]:
    """The header of RFC 7617."""
    pair = f"{credentials.username}:{credentials.secret}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}


def read_token(host: str, response: Response, *, known: bool) -> str:
    """The token in a token server's answer. Raises Denied, HullError."""
    with response:
        body = response.read(LARGEST, decode_content=True)
    if response.status in (400, 401, 403):
        raise refused(host, known=known)
    try:
        document = json.loads(body) if response.status == 200 else {}
        token = document.get("token") or document.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        token = None
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]{1,65536}", token):
        raise HullError(
            f"the token server of the registry {host} gave no token (status {response.status})", "try again later"
        )
    return token


def refused(host: str, *, known: bool) -> Denied:
    """The error where a registry wants other credentials."""
    if known:
        return Denied(f"the registry {host} refuses these credentials for that", f"nbhull login {host}")
    return Denied(f"the registry {host} asks who you are, or has nothing of that name", f"nbhull login {host}")
