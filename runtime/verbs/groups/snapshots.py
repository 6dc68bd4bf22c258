"""The verbs of the tree of snapshots."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import CLI, EVERYWHERE, MAGIC, Argument, Verb
from nbhull.runtime.verbs.groups.shared import AS_JSON, CONTAINER, OF_VOLUME, VALUES

VERBS: tuple[Verb, ...] = (
    Verb(
        "undo",
        "take the last reset of a container back",
        "nbhull.runtime.verbs.snapshots:undo",
        (*OF_VOLUME, CONTAINER),
        about="Its files are again what they were before the last `reset` or `undo`. All its processes end, as with "
        "`reset`. Volumes that the reset put back go back, too.",
        examples=(("undo mybox", "the reset was a mistake"),),
        where=EVERYWHERE,
    ),
    Verb(
        "snapshots",
        "show the tree of snapshots",
        "nbhull.runtime.verbs.snapshots:snapshots",
        (
            AS_JSON,
            *OF_VOLUME,
            Argument("CONTAINER", "only the tree that this container stands in", where=CLI),
        ),
        about="Each snapshot stands below the one that its container was on. The column `here` names the containers "
        "that stand on it; what was kept without being asked for is marked `auto`, with the "
        "occasion.",
        examples=(("snapshots mybox", "where mybox stands, and where it can go"),),
        where=EVERYWHERE,
    ),
    Verb(
        "auto",
        "show or change when snapshots are taken without being asked for",
        "nbhull.runtime.verbs.snapshots:auto",
        (
            Argument(
                "--installs",
                "before cells that install or remove packages: on or off",
                metavar="SWITCH",
                parse=VALUES + "parse_switch",
            ),
            Argument(
                "--cells",
                "after each cell that has changed files: on or off",
                metavar="SWITCH",
                parse=VALUES + "parse_switch",
            ),
            Argument(
                "--minutes", "so often, if files have changed; 0 for never", metavar="N", parse=VALUES + "parse_minutes"
            ),
        ),
        about="Holds until this notebook's kernel is shut down; `auto` in the kernelspec or the notebook's metadata "
        "holds from its start. None is taken where nothing has changed.",
        where=MAGIC,
    ),
    Verb(
        "diff",
        "tell what differs between containers, images and snapshots",
        "nbhull.runtime.verbs.snapshots:diff",
        (
            Argument("--text", "the lines of text files, too", flag=True),
            AS_JSON,
            Argument("A", "container, image, volume or snapshot; a notebook need not name its own container"),
            Argument("B", "another; without one, what has changed in A since the snapshot or image it was made from"),
        ),
        about="Python packages that were added, removed or have another version come first, then files, with sizes.",
        examples=(
            ("diff mybox", "what mybox has changed"),
            ("diff before-upgrade mybox", "what has changed since that snapshot"),
        ),
        where=EVERYWHERE,
    ),
)
