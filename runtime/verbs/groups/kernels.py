"""The verbs of Jupyter's kernelspecs."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import CLI, EVERYWHERE, MAGIC, Argument, Verb
from nbhull.runtime.verbs.groups.shared import AS_JSON, CONFINEMENT, LIMITS, VALUES

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
            Argument(
                "--volume",
                "hand in a folder or file of this machine, or a named volume, at a path of the container; `:ro` makes "
                "it read-only. A SOURCE without a slash is a volume, made if there is none",
                short="-v",
                metavar="SOURCE:TARGET[:ro]",
                parse=VALUES + "parse_volume",
                many=True,
            ),
            *(option.as_text() for option in CONFINEMENT),
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
            (
                "kernel install --user --name gpu --gpus all --device /dev/kvm --cap-drop NET_RAW",
                "with what `run` can give and take",
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
    Verb(
        "replay",
        "run cells again in a fresh container, and compare what comes out",
        "nbhull.kernel.replay.notebook:replay",
        (
            Argument("--image", "image to run in, instead of the notebook's own", metavar="IMAGE", where=CLI),
            Argument(
                "--timeout",
                "seconds that one cell may take",
                metavar="SECONDS",
                parse=VALUES + "parse_seconds",
                default=600.0,
                where=CLI,
            ),
            Argument(
                "--in-place",
                "let the cells work in the notebook's folder itself, not in a copy",
                flag=True,
                where=CLI,
            ),
            AS_JSON,
            Argument("NOTEBOOK", "the notebook's file", required=True, where=CLI),
            Argument(
                "NAME",
                "snapshot to begin from; without one, the last one made or reset to, else the image",
                where=MAGIC,
            ),
        ),
        about="The image is `metadata.container.image` of the notebook, else `host`. Outputs are compared with those "
        "in the notebook, without what differs from run to run by itself: addresses, times, durations, ids. Cells "
        "tagged `skip-replay` are not run, those tagged `ignore-output` are not compared. The exit status is 0 if all "
        "came out the same, else 1.\n\n"
        "In a notebook, `%container replay` runs the cells since a snapshot.",
        examples=(
            ("replay analysis.ipynb", "is the notebook reproducible?"),
            ("replay --json --timeout 60 analysis.ipynb", "the same, for a program"),
        ),
        where=EVERYWHERE,
    ),
    Verb(
        "panel",
        "show this notebook's container: its snapshots, what it uses, and buttons for what can be done",
        "nbhull.magics.panel:verb",
        about="The tree of snapshots, where the notebook stands in it, differences as folders and lines of text, "
        "charts of processors, memory, disk and network, and a log. It goes on after a reset. Python can have it as "
        "`nbhull.panel()`.",
        where=MAGIC,
        needs_engine=False,
    ),
    Verb(
        "picker",
        "show the images that there are, to choose one that this notebook goes on in",
        "nbhull.magics.picker:verb",
        about="A list with sizes, a filter, and a button that does what `use` does. Python can have it as "
        "`nbhull.picker()`. Where no widgets can be shown, it is the list as text.",
        where=MAGIC,
        needs_engine=False,
    ),
)
