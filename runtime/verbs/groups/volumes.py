"""The verbs of named volumes."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import Argument, Verb
from nbhull.runtime.verbs.groups.shared import AS_JSON, QUIET

IMPLEMENTED = "nbhull.runtime.verbs.volumes:"
VOLUMES = Argument("VOLUME", "names or ids of volumes", required=True, many=True)

VERBS: tuple[Verb, ...] = (
    Verb(
        "volume create",
        "make a named volume",
        IMPLEMENTED + "create",
        (Argument("NAME", "its name; without one, it gets one", parse="nbhull.runtime.model:parse_name"),),
        about="A volume is a folder for data that stays when containers go, and that several may have at a time. "
        "`run -v NAME:PATH` makes the ones that are missing, too. One that is there is left as it is.",
        examples=(("volume create results", "an empty volume"),),
    ),
    Verb(
        "volume ls",
        "list volumes",
        IMPLEMENTED + "list_all",
        (QUIET, AS_JSON),
        examples=(("volume ls", "all volumes, and which containers have them"),),
    ),
    Verb(
        "volume inspect",
        "tell all that is known of volumes",
        IMPLEMENTED + "inspect",
        (VOLUMES,),
        about="Its size, its folder on this machine, and the containers that have it, as JSON.",
        examples=(("volume inspect results", "where it lies, and how large it is"),),
    ),
    Verb(
        "volume rm",
        "delete volumes and the data in them",
        IMPLEMENTED + "remove",
        (VOLUMES,),
        about="One that a container has, a stopped one too, is not deleted.",
        examples=(("volume rm results", "the data is gone"),),
    ),
    Verb(
        "volume prune",
        "delete volumes that no container has",
        IMPLEMENTED + "prune",
        (Argument("--all", "those with data in them, too", short="-a", flag=True),),
        about="Without --all only those in which nothing is. `nbhull prune` deletes no volume. The container of a "
        "notebook goes when its kernel is shut down; its volumes then belong to none.",
        examples=(("volume prune", "delete the empty ones"),),
    ),
)
