"""What nbhull could leave behind on a machine: mounts, cgroups, processes, sockets, files."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path

SIGN = "nbhull"
"""what the names of nbhull's processes, cgroups, sockets and folders contain"""

MARK = "NBHULL_TEST_SESSION"
"""the variable that marks what a session of the suite has started"""

Findings = set[tuple[str, str]]
"""(kind, description) of each trace found"""


def runtime_folders() -> list[Path]:
    """This user's folders for what lives only as long as containers run."""
    folders = [Path("/run/nbhull"), *Path("/tmp").glob(f"{SIGN}-*")]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        folders.append(Path(runtime) / SIGN)
    return [folder for folder in folders if _owned_by_us(folder)]


def _owned_by_us(path: Path) -> bool:
    try:
        return path.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


def _files() -> Findings:
    # The runtime folder itself may stay; what lies in it may not.
    return {
        ("file", str(path))
        for folder in runtime_folders()
        for entry in _entries(folder) - _held_by_others(folder)
        for path in (entry, *_below(entry))
    }


def _entries(folder: Path) -> set[Path]:
    """What lies in a folder; nothing if it has gone meanwhile, or is another program's file of a like name."""
    try:
        return set(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _below(folder: Path) -> Iterator[Path]:
    """All that lies below a folder, of what stays while we look."""
    for inner, folders, files in os.walk(folder):
        yield from (Path(inner, name) for name in (*folders, *files))


def _held_by_others(folder: Path) -> set[Path]:
    """The entries of a runtime folder in which a process of no session of ours has files open."""
    held = set()
    for pid, target in _descriptors():
        path = Path(target)
        if path.is_relative_to(folder) and path != folder and not _descends_from_this_session(pid):
            held.add(folder / path.relative_to(folder).parts[0])
    return held


def _mounts(signs: tuple[str, ...]) -> Findings:
    if os.getuid() != 0:
        return set()  # only root can have mounted anything here, in a session of its own perhaps
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        ("mount", line.split(" ", 4)[4])
        for line in lines
        if any(sign in line for sign in signs)
    }


def _sockets(signs: tuple[str, ...]) -> Findings:
    # The table is the network namespace's, so it shows everybody's; a bound socket has a holder.
    fields = (line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    suspects = {f"socket:[{f[6]}]": f[7] for f in fields if len(f) > 7 and any(sign in f[7] for sign in signs)}
    if not suspects:
        return set()
    return {
        ("socket", suspects[target])
        for pid, target in _descriptors()
        if target in suspects and _descends_from_this_session(pid)
    }


def _descriptors() -> Iterator[tuple[int, str]]:
    """Every open descriptor that this user may see: whose it is, and what it leads to."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # it went while we looked, or it is not ours to read
        for number in numbers:
            try:
                yield int(pid), os.readlink(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue  # likewise


def _cgroups() -> Findings:
    found: Findings = set()
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        names[:] = [name for name in names if not _is_of_other_user(Path(folder, name))]
        found |= {("cgroup", f"{folder}/{name}") for name in names if SIGN in name and _is_ours(Path(folder, name))}
    return found


def _is_of_other_user(cgroup: Path) -> bool:
    """Whether a cgroup, and with it all below, was delegated to another ordinary user."""
    try:
        owner = cgroup.stat().st_uid
        return owner not in (0, os.getuid()) and pwd.getpwuid(owner) is not None
    except (FileNotFoundError, KeyError):
        return False  # it went while we looked; an id that belongs to nobody is a container's


def _is_ours(cgroup: Path) -> bool:
    """Whether a cgroup is empty, and so left by somebody, or holds a process of this session."""
    try:
        if os.getuid() not in (0, cgroup.stat().st_uid):
            return False
        members = [int(pid) for pid in (cgroup / "cgroup.procs").read_text().split()]
    except OSError:
        return False  # it went while we looked
    return not members or any(_descends_from_this_session(pid) for pid in members)


def mark_session() -> None:
    """Have everything that is started from here on carry a mark of this session in its environment."""
    os.environ[MARK] = f"{os.environ.get(MARK, '')}:{os.getpid()}:"


def _descends_from_this_session(pid: int) -> bool:
    """Whether the process, or one it descends from, carries this session's mark, so that sessions at
    the same time do not blame each other. In doubt it does."""
    ids = _own_ids()
    while pid > 1:
        folder = Path(f"/proc/{pid}")
        try:
            if not any(_owner(folder) in some for some in ids):
                return False
            if f":{os.getpid()}:".encode() in _environment(folder).get(MARK.encode(), b""):
                return True
            pid = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except PermissionError:
            return True  # the kernel hides the environment of a process that is not dumpable
        except (FileNotFoundError, ProcessLookupError):
            return False
    return False


def _owner(process: Path) -> int:
    """The user id of a process; its folder's owner is root's where it is not dumpable."""
    lines = (process / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Uid:")).split()[1])


def _environment(process: Path) -> dict[bytes, bytes]:
    lines = (process / "environ").read_bytes().split(b"\0")
    return dict(line.split(b"=", 1) for line in lines if b"=" in line)


def _own_ids() -> list[range]:
    """The user ids that this user's containers can show up with."""
    if os.getuid() == 0:
        return [range(1 << 32)]
    names = {pwd.getpwuid(os.getuid()).pw_name, str(os.getuid())}
    fields = [line.split(":") for line in Path("/etc/subuid").read_text().splitlines()]
    ranges = [range(int(first), int(first) + int(count)) for name, first, count in fields if name in names]
    return [range(os.getuid(), os.getuid() + 1), *ranges]


def _processes() -> Findings:
    found: Findings = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            comm = (folder / "comm").read_text().strip()
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        what = f"{folder.name} {comm}: {' '.join(words).strip()}"
        if SIGN in what and state not in "ZX" and _descends_from_this_session(int(folder.name)):
            found.add(("process", what))
    return found


def traces(*places: str) -> Findings:
    """Everything of nbhull's on the machine now; `places` are path prefixes that are ours too."""
    signs = (SIGN, *places)
    return _files() | _mounts(signs) | _sockets(signs) | _cgroups() | _processes()


def left_behind(before: Findings, *places: str, patience: float = 10.0) -> Findings:
    """What is there now but was not before; waits up to `patience` seconds for it to go, since
    processes that lost their parent end on their own time."""
    deadline = time.monotonic() + patience
    while (left := traces(*places) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
