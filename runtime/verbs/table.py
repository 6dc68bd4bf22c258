"""What the verbs are: their names, options, help, and where each is implemented.

The command line reads this on every start, so it is plain data: no dataclasses, no enumerations, and
every function is named by a reference (`package.module:function`) that is imported when it is called.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CLI = ("cli",)
MAGIC = ("magic",)
EVERYWHERE = ("cli", "magic")


class Argument:
    """One option or positional argument of a verb.

    Options have a `name` that begins with `--`; positionals are named as they are written in help.
    """

    __slots__ = (
        "default",
        "flag",
        "help",
        "many",
        "metavar",
        "name",
        "parse",
        "required",
        "rest",
        "short",
        "where",
    )

    def __init__(
        self,
        name: str,
        help: str,
        *,
        short: str = "",
        metavar: str = "",
        parse: str = "",
        default: Any = None,
        flag: bool = False,
        many: bool = False,
        required: bool = False,
        rest: bool = False,
        where: tuple[str, ...] = EVERYWHERE,
    ) -> None:
        self.name = name
        self.help = help
        self.short = short
        """one letter with its dash, such as `-m`"""
        self.metavar = metavar
        self.parse = parse
        """reference of a function from text to value that raises InvalidInput; empty keeps the text"""
        self.default = () if many else False if flag else default
        self.flag = flag
        """an option without a value"""
        self.many = many
        """may be given several times; the value is a tuple"""
        self.required = required
        self.rest = rest
        """a positional that takes every word left, options included"""
        self.where = where

    @property
    def is_option(self) -> bool:
        """Whether it is written with dashes."""
        return self.name.startswith("--")

    @property
    def key(self) -> str:
        """Its key in the parsed values: `pids_limit` for `--pids-limit`, `container` for CONTAINER."""
        return self.name.lstrip("-").replace("-", "_").lower()


class Verb:
    """One verb: what may follow it, and what does it."""

    __slots__ = ("about", "arguments", "examples", "help", "implementation", "name", "needs_engine", "where")

    def __init__(
        self,
        name: str,
        help: str,
        implementation: str,
        arguments: tuple[Argument, ...] = (),
        *,
        about: str = "",
        examples: tuple[tuple[str, str], ...] = (),
        where: tuple[str, ...] = CLI,
        needs_engine: bool = True,
    ) -> None:
        self.name = name
        """one word or two, such as `run` or `kernel install`"""
        self.help = help
        self.implementation = implementation
        """reference of `function(engine, values) -> Result`"""
        self.arguments = arguments
        self.about = about
        """what a reader must know beyond `help`; paragraphs are separated by an empty line"""
        self.examples = examples
        """pairs of what follows the program's name, and what it does"""
        self.where = where
        self.needs_engine = needs_engine
        """whether `engine` is an Engine, and not None"""

    def options(self, where: str) -> list[Argument]:
        """The options it has on the command line ("cli") or in the magic ("magic")."""
        return [a for a in self.arguments if a.is_option and where in a.where]

    def positionals(self, where: str) -> list[Argument]:
        """The positional arguments it has there, in their order."""
        return [a for a in self.arguments if not a.is_option and where in a.where]


VALUES = "nbhull.runtime.verbs.values:"

AS_JSON = Argument("--json", "print JSON instead of a table", flag=True, where=CLI)
QUIET = Argument("--quiet", "print ids only", short="-q", flag=True, where=CLI)
CONTAINER = Argument("CONTAINER", "name, id or beginning of the id of a container", required=True, where=CLI)
CONTAINERS = Argument("CONTAINER", "names or ids of containers", required=True, many=True)

PROCESS = (
    Argument("--interactive", "pass standard input on to the command", short="-i", flag=True),
    Argument("--tty", "give the command a terminal", short="-t", flag=True),
    Argument(
        "--env",
        "set a variable of the environment; without a value it is taken from here",
        short="-e",
        metavar="NAME[=VALUE]",
        parse=VALUES + "parse_env",
        many=True,
    ),
    Argument(
        "--workdir",
        "folder to run the command in",
        short="-w",
        metavar="FOLDER",
        parse=VALUES + "parse_workdir",
    ),
    Argument(
        "--user",
        "user to run the command as, by name or number",
        short="-u",
        metavar="USER[:GROUP]",
        parse=VALUES + "parse_user",
    ),
)

LIMITS = (
    Argument(
        "--memory",
        "bytes of memory it may use at most, swap included, such as 512m or 2g",
        short="-m",
        metavar="SIZE",
        parse="nbhull.runtime.model:parse_bytes",
    ),
    Argument(
        "--cpus",
        "processor cores it may use at most, such as 1.5",
        metavar="CORES",
        parse=VALUES + "parse_cpus",
    ),
    Argument(
        "--pids-limit",
        "processes and threads it may have at most",
        metavar="COUNT",
        parse=VALUES + "parse_count",
    ),
    Argument(
        "--network",
        "`host`: the network of this machine; `none`: no network at all",
        metavar="host|none",
        parse=VALUES + "parse_network",
    ),
)

VERBS: tuple[Verb, ...] = (
    Verb(
        "run",
        "make a container from an image and run a command in it",
        "nbhull.runtime.verbs.containers:run",
        (
            Argument(
                "--name", "name of the container", metavar="NAME", parse="nbhull.runtime.model:parse_name"
            ),
            Argument("--rm", "remove the container when the command has ended", flag=True),
            *PROCESS,
            Argument(
                "--volume",
                "hand in a folder or file of this machine at a path of the container; "
                "`:ro` makes it read-only",
                short="-v",
                metavar="SOURCE:TARGET[:ro]",
                parse=VALUES + "parse_volume",
                many=True,
            ),
            *LIMITS,
            Argument(
                "--hostname",
                "host name inside the container",
                short="-h",
                metavar="NAME",
                parse=VALUES + "parse_hostname",
            ),
            Argument("IMAGE", "image or snapshot; `host` is this machine's own system", required=True),
            Argument("COMMAND", "command with its arguments; without one, a shell", rest=True),
        ),
        about="Options stand before IMAGE; everything after it belongs to the command. The container's other "
        "processes end with the command. As with Docker the container stays, stopped, unless `--rm` is "
        "given, so that its files can still be snapshotted; `nbhull rm` removes it.\n\n"
        "Signals sent to nbhull go on to the command. The exit status is the command's own (128 and the "
        "signal's number if a signal ended it), 125 if nbhull itself failed, 126 if the command cannot be "
        "executed, 127 if it does not exist.",
        examples=(
            ("run --rm host python3 -c 'print(1 + 1)'", "run Python in a container that is gone afterwards"),
            ("run --rm -it host", "a shell in a container"),
            (
                "run --rm -v ./data:/data:ro -m 2g --network none host ls /data",
                "a folder read-only, at most 2 GiB of memory, no network",
            ),
        ),
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
            CONTAINER,
            Argument("COMMAND", "command with its arguments", required=True, rest=True),
        ),
        about="Options stand before CONTAINER; everything after it belongs to the command. "
        "Exit statuses are those of `run`.",
        examples=(("exec -it 4f2a bash", "a shell in the container whose id begins with 4f2a"),),
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
    ),
    Verb(
        "rm",
        "remove containers and their files",
        "nbhull.runtime.verbs.containers:remove",
        (Argument("--force", "stop those that run", short="-f", flag=True), CONTAINERS),
        examples=(("rm -f mybox", "remove a container even if it runs"),),
    ),
    Verb(
        "images",
        "list images and snapshots",
        "nbhull.runtime.verbs.images:images",
        (QUIET, AS_JSON),
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
    Verb(
        "info",
        "show the container that this notebook runs in",
        "nbhull.runtime.verbs.containers:info",
        where=MAGIC,
    ),
    Verb(
        "doctor",
        "tell what works on this machine, and how to mend what does not",
        "nbhull.runtime.verbs.system:doctor",
        (AS_JSON,),
        about="Each line is tried for real: ✓ works, ! works in part, ✗ does not work. "
        "The exit status is 0 if containers can run, else 1.",
        examples=(("doctor", "check this machine"),),
        needs_engine=False,
    ),
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
    Verb(
        "version",
        "print the versions of nbhull, Python and Linux",
        "nbhull.runtime.verbs.system:version",
        (AS_JSON,),
        examples=(("version", "what to write in a bug report"),),
        needs_engine=False,
    ),
    Verb(
        "help",
        "explain a verb",
        "nbhull.runtime.verbs.help:show",
        (Argument("VERB", "without one, all verbs are listed", many=True),),
        examples=(("help run", "what `run --help` prints"),),
        where=EVERYWHERE,
        needs_engine=False,
    ),
)


def verbs(where: str) -> list[Verb]:
    """The verbs of the command line ("cli") or of the magic ("magic")."""
    return [verb for verb in VERBS if where in verb.where]
