"""The one table of all verbs, in the order in which help lists them.

It is read group by group, so that a verb of the first ones is found without the import of those behind.
"""

from __future__ import annotations

from nbhull.runtime.verbs.definition import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

GROUPS = ("containers", "images", "snapshots", "archives", "volumes", "registries", "kernels", "system")


def groups(where: str = "") -> Iterator[list[Verb]]:
    """The verbs of the command line ("cli"), of the magic ("magic") or of both, by what they are about."""
    for name in GROUPS:
        module = __import__(f"nbhull.runtime.verbs.groups.{name}", fromlist=["VERBS"])
        yield [verb for verb in module.VERBS if not where or where in verb.where]


def verbs(where: str = "") -> list[Verb]:
    """All of them."""
    return [verb for group in groups(where) for verb in group]
