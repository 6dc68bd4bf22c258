"""Options that several verbs have."""

from __future__ import annotations

from nbhull.runtime.verbs.definition import CLI, MAGIC, Argument

VALUES = "nbhull.runtime.verbs.values:"
LIMIT = "nbhull.runtime.limits:"

AS_JSON = Argument("--json", "print JSON instead of a table", flag=True, where=CLI)
QUIET = Argument("--quiet", "print ids only", short="-q", flag=True, where=CLI)
CONTAINER = Argument("CONTAINER", "name, id or beginning of the id of a container", required=True, where=CLI)
ANY_CONTAINER = Argument("CONTAINER", CONTAINER.help, required=True)
"""the same, where a notebook names one, too"""
CONTAINERS = Argument("CONTAINER", "names or ids of containers", required=True, many=True)

OF_VOLUME = (
    Argument("--volume", "CONTAINER is the name of a volume, and this is about what is in it", flag=True, where=CLI),
    Argument("--volume", "about what is in this volume alone", metavar="VOLUME", where=MAGIC),
)

PROCESS = (
    Argument("--interactive", "pass standard input on to the command", short="-i", flag=True, where=CLI),
    Argument("--tty", "give the command a terminal", short="-t", flag=True, where=CLI),
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

OPTIONS = "nbhull.runtime.confinement_options:"

CONFINEMENT = (
    Argument(
        "--cap-add",
        "give a capability beside the usual 14, or ALL",
        metavar="CAPABILITY",
        parse=OPTIONS + "parse_capability",
        many=True,
    ),
    Argument(
        "--cap-drop",
        "take a capability away, or ALL",
        metavar="CAPABILITY",
        parse=OPTIONS + "parse_capability",
        many=True,
    ),
    Argument(
        "--security-opt",
        "`seccomp=PROFILE.json` or `seccomp=unconfined`: which system calls are allowed; "
        "`no-new-privileges=false`: set-user-id programs work; `systempaths=unconfined`: nothing of /proc and /sys is "
        "masked",
        metavar="OPTION",
        parse=OPTIONS + "parse_security_opt",
        many=True,
    ),
    Argument("--read-only", "the image's files cannot be changed", flag=True),
    Argument(
        "--tmpfs",
        "a folder in memory; options are tmpfs's: size, mode, uid, gid, nr_inodes, ro, exec",
        metavar="PATH[:OPTION,...]",
        parse=OPTIONS + "parse_tmpfs",
        many=True,
    ),
    Argument(
        "--device",
        "hand in a device of this machine, or a folder of devices",
        metavar="SOURCE[:TARGET][:rwm]",
        parse=OPTIONS + "parse_device",
        many=True,
    ),
    Argument(
        "--gpus",
        "hand in NVIDIA GPUs with their driver: all, the first so many, or some by index",
        metavar="all|COUNT|device=N,...",
        parse=OPTIONS + "parse_gpus",
    ),
    Argument(
        "--group-add",
        "a supplementary group of all processes; `keep-groups` keeps those of who starts it",
        metavar="GROUP",
        parse=OPTIONS + "parse_group",
        many=True,
    ),
    Argument(
        "--ulimit",
        "a resource limit of each process, such as nofile=1024:4096",
        metavar="NAME=SOFT[:HARD]",
        parse=OPTIONS + "parse_ulimit",
        many=True,
    ),
    Argument(
        "--privileged",
        "all capabilities over what is the container's own, no filter of system calls, nothing masked",
        flag=True,
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
        "--memory-swap",
        "bytes of memory and swap together; -1: swap without limit. Without it there is no swap",
        metavar="SIZE",
        parse=LIMIT + "parse_memory_swap",
    ),
    Argument(
        "--cpus",
        "processor cores it may use at most, such as 1.5; programs see so many",
        metavar="CORES",
        parse=VALUES + "parse_cpus",
    ),
    Argument(
        "--cpuset-cpus",
        "the cores it may use, such as 0-2,5",
        metavar="LIST",
        parse=LIMIT + "parse_cpuset",
    ),
    Argument(
        "--cpu-shares",
        "weight against other containers while cores are short; 1024 is the usual one",
        metavar="WEIGHT",
        parse=LIMIT + "parse_cpu_shares",
    ),
    Argument(
        "--pids-limit",
        "processes and threads it may have at most; 4096 if not given",
        metavar="COUNT",
        parse=LIMIT + "parse_pids",
    ),
    Argument(
        "--storage-opt",
        "quota of its own files: `size=10g`, `inodes=100000`",
        metavar="OPTION",
        parse=LIMIT + "parse_storage_opt",
        many=True,
    ),
    Argument(
        "--blkio-weight",
        "weight against others while a disk is busy, 10 to 1000",
        metavar="WEIGHT",
        parse=LIMIT + "parse_blkio_weight",
    ),
    *(
        Argument(
            f"--device-{way}-{unit}",
            f"{what} a second that it may {way} of a block device, such as /dev/sda:{example}",
            metavar="DEVICE:RATE",
            parse=f"{LIMIT}parse_device_{unit}",
            many=True,
        )
        for unit, what, example in (("bps", "bytes", "10m"), ("iops", "operations", "200"))
        for way in ("read", "write")
    ),
    Argument(
        "--network",
        "`nat`: one of its own with a way out, the default where it can be had; "
        "`host`: that of this machine; `none`: no network at all",
        metavar="nat|host|none",
        parse=VALUES + "parse_network",
    ),
)
