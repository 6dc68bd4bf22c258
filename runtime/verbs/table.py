"""The one table of all verbs, in the order in which help lists them."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import Verb
from nbhull.runtime.verbs.groups import archives, containers, images, kernels, registries, snapshots, system

VERBS: tuple[Verb, ...] = (
    *containers.VERBS,
    *images.VERBS,
    *snapshots.VERBS,
    *archives.VERBS,
    *registries.VERBS,
    *kernels.VERBS,
    *system.VERBS,
)


def verbs(where: str) -> list[Verb]:
    """The verbs of the command line ("cli") or of the magic ("magic")."""
    return [verb for verb in VERBS if where in verb.where]
