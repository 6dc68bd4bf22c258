"""Why a process or a container ended, and which limit it met: from exit statuses and the counts of cgroups."""

from __future__ import annotations

import os

from nbhull.runtime.model import End
from nbhull.runtime.verbs.results import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from nbhull.runtime.limits import Limits

EVENTS = "events"
"""the file of `name=count` lines that the launcher writes (`launcher.broker.EVENTS`)"""
STATUS = "status"
"""the file with the exit status of a container's main process, as `subprocess.Popen.returncode` has it, in the
container's folder of the store until it starts again (`launcher.limiter.STATUS`)"""
LONGEST = 4096
COUNTED = ("_kills", "_hits")
SIGKILL = 9
CRASHES = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 11: "SIGSEGV", 31: "SIGSYS"}
"""signals that a program brings upon itself"""

MET = {"oom_kills": "out of memory", "pids_hits": "out of processes", "disk_hits": "out of disk quota"}
"""what each count of a limit that was met means, in short"""

Events = dict[str, int]
"""how often limits were met: `oom_kills`, `memory_hits`, `pids_hits`, `disk_hits`"""


def read_events(folder: str) -> Events:
    """The counts that the launcher has left in a folder; none where no limit was met. The file may be a
    container's doing."""
    try:
        descriptor = os.open(f"{folder}/{EVENTS}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}  # the usual case; and what is no plain file is none of the launcher's
    with open(descriptor, errors="replace") as file:
        fields = [line.strip().partition("=") for line in file.read(LONGEST).splitlines()]
    return {name: int(count) for name, _, count in fields if count.isascii() and count.isdigit() and len(count) < 19}


def read_counts(folder: str) -> Events:
    """How often each limit was met, of those that were."""
    return since({}, read_events(folder))


def limits_in(events: Mapping[str, int]) -> Limits:
    """The limits that the launcher has written beside the counts."""
    from nbhull.runtime.limits import Limits

    return Limits.from_dict({name: events[name] for name in ("memory", "pids", "disk", "inodes") if name in events})


def read_end(folder: str) -> End | None:
    """How a container that has stopped ended; None where nobody was there to see it."""
    events = read_events(folder)
    if "ended" not in events:
        return None
    try:
        with open(f"{folder}/{STATUS}") as file:
            status: int | None = int(file.read(20))
    except (FileNotFoundError, ValueError):
        status = None  # it had no main process, as one that is started by `Engine.start` alone
    limits, events = limits_in(events), {name: count for name, count in events.items() if count}
    said = [explain_end(status, events, limits, "its command", "")] if status else []
    said = [*said, *(each for each in explain_limits(events, limits) if status != -SIGKILL)]
    return End(events["ended"], status, "; ".join(message for message, _ in said), shortly(status, events))


def shortly(status: int | None, events: Mapping[str, int]) -> str:
    """In a few words, how something ended."""
    words = [word for count, word in MET.items() if events.get(count)]
    if status is not None and status < 0:
        words.append(signal_name(-status))
    elif status or (status is not None and not words):
        words.append(f"status {status}")
    return ", ".join(words)


def since(before: Mapping[str, int], now: Mapping[str, int]) -> Events:
    """The counts of what has happened between two readings."""
    counts = {name: count - before.get(name, 0) for name, count in now.items() if name.endswith(COUNTED)}
    return {name: count for name, count in counts.items() if count > 0}


def explain_end(
    status: int,
    events: Mapping[str, int],
    limits: Limits,
    what: str = "the kernel",
    output: str = "its output is in the server's log",
) -> tuple[str, str]:
    """Why a process ended, as a message and a hint.

    `status` as `subprocess.Popen.returncode` has it; `events`: what its container met while it ran; `output`: where to
    see what it wrote."""
    if status == -SIGKILL and events.get("oom_kills"):
        return by_memory(f"{what} went over its", f"{what} was killed", events, limits)
    if status == -SIGKILL and events.get("disk_hits"):
        message, hint = disk_limit(limits, what)
        return f"{message} and was killed", hint
    if -status in CRASHES:
        return (
            f"{what} crashed: a program in it was ended by the signal {CRASHES[-status]}",
            f"a library written in C may be broken or of a version that does not fit; {output}",
        )
    if status < 0:
        return f"{what} was ended by the signal {signal_name(-status)}", "somebody, or a program, sent that signal"
    return f"{what} ended by itself with status {status}", output


def explain_limits(events: Mapping[str, int], limits: Limits) -> list[tuple[str, str]]:
    """What a container that goes on should be told of limits that it has met: messages with their hints."""
    said = []
    if count := events.get("oom_kills", 0):
        killed = "a process of it was killed" if count == 1 else f"{count} processes of it were killed"
        said.append(by_memory("the container went over its", killed, events, limits))
    if events.get("pids_hits"):
        said.append(
            (
                f"the container is at its limit of {limits.pids or 4096} processes and threads (pids), "
                "so no new one could be started",
                "end some of them, or raise the limit `pids`",
            )
        )
    if events.get("disk_hits"):
        said.append(disk_limit(limits, "the container"))
    return said


def by_memory(over: str, killed: str, events: Mapping[str, int], limits: Limits) -> tuple[str, str]:
    """What is said, and what helps, where memory ran out: the container's own, or the machine's."""
    if limits.memory is None or not events.get("memory_hits", 1):
        return (
            f"{killed}, since this machine ran out of memory",
            "use less memory at a time, or end other programs",
        )
    # `went over its memory limit of 512 MiB and was killed`, or `…; 2 processes of it were killed`
    joint = " and was killed" if killed.endswith(" was killed") and over.startswith(killed[:-11]) else f": {killed}"
    return (
        f"{over} memory limit of {human_size(limits.memory)}{joint}",
        "use less memory at a time, or raise the limit `memory`",
    )


def disk_limit(limits: Limits, what: str) -> tuple[str, str]:
    """What is said, and what helps, where the disk quota is used up."""
    quota = human_size(limits.disk) if limits.disk else f"{limits.inodes} files"
    return (
        f"{what} is over its disk quota of {quota}",
        "delete files of the container, reset it (`%container reset`), or raise the quota `disk`",
    )


def signal_name(number: int) -> str:
    """`SIGTERM` for 15."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
