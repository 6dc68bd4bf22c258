"""System call filters: profiles in Docker's format, compiled to BPF (seccomp(2)).

Imported only where a filter is not in the store yet; loading one needs nothing of this.
"""

from __future__ import annotations

from nbhull.runtime.seccomp import compiler, default, profile, syscalls
from nbhull.runtime.seccomp.compiler import compile_profile


def compiled(text: str, capabilities: frozenset[str]) -> bytes:
    """The filter of a profile (empty text: of the default one) for this machine and a bounding set.

    Raises InvalidInput that names what is wrong with the profile, HostUnable for an unknown architecture."""
    machine = syscalls.machine()
    document = profile.read(text) if text else default.document()
    return compile_profile(profile.resolve(document, machine, capabilities), machine)


def digest() -> str:
    """What `confinement.PROFILE_DIGEST` must be: a change of any of these modules makes old filters stale."""
    from hashlib import sha256

    sources = sha256()
    for module in (compiler, default, profile, syscalls):
        with open(str(module.__file__), "rb") as file:
            sources.update(file.read())
    return sources.hexdigest()[:16]
