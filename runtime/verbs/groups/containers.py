"""The verbs that make, run and end containers."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import CLI, EVERYWHERE, MAGIC, Argument, Verb
from nbhull.runtime.verbs.groups.shared import (
    ANY_CONTAINER,
    AS_JSON,
    CONFINEMENT,
    CONTAINERS,
    LIMITS,
    PROCESS,
    QUIET,
    VALUES,
)

CELLS = (
    Argument("--python", "the cell is Python, for the image's own", flag=True, where=MAGIC),
    Argument("--r", "the cell is R, for the image's own", flag=True, where=MAGIC),
    Argument(
        "--interpreter",
        "what runs the cell, such as `perl -w`: it is given the cell as a file",
        metavar="COMMAND",
        where=MAGIC,
    ),
    Argument(
        "--variable",
        "variable of the notebook that the cell is given, and hands back",
        short="-v",
        metavar="NAME",
        parse=VALUES + "parse_variable",
        many=True,
        where=MAGIC,
    ),
    Argument("--no-folder", "hand in neither the notebook's folder nor the kernel's others", flag=True, where=MAGIC),
)
"""how `%%container run` runs its cell"""

VERBS: tuple[Verb, ...] = (
    Verb(
        "run",
        "make a container from an image and run a command in it",
        "nbhull.runtime.verbs.containers:run",
        (
            Argument(
                "--name",
                "name of the container",
                metavar="NAME",
                parse="nbhull.runtime.model:parse_name",
                where=CLI,
            ),
            Argument("--rm", "remove the container when the command has ended", flag=True, where=CLI),
            Argument(
                "--pull",
                "when to get an image from its registry: `missing`, `always` or `never`",
                metavar="WHEN",
                parse=VALUES + "parse_pull",
                default="missing",
            ),
            Argument(
                "--entrypoint",
                "program to run instead of the image's Entrypoint and Cmd; empty for none",
                metavar="PROGRAM",
            ),
            *PROCESS,
            *CELLS,
            *(
                Argument(
                    "--volume",
                    "hand in a folder or file of this machine, or a named volume, at a path of the container; "
                    "`:ro` makes it read-only. A SOURCE without a slash is a volume, made if there is none",
                    short=short,
                    metavar="SOURCE:TARGET[:ro]",
                    parse=VALUES + "parse_volume",
                    many=True,
                    where=(where,),
                )
                for where, short in (("cli", "-v"), ("magic", ""))
            ),
            *LIMITS,
            Argument(
                "--no-host-settings",
                "do not hand in the host's proxies and certificates, and settings of pip, npm and apt",
                flag=True,
            ),
            *CONFINEMENT,
            Argument(
                "--publish",
                "lead a port of this machine to one of the container; on all addresses of the machine (as with "
                "Docker), unless one is given",
                short="-p",
                metavar="[ADDRESS:]OUTSIDE:INSIDE[/udp]",
                parse=VALUES + "parse_publish",
                many=True,
                where=CLI,
            ),
            Argument(
                "--dns",
                "name server to ask instead of this machine's",
                metavar="ADDRESS",
                parse=VALUES + "parse_dns",
                many=True,
            ),
            Argument(
                "--add-host",
                "have a name mean an address, by a line of /etc/hosts",
                metavar="NAME:ADDRESS",
                parse=VALUES + "parse_add_host",
                many=True,
                where=CLI,
            ),
            Argument(
                "--hostname",
                "host name inside the container",
                short="-h",
                metavar="NAME",
                parse=VALUES + "parse_hostname",
                where=CLI,
            ),
            Argument("IMAGE", "image or snapshot; `host` is this machine's own system", required=True),
            Argument(
                "COMMAND",
                "command, or arguments of the image's Entrypoint; without one, the image's own, of `host` a shell",
                rest=True,
            ),
        ),
        about="Options stand before IMAGE; everything after it belongs to the command. The container's other "
        "processes end with the command. As with Docker the container stays, stopped, unless `--rm` is "
        "given, so that its files can still be snapshotted; `nbhull rm` removes it.\n\n"
        "Signals sent to nbhull go on to the command. The exit status is the command's own (128 and the "
        "signal's number if a signal ended it), 125 if nbhull itself failed, 126 if the command cannot be "
        "executed, 127 if it does not exist.",
        in_notebooks="`%%container run IMAGE` runs the cell in a container made for it; `%container run IMAGE COMMAND` "
        "runs a command. Options stand before IMAGE. What it writes is shown as it comes; interrupting the kernel ends "
        "it. The container is gone afterwards; an exit status other than 0 is an error.\n\n"
        "The cell is for the image's shell, unless --python, --r or --interpreter says otherwise; words behind IMAGE "
        "are its arguments. The notebook's folder is handed in, and is where it works. `-v NAME` hands in a variable "
        "of the notebook, and back if the cell has changed it.\n\n"
        "A kernel in a container can give its cells nothing that it does not have itself.",
        examples=(
            ("run --rm host python3 -c 'print(1 + 1)'", "run Python in a container that is gone afterwards"),
            ("run --rm -it host", "a shell in a container"),
            ("run --rm -v results:/results host python3 work.py", "the named volume `results`, which stays"),
            (
                "run --rm -v ./data:/data:ro -m 2g --network none host ls /data",
                "a folder read-only, at most 2 GiB of memory, no network",
            ),
        ),
        where=EVERYWHERE,
    ),
    Verb(
        "ps",
        "list containers",
        "nbhull.runtime.verbs.containers:ps",
        (Argument("--all", "stopped ones too", short="-a", flag=True), QUIET, AS_JSON),
        about="Those of Jupyter servers are listed too; a notebook sees its own alone.",
        examples=(("ps -a", "all containers, stopped ones too"),),
        where=EVERYWHERE,
    ),
    Verb(
        "exec",
        "run a command in a running container",
        "nbhull.runtime.verbs.containers:execute",
        (
            *PROCESS,
            ANY_CONTAINER,
            Argument("COMMAND", "command with its arguments", required=True, rest=True),
        ),
        about="Options stand before CONTAINER; everything after it belongs to the command. "
        "Exit statuses are those of `run`.",
        in_notebooks="Options stand before CONTAINER; everything after it belongs to the command. What it writes is "
        "shown as it comes; interrupting the kernel ends it. An exit status other than 0 is an error.",
        examples=(("exec -it 4f2a bash", "a shell in the container whose id begins with 4f2a"),),
        where=EVERYWHERE,
    ),
    Verb(
        "stats",
        "show what running containers use, against their limits",
        "nbhull.runtime.verbs.stats:stats",
        (
            Argument("--no-stream", "print once, and not again and again", flag=True, where=CLI),
            AS_JSON,
            Argument("CONTAINER", "names or ids of containers; without any, all that run", many=True, where=CLI),
        ),
        about="Memory is counted without the file cache that Linux can drop at once. The disk column is of the "
        "container's own files, where they have a quota. Without --no-stream the table is printed anew each second "
        "on a terminal; elsewhere it is printed once.",
        examples=(("stats --no-stream", "all running containers, once"),),
        where=EVERYWHERE,
    ),
    Verb(
        "stop",
        "end the processes of containers",
        "nbhull.runtime.verbs.containers:stop",
        (
            Argument(
                "--time",
                "seconds between SIGTERM and SIGKILL",
                short="-t",
                metavar="SECONDS",
                parse=VALUES + "parse_seconds",
                default=10.0,
            ),
            CONTAINERS,
        ),
        about="The files stay.",
        examples=(("stop -t 2 mybox", "SIGTERM, and SIGKILL after two seconds"),),
        where=EVERYWHERE,
    ),
    Verb(
        "rm",
        "remove containers and their files",
        "nbhull.runtime.verbs.containers:remove",
        (Argument("--force", "stop those that run", short="-f", flag=True), CONTAINERS),
        examples=(("rm -f mybox", "remove a container even if it runs"),),
        where=EVERYWHERE,
    ),
    Verb(
        "info",
        "show the container that this notebook runs in",
        "nbhull.runtime.verbs.containers:info",
        where=MAGIC,
    ),
)
