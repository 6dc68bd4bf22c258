"""Options that several verbs have."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import CLI, Argument

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
