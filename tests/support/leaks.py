"""What nbhull could leave behind on a machine: mounts, cgroups, processes, sockets, files."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path

SIGN = "nbhull"
"""what the names of nbhull's processes, cgroups, sockets and folders contain"""

Findings = set[tuple[str, str]]
"""(kind, description) of each trace found"""


def runtime_folders() -> list[Path]:
    """The folders for what lives only as long as containers run."""
    folders = [Path("/run/nbhull"), *Path("/tmp").glob(f"{SIGN}-*")]
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        folders.append(Path(runtime) / SIGN)
    return [folder for folder in folders if os.access(folder, os.R_OK | os.X_OK)]


def _files() -> Findings:
    # The runtime folder itself may stay; what lies in it may not.
    return {("file", str(path)) for folder in runtime_folders() for path in folder.rglob("*")}


def _mounts(signs: tuple[str, ...]) -> Findings:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        ("mount", line.split(" ", 4)[4])
        for line in lines
        if any(sign in line for sign in signs)
    }


def _sockets(signs: tuple[str, ...]) -> Findings:
    paths = (line.split(maxsplit=7)[7:] for line in Path("/proc/net/unix").read_text().splitlines()[1:])
    return {("socket", path[0]) for path in paths if path and any(sign in path[0] for sign in signs)}


def _cgroups() -> Findings:
    return {
        ("cgroup", str(Path(folder) / name))
        for folder, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if SIGN in name
    }


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
    ids = _own_ids()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            uid = folder.stat().st_uid
            comm = (folder / "comm").read_text().strip()
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        # A non-dumpable process's folder belongs to root, whoever runs it.
        ours = uid == 0 or any(uid in some for some in ids)
        if ours and state not in "ZX" and SIGN in f"{comm} {' '.join(words)}":
            found.add(("process", f"{folder.name} {comm}: {' '.join(words).strip()}"))
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
