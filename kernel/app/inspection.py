"""What of a kernel's process does not come through a fork; looked for before its memory is kept.

A copy of the process has its memory and nothing else: other threads, subprocesses, connections and devices stay with
the original. What the kernel itself has of these is made anew; whatever is the user's is a reason, raised as Conflict,
not to begin.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from tornado.ioloop import PeriodicCallback

from nbhull.kernel.names import CONTROL_VARIABLE
from nbhull.runtime.errors import Conflict

CHECKPOINT_NAME = "nbhull-memory"
"""what a process is called (proc_pid_comm(5)) that holds a kernel's memory"""

MACHINERY = frozenset({"IPython", "ipykernel", "nbhull", "tornado", "zmq"})
"""packages whose tasks and timers are made anew"""
HARMLESS_THREADS = ("tqdm._monitor", "zmq.utils.garbage")
"""modules that notice by themselves that their thread has gone"""
NATIVE_THREADS = re.compile(r"ZMQbg/.*")
DEVICES = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom"))
"""devices that are the same for every process"""
OWN_KINDS = ("anon_inode:[eventfd]", "anon_inode:[eventpoll]")
"""descriptors of event loops and ZeroMQ; who has others of these has a socket or pipe with them"""
ACCELERATORS = {"libcuda.so": "CUDA", "/dev/nvidia": "CUDA", "libamdhip64.so": "ROCm", "/dev/kfd": "ROCm"}
"""by part of a mapping's name"""
THREAD_POOLS = {"libgomp": "OpenMP (GNU)", "libiomp5": "OpenMP (Intel)", "libomp": "OpenMP (LLVM)", "libtbb": "TBB"}
SQLITE = b"SQLite format 3\0"
NOT_FOR_REOPENING = os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOCTTY


class OpenFile(NamedTuple):
    """A file that the user has open, to be opened anew in a copy of the process."""

    fd: int
    path: str
    flags: int
    position: int


def inspect(kernel: Any, baseline: frozenset[str]) -> list[OpenFile]:
    """The files to be opened anew. Raises Conflict for what a copy of the kernel's process would be without.

    `baseline`: what the kernel had open before the first code of the user's (`open_things`)."""
    refuse_shell(kernel)
    refuse_threads(kernel)
    refuse_tasks(asyncio.get_running_loop())
    refuse_processes()
    refuse_mappings()
    return list(open_files(kernel, baseline))


def refuse_shell(kernel: Any) -> None:
    """The kernel's own doings."""
    if threading.current_thread() is not threading.main_thread():
        raise Conflict("the memory can be kept from the main shell alone", "run the cell outside of the subshell")
    if kernel.eventloop is not None or getattr(kernel.parent, "trio_loop", False):
        raise Conflict("an event loop of a user interface runs in the kernel", "end it with %gui")
    if getattr(getattr(kernel, "debugger", None), "is_started", False):
        raise Conflict("the debugger is on", "switch it off, restart the kernel and try again")
    for identity, busy in subshells(kernel).items():
        if busy:
            raise Conflict(f"a cell runs in the subshell {identity[:8]}", "wait for its end, or interrupt it")


def subshells(kernel: Any) -> dict[str, bool]:
    """The ids of the kernel's subshells (ipykernel 7), and whether each is executing something."""
    thread = getattr(kernel, "shell_channel_thread", None)
    if thread is None:
        return {}
    manager = thread.manager
    return {identity: manager.get_subshell_asyncio_lock(identity).locked() for identity in manager.list_subshell()}


def own_threads(kernel: Any) -> set[threading.Thread]:
    """The Python threads that the kernel started for itself."""
    app = kernel.parent
    found = {threading.main_thread(), app.iopub_thread.thread, app.heartbeat, app.control_thread}
    found |= {getattr(app, "shell_channel_thread", None), kernel.shell.history_manager.save_thread}
    found |= {getattr(stream, "watch_fd_thread", None) for stream in (kernel._stdout, kernel._stderr)}
    return {thread for thread in found if thread is not None}


def refuse_threads(kernel: Any) -> None:
    """Python threads that are the user's."""
    known = own_threads(kernel)
    idle = "ipykernel.subshell"  # a busy one was found before
    for thread in threading.enumerate():
        if thread not in known and type(thread).__module__ not in (idle, *HARMLESS_THREADS):
            raise Conflict(
                f"the thread {thread.name!r} runs in the kernel, and would not come back",
                "end it (join a thread, shut an executor down), then take the snapshot",
            )


def refuse_native_threads() -> None:
    """Threads that neither Python nor ZeroMQ knows. To be asked after a fork, which libraries that can stand one
    (OpenBLAS) end theirs for, to start them again when they need them."""
    python = {thread.native_id for thread in threading.enumerate()} | {os.getpid()}  # which Python misses after a fork
    unknown = [
        name
        for task in os.listdir("/proc/self/task")
        if int(task) not in python and not NATIVE_THREADS.fullmatch(name := thread_name(task))
    ]
    if not unknown:
        return
    with open("/proc/self/maps") as maps:
        mapped = maps.read()
    pools = sorted({pool for library, pool in THREAD_POOLS.items() if f"/{library}" in mapped})
    raise Conflict(
        f"{len(unknown)} threads of a library run in the kernel ({', '.join(pools) or unknown[0]}), "
        "and would not come back",
        "set OMP_NUM_THREADS=1 before the library is first used, or take the snapshot before that",
    )


def thread_name(task: str) -> str:
    """The name of a thread of this process, empty if it has ended."""
    try:
        with open(f"/proc/self/task/{task}/comm") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "ZMQbg/ended"


def refuse_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """What the main event loop is still to do for the user."""
    hint = "await it, or cancel it, then take the snapshot"
    for task in asyncio.all_tasks(loop):
        frame = getattr(task.get_coro(), "cr_frame", None)
        if task is asyncio.current_task() or frame is None:
            continue
        if package_of(frame.f_globals.get("__name__")) not in MACHINERY:
            raise Conflict(f"the task {task.get_name()!r} ({frame.f_code.co_qualname}) is not done", hint)
    for handle in getattr(loop, "_scheduled", ()):
        if not handle.cancelled() and (name := users_callback(handle)):
            raise Conflict(f"a call of {name!r} is scheduled in the event loop", hint)


def users_callback(handle: Any) -> str:
    """The name of the function that a timer will call, if it is the user's."""
    function, arguments = handle._callback, handle._args
    if package_of(getattr(function, "__module__", "")) == "tornado" and arguments:
        function = arguments[0]
    while isinstance(function, partial):
        function = function.func
    is_users = isinstance(getattr(function, "__self__", None), PeriodicCallback)
    is_users = is_users or package_of(getattr(function, "__module__", "")) not in MACHINERY | {"asyncio"}
    return str(getattr(function, "__qualname__", function)) if is_users else ""


def package_of(module: str | None) -> str:
    """The first part of a module's name."""
    return (module or "").partition(".")[0]


def refuse_processes() -> None:
    """Other processes of the container: a reset ends them."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) in (1, os.getpid()):
            continue
        try:
            with open(f"/proc/{pid}/stat") as file:
                name, _, rest = file.read().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if rest.split()[0] not in "ZX" and name != CHECKPOINT_NAME:
            raise Conflict(
                f"the process {pid} ({name}) runs in the container, and would not come back",
                f"end it (!kill {pid}), then take the snapshot",
            )


def refuse_mappings() -> None:
    """Memory that is not this process's alone, and what lies in a graphics processor."""
    with open("/proc/self/maps") as file:
        for line in file:
            _, access, _, _, _, *name = line.split(None, 5)
            path = name[0].strip() if name else ""
            for sign, what in ACCELERATORS.items():
                if sign in path:
                    raise Conflict(f"{what} is loaded, and its memory cannot be kept", "restart the kernel without it")
            if access[3] == "s" and access[1] == "w":
                raise Conflict(
                    f"memory is shared ({path or 'without a name'}), and would not be kept",
                    "close it (delete the memmap or shared memory), then take the snapshot",
                )


def open_things() -> frozenset[str]:
    """What the descriptors of this process lead to, as /proc shows it."""
    return frozenset(target for _, target in descriptors())


def descriptors() -> Iterator[tuple[int, str]]:
    """The open descriptors of this process, and what each leads to."""
    for name in os.listdir("/proc/self/fd"):
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own


def open_files(kernel: Any, baseline: frozenset[str]) -> Iterator[OpenFile]:
    """The user's files. Raises Conflict for what cannot be opened anew."""
    own = set(kept_descriptors(kernel)) | loop_descriptors(kernel)
    sockets = f"{kernel.parent.ip}-"
    for fd, target in descriptors():
        if fd in own or target in DEVICES or target in OWN_KINDS:
            continue
        if target.startswith("/"):
            if not is_kernels_own(target, kernel):
                yield open_file(fd, target)
        elif target not in baseline and not (target.startswith("socket:") and is_ours(fd, sockets)):
            kind = target.partition(":")[0].replace("anon_inode", target)
            raise Conflict(
                f"the descriptor {fd} is a {kind} of the user's, which would not come back",
                "close it (the connection, the pipe), then take the snapshot",
            )


def is_kernels_own(path: str, kernel: Any) -> bool:
    """Whether it is the history's database, which is closed before the memory is kept."""
    return path.startswith(str(kernel.shell.history_manager.hist_file))


def open_file(fd: int, path: str) -> OpenFile:
    """One file or folder."""
    status = os.fstat(fd)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise Conflict(f"{path} is open, which is no regular file", "close it, then take the snapshot")
    if status.st_nlink == 0:
        raise Conflict(f"a deleted file is open: {path}", "close it, then take the snapshot")
    with open(f"/proc/self/fdinfo/{fd}") as file:
        info = file.read()
    if "\nlock:" in info:
        raise Conflict(f"a lock on {path} is held", "give it up, then take the snapshot")
    if is_database(path):
        raise Conflict(f"the SQLite database {path} is open", "close the connection, then take the snapshot")
    fields = dict(line.partition(":")[::2] for line in info.splitlines())
    return OpenFile(fd, path, int(fields["flags"], 8) & ~NOT_FOR_REOPENING, int(fields["pos"]))


def is_database(path: str) -> bool:
    """Whether a file is SQLite's, which tells files by more than their names."""
    try:
        with open(path, "rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except OSError:
        return False


def kept_descriptors(kernel: Any) -> Iterable[int]:
    """Standard input, and where standard output and error really lead."""
    copies = [getattr(stream, "_original_stdstream_copy", None) for stream in (kernel._stdout, kernel._stderr)]
    return (0, 1, 2, *(fd for fd in copies if fd is not None))


def own_loops(kernel: Any) -> list[Any]:
    """The event loops of the kernel's own threads."""
    app = kernel.parent
    threads = [app.iopub_thread, app.control_thread, getattr(app, "shell_channel_thread", None)]
    threads += [thread for thread in threading.enumerate() if type(thread).__module__ == "ipykernel.subshell"]
    return [thread.io_loop for thread in threads if thread is not None]


def loop_descriptors(kernel: Any) -> set[int]:
    """The sockets by which the kernel's event loops wake themselves."""
    loops = [kernel.io_loop, *own_loops(kernel)]
    pairs = [getattr(loop.asyncio_loop, name, None) for loop in loops for name in ("_ssock", "_csock")]
    return {pair.fileno() for pair in pairs if pair is not None}


def is_ours(fd: int, prefix: str) -> bool:
    """Whether it is a Unix socket at a path that begins so, as the kernel's own are, or a question that is being asked
    through the control socket, as a panel does in a thread of the kernel's."""
    with socket.socket(fileno=os.dup(fd)) as channel:
        if channel.family != socket.AF_UNIX:
            return False
        name = channel.getsockname()
        if isinstance(name, str) and name.startswith(prefix):
            return True
        try:
            return bool(channel.getpeername() == os.environ.get(CONTROL_VARIABLE))
        except OSError:
            return False  # it leads nowhere
