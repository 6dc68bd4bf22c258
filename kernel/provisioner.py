"""What jupyter_client talks to: a thin asynchronous layer over ContainedKernel.

Nothing here needs an event loop that runs between calls, so it serves the blocking KernelManager
as well as the asynchronous one.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from signal import SIGKILL, SIGTERM
from typing import Any, ParamSpec, TypeVar

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase

from nbhull.kernel import notebook
from nbhull.kernel.config import from_kernelspec, narrow, within_policy
from nbhull.kernel.contained import ContainedKernel
from nbhull.kernel.control import ControlService
from nbhull.kernel.engines import in_thread, shared_engine
from nbhull.kernel.environment import for_kernel
from nbhull.kernel.failure import KernelFailed
from nbhull.kernel.folder import certificate_mounts, working_folder
from nbhull.kernel.launch import Launch
from nbhull.runtime.errors import HullError

P = ParamSpec("P")
T = TypeVar("T")

TRAITS = ("kernel_id", "kernel_spec", "parent", "config", "log")
"""arguments of the class; all others are settings of the kernelspec"""

UP_TIMEOUT = 10.0
"""seconds that a start waits for the kernel's sockets, to be able to tell why it ended; a kernel that
takes longer is left to its clients' own patience"""
UP_INTERVAL = 0.005
"""seconds between two looks"""
WAIT_INTERVAL = 0.02
"""seconds between two looks for a kernel's end"""


class ContainerProvisioner(KernelProvisionerBase):
    """Runs a kernel in a container of its own.

    Settings come from `metadata.kernel_provisioner.config` of the kernelspec (see
    `nbhull.kernel.config`). All errors leave as KernelFailed.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{key: kwargs.pop(key) for key in TRAITS if key in kwargs})
        self.settings: dict[str, Any] = kwargs
        self.contained: ContainedKernel | None = None
        self.control: ControlService | None = None
        self.launch: Launch | None = None
        self.extra_arguments: tuple[str, ...] = ()
        self.has_launched = False

    # -- start -----------------------------------------------------------------------------------

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Called by the manager before each start: makes the container, unless it is there already, and
        has the manager write a connection file with sockets in the container's socket folder."""
        km: Any = self.parent
        kwargs.pop("transport_encryption", None)  # sockets in a private folder need none
        self.extra_arguments = tuple(kwargs.pop("extra_arguments", []))
        cwd = os.fspath(kwargs.get("cwd") or os.getcwd())
        given: Mapping[str, str] | None = kwargs.get("env")
        executed = notebook.executed_by(km) if self.contained is None else None
        async with self.all_or_nothing():
            contained = await self.in_whole_thread(self.prepare, cwd, given, executed)
        km.transport = "ipc"
        km.ip = f"{contained.socket_folder}/k"
        km.write_connection_file(jupyter_session=(given or {}).get("JPY_SESSION_NAME", ""))
        self.connection_info = km.get_connection_info()
        return await super().pre_launch(cmd=list(self.kernel_spec.argv), **kwargs)

    def prepare(self, cwd: str, given: Mapping[str, str] | None, executed: Any) -> ContainedKernel:
        """The blocking part of `pre_launch`; `executed`: the notebook of a client that runs it whole."""
        notices: list[str] = []
        if self.contained is None:
            config, rules = within_policy(from_kernelspec(self.settings))
            if path := notebook_of(given or {}, cwd):
                config, notices = narrow(config, notebook.container_settings(path), rules)
            elif executed is not None:
                config, notices = narrow(config, notebook.settings_of(executed, "in memory"), rules)
            # a kernel's id may come back: a server that was killed leaves its containers' files
            name = f"kernel-{(self.kernel_id or 'x')[:8]}-{secrets.token_hex(2)}"
            self.contained = ContainedKernel(
                shared_engine(), config, working_folder(cwd), certificate_mounts(os.environ), name, self.log
            )
        self.contained.prepare(notices)
        return self.contained

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Called by the manager: starts a kernel process in the container, and waits until it listens."""
        contained = self.contained
        assert contained is not None
        km: Any = self.parent
        connection: dict[str, Any] = dict(self.connection_info)
        key = connection.get("key", b"")
        connection["key"] = key.decode() if isinstance(key, bytes) else key
        self.launch = Launch(
            connection=connection,
            env=for_kernel(kwargs["env"], os.environ, self.kernel_spec.env) | contained.config.environment,
            log_path=os.path.splitext(km.connection_file)[0] + ".log",
            arguments=self.extra_arguments,
            outputs=(kwargs.get("stdout"), kwargs.get("stderr")),
        )
        async with self.all_or_nothing():
            await self.in_whole_thread(self.start, contained, self.launch)
            deadline = time.monotonic() + UP_TIMEOUT
            while not contained.is_up() and time.monotonic() < deadline:
                await asyncio.sleep(UP_INTERVAL)
        self.has_launched = True
        if contained.command is not None:
            self.kernel_spec.interrupt_mode = contained.command.interrupt_mode
        return self.connection_info

    def start(self, contained: ContainedKernel, launch: Launch) -> None:
        """The blocking part of `launch_kernel`."""
        if contained.config.control in ("siblings", "self"):
            if self.control is None:
                self.control = ControlService(contained)
            self.control.listen()
        contained.launch(launch)

    @asynccontextmanager
    async def all_or_nothing(self) -> AsyncIterator[None]:
        """Part of a start: a failure of the first one leaves nothing behind; later, the container
        stays, since the user's work is in it. Errors leave as KernelFailed."""
        try:
            yield
        except BaseException as error:
            if not self.has_launched:
                await in_thread(self.discard)
            if isinstance(error, HullError):
                raise KernelFailed(error) from error
            raise

    async def in_whole_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like `in_thread`, but a cancelled caller waits for the thread: what it makes must not be lost."""
        thread = asyncio.ensure_future(in_thread(function, *args, **kwargs))
        try:
            return await asyncio.shield(thread)
        except asyncio.CancelledError:
            await asyncio.wait([thread])
            raise

    # -- life ------------------------------------------------------------------------------------

    @property
    def has_process(self) -> bool:
        """Whether a kernel process was started and not yet waited for."""
        return self.contained is not None and self.contained.process is not None

    async def poll(self) -> int | None:
        """None while the kernel runs (or is being reset), else its exit status."""
        return self.contained.poll() if self.contained is not None else 0

    async def wait(self) -> int | None:
        """Wait for the kernel process to end; returns its exit status."""
        while (status := await self.poll()) is None:
            await asyncio.sleep(WAIT_INTERVAL)
        if self.contained is not None:
            await in_thread(self.contained.forget_process)
        return status

    async def send_signal(self, signum: int) -> None:
        """Signal the kernel's process group, `!subprocess` children included."""
        if self.contained is not None:
            with shown_whole():
                await in_thread(self.contained.signal, signum)

    async def kill(self, restart: bool = False) -> None:
        """Kill the kernel process; its container stays (the manager calls this on restarts too)."""
        await self.send_signal(SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        """Ask the kernel process to end; its container stays."""
        await self.send_signal(SIGTERM)

    async def cleanup(self, restart: bool = False) -> None:
        """Called by the manager after each shutdown; removes the container unless a start follows."""
        if not restart and (self.contained is not None or self.control is not None or self.launch is not None):
            with shown_whole():
                await in_thread(self.discard)

    def discard(self) -> None:
        """Remove all that this kernel has on the machine. Idempotent."""
        if self.control is not None:
            self.control.close()
        if self.contained is not None:
            self.contained.remove()
        if self.launch is not None:
            self.launch.delete_log()
        self.control = self.contained = self.launch = None
        self.has_launched = False

    def resolve_path(self, path_str: str) -> str | None:
        """The host's path of a file of the working folder that the kernel speaks of; None for others."""
        if self.contained is None or self.contained.folder.mount is None:
            return None
        path = os.path.normpath(os.path.join(self.contained.folder.path, path_str))
        inside = path.startswith(self.contained.folder.path + "/")
        return path if inside and os.path.exists(path) else None


def notebook_of(given: Mapping[str, str], cwd: str) -> str | None:
    """Path of the notebook that a kernel is started for, if the caller says so.

    A name that this process itself inherited belongs to another kernel, in which it runs.
    """
    name = given.get("JPY_SESSION_NAME", "")
    return None if name == os.environ.get("JPY_SESSION_NAME", "") else notebook.find(name, cwd)


@contextmanager
def shown_whole() -> Iterator[None]:
    """Errors leave as KernelFailed, which Jupyter's front ends show whole."""
    try:
        yield
    except HullError as error:
        raise KernelFailed(error) from error
