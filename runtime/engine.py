"""The façade: the one thing that the command line, the magics and the provisioner talk to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from nbhull.runtime.model import Container, ContainerSpec, Image, ProcessSpec, Usage


class Process:
    """A process that was started in a container."""

    pid: int
    """its id inside the container"""

    def fileno(self) -> int:
        """A descriptor that becomes readable once the process has ended (for select and asyncio)."""
        raise NotImplementedError

    def poll(self) -> int | None:
        """The exit status as `subprocess.Popen.returncode` gives it (-9 for SIGKILL), else None.

        Raises LauncherLost if the launcher ended without telling it.
        """
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; raises TimeoutError after `timeout` seconds."""
        raise NotImplementedError

    def signal(self, signum: int, *, group: bool = True) -> None:
        """Send a signal to the process, and with `group` to its whole process group; a process
        that has ended is no error."""
        raise NotImplementedError

    def close(self) -> None:
        """Forget the process (it goes on running)."""
        raise NotImplementedError


class Engine:
    """Images, containers, snapshots. Thread-safe; all methods block (milliseconds, but for pulls
    and removals), so call them from a thread in asyncio code.

    Containers started through an Engine run in its launcher, a process of its own that is started
    on first use and ends, with all its containers, when the Engine is closed or its process dies.
    """

    def __init__(self, home: Path | str | None = None) -> None:
        """`home`: the store; None takes $NBHULL_HOME, else the user's data folder."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the launcher and its containers; idempotent."""

    def images(self) -> list[Image]:
        """All images and snapshots, the embedded `host` first."""
        raise NotImplementedError

    def containers(self) -> list[Container]:
        """All containers, of every launcher of this user, newest first."""
        raise NotImplementedError

    def container(self, ref: str) -> Container:
        """The container of that name, id or unambiguous id prefix; raises NotFound."""
        raise NotImplementedError

    def create(self, spec: ContainerSpec) -> Container:
        """Make a container, not yet running. Raises NotFound (image), Conflict (name), InvalidInput."""
        raise NotImplementedError

    def start(self, ref: str) -> Container:
        """Run a created or stopped container: its init stands, its file system is up, no other
        process runs. Raises HostUnable with the mending line where the machine refuses."""
        raise NotImplementedError

    def spawn(self, ref: str, spec: ProcessSpec, stdio: Sequence[int] = ()) -> Process:
        """Start a process in a running container.

        `stdio`: up to three descriptors for standard input, output and error; missing ones are
        /dev/null. Raises ProcessFailed (CommandNotFound, CommandNotExecutable) when the program
        cannot be executed, at once.
        """
        raise NotImplementedError

    def read(self, ref: str, path: str, limit: int = 1 << 20) -> bytes:
        """The bytes of a regular file inside a running container, links resolved inside it.

        Raises NotFound, or InvalidInput when it is no regular file or larger than `limit` bytes."""
        raise NotImplementedError

    def listdir(self, ref: str, path: str) -> list[str]:
        """Names in a folder inside a running container; empty if there is no such folder."""
        raise NotImplementedError

    def stop(self, ref: str, timeout: float = 10.0) -> None:
        """End a container's processes: SIGTERM, then SIGKILL after `timeout` seconds (0: at once).
        Its files stay. Idempotent."""
        raise NotImplementedError

    def remove(self, ref: str, *, force: bool = False) -> None:
        """Delete a container and its files. Raises Conflict if it runs and `force` is not given."""
        raise NotImplementedError

    def snapshot(self, ref: str, name: str | None = None) -> Image:
        """Keep the container's files, as they are at this moment, as an image; running processes
        go on. Raises Conflict when the name is taken."""
        raise NotImplementedError

    def reset(self, ref: str, name: str | None = None) -> Container:
        """Put the container's files back on a snapshot (None: the last one made or reset to, else
        the image itself). All its processes end; a running container is running again, empty,
        with the same id, name and socket folder, when this returns."""
        raise NotImplementedError

    def usage(self, ref: str) -> Usage:
        """What a running container uses."""
        raise NotImplementedError


def default_home() -> Path:
    """The store's folder: $NBHULL_HOME, else /var/lib/nbhull for root, else the XDG data folder."""
    if home := os.environ.get("NBHULL_HOME"):
        return Path(home)
    if os.getuid() == 0 and "XDG_DATA_HOME" not in os.environ:
        return Path("/var/lib/nbhull")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "nbhull"
