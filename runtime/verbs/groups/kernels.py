"""The verbs of Jupyter's kernelspecs."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import Argument, Verb
from nbhull.runtime.verbs.groups.shared import AS_JSON, LIMITS

VERBS: tuple[Verb, ...] = (
    Verb(
        "kernel install",
        "install a kernelspec whose kernels run in containers",
        "nbhull.kernel.verbs:install",
        (
            Argument(
                "--name",
                "name of the kernelspec",
                metavar="NAME",
                default="nbhull",
                parse="nbhull.runtime.model:parse_name",
            ),
            Argument("--display-name", "how Jupyter shows it", metavar="TEXT"),
            Argument("--image", "image that its kernels run in", metavar="IMAGE", default="host"),
            Argument("--kernel", "kernelspec inside the image", metavar="NAME", default="python3"),
            *LIMITS,
            Argument("--user", "install for this user", flag=True),
            Argument("--sys-prefix", "install into the Python environment of nbhull", flag=True),
            Argument("--prefix", "install below this folder", metavar="FOLDER"),
        ),
        examples=(
            ("kernel install --user", "`Python 3 (container)` in this user's JupyterLab"),
            (
                "kernel install --sys-prefix --name small --display-name 'Python (1 GiB)' --memory 1g",
                "another one, with a limit",
            ),
        ),
        needs_engine=False,
    ),
    Verb(
        "kernel list",
        "list the kernelspecs whose kernels run in containers",
        "nbhull.kernel.verbs:list_specs",
        (AS_JSON,),
        examples=(("kernel list", "what `kernel install` installed"),),
        needs_engine=False,
    ),
    Verb(
        "kernel remove",
        "remove kernelspecs",
        "nbhull.kernel.verbs:remove",
        (Argument("NAME", "names of kernelspecs", required=True, many=True),),
        examples=(("kernel remove nbhull", "undo `kernel install`"),),
        needs_engine=False,
    ),
)
