"""The verbs of images and snapshots."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import CLI, EVERYWHERE, Argument, Verb
from nbhull.runtime.verbs.groups.shared import AS_JSON, CONTAINER, QUIET

VERBS: tuple[Verb, ...] = (
    Verb(
        "images",
        "list images and snapshots",
        "nbhull.runtime.verbs.images:images",
        (Argument("--all", "what resets have kept, too", short="-a", flag=True, where=CLI), QUIET, AS_JSON),
        examples=(("images", "what `run` can be given"),),
        where=EVERYWHERE,
    ),
    Verb(
        "snapshot",
        "keep the files of a container, as they are now, as an image",
        "nbhull.runtime.verbs.images:snapshot",
        (
            CONTAINER,
            Argument("NAME", "name of the image", parse="nbhull.runtime.model:parse_name"),
        ),
        about="Running processes go on. Prints what names the image.",
        examples=(("snapshot mybox before-upgrade", "keep the files of mybox"),),
        where=EVERYWHERE,
    ),
    Verb(
        "reset",
        "put the files of a container back on a snapshot",
        "nbhull.runtime.verbs.images:reset",
        (
            CONTAINER,
            Argument("NAME", "snapshot; without one, the last one made or reset to, else the image itself"),
        ),
        about="All its processes end. A container that ran is running again afterwards; a notebook's kernel "
        "is started again.",
        examples=(("reset mybox before-upgrade", "put the files of mybox back"),),
        where=EVERYWHERE,
    ),
)
