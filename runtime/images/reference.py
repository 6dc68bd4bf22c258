"""Names of images: `[REGISTRY/]NAME[:TAG][@DIGEST]` (the grammar of distribution's package reference)."""

from __future__ import annotations

import re
from typing import NamedTuple

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.model import HOST_IMAGE, is_name

HOST = r"(?:\[[0-9a-fA-F:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)"
COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
REFERENCE = re.compile(
    rf"(?:(?P<registry>{HOST}(?::[0-9]{{1,5}})?)/)?(?P<path>{COMPONENT}(?:/{COMPONENT})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
LONGEST = 255
"""characters of registry and path"""
FORM = "write it like registry.example.org/team/name:tag, or name:tag for one that stays here"


class Reference(NamedTuple):
    """A name, taken apart."""

    registry: str
    """host with port; empty for a name without one"""
    path: str
    tag: str
    """empty if none is given"""
    digest: str
    """empty if none is given"""

    @property
    def repository(self) -> str:
        """Registry and path."""
        return f"{self.registry}/{self.path}" if self.registry else self.path

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """A reference. The first component is a registry if it has a dot or a port, or is `localhost`.

    Raises InvalidInput (the text is shown escaped)."""
    match = REFERENCE.fullmatch(text) if isinstance(text, str) and len(text) < 600 else None
    if match is None:
        raise InvalidInput(f"the image name {str(text)[:100]!r} is not valid", FORM)
    registry, path = match["registry"] or "", match["path"]
    if registry and not ("." in registry or ":" in registry or registry == "localhost"):
        registry, path = "", f"{registry}/{path}"
        if re.fullmatch(rf"{COMPONENT}(?:/{COMPONENT})*", path) is None:
            raise InvalidInput(f"the image name {text[:100]!r} is not valid", FORM)
    if len(registry) + len(path) > LONGEST:
        raise InvalidInput(f"the image name {text[:40]!r}… is too long", FORM)
    return Reference(registry, path, match["tag"] or "", match["digest"] or "")


def local_name(text: str) -> str:
    """The form in which a name is kept: with its tag, but without `latest` where it has no registry. Raises
    InvalidInput for names that are no tags."""
    if is_name(text) and text != HOST_IMAGE:
        return text  # a snapshot's, say, which may have capitals
    reference = parse(text)
    if reference.digest or (reference.repository == HOST_IMAGE and reference.tag in ("", "latest")):
        raise InvalidInput(f"{text[:100]!r} cannot be given to an image", FORM)
    if not reference.registry and reference.tag in ("", "latest"):
        return reference.path
    return f"{reference.repository}:{reference.tag or 'latest'}"
