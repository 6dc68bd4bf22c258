"""A kernel in a container of its own that runs a list of cells and is gone."""

from __future__ import annotations

import filecmp
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any

import zmq
from jupyter_client.blocking.client import BlockingKernelClient

from nbhull.kernel.config import KernelConfig
from nbhull.kernel.contained import ContainedKernel
from nbhull.kernel.environment import for_kernel
from nbhull.kernel.folder import WorkingFolder, certificate_mounts, working_folder
from nbhull.kernel.launch import Launch
from nbhull.kernel.names import REPLAY
from nbhull.kernel.replay.outputs import Collector, Output
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import InvalidInput, ProcessFailed
from nbhull.runtime.model import Mount

START_TIMEOUT = 60.0
LARGEST_FOLDER = 1 << 30
"""bytes of a notebook's folder that are copied, at most"""
POLL = 1.0


class FreshKernel:
    """A started kernel, as a context manager; its container is removed at the end.

    It works in a copy of the notebook's folder, so that what it writes harms nobody."""

    def __init__(self, engine: Engine, config: KernelConfig, cwd: str, *, in_place: bool, log: logging.Logger) -> None:
        """`in_place`: let it work in the folder itself. Raises InvalidInput for a folder too large to copy."""
        self.base = tempfile.mkdtemp(prefix="nbhull-replay-")
        try:
            folder = working_folder(cwd)
            if folder.mount is not None and not in_place:
                copy_folder(folder.path, f"{self.base}/folder")
                folder = WorkingFolder(folder.path, Mount(f"{self.base}/folder", folder.mount.target), folder.notice)
            config = replace(config, control=REPLAY)
            name = f"replay-{secrets.token_hex(4)}"
            mounts = certificate_mounts(os.environ)
            self.contained = ContainedKernel(engine, config, folder, mounts, name, log)
        except BaseException:
            shutil.rmtree(self.base)
            raise
        self.context: zmq.Context[Any] = zmq.Context()
        self.client: BlockingKernelClient | None = None

    def __enter__(self) -> FreshKernel:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start it, and wait until it answers. Raises HullError."""
        self.contained.prepare()
        ports = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
        key = secrets.token_hex(16)
        connection: dict[str, Any] = {name: number for number, name in enumerate(ports, 1)}
        connection |= {"key": key, "signature_scheme": "hmac-sha256"}
        env = for_kernel({}, os.environ, {}) | self.contained.config.environment
        self.contained.launch(Launch(connection, env, f"{self.base}/log"))
        deadline = time.monotonic() + START_TIMEOUT
        while not self.contained.is_up():
            if time.monotonic() > deadline:
                raise ProcessFailed("the kernel did not start in time", "see whether the machine is busy")
            time.sleep(0.005)
        self.client = BlockingKernelClient(context=self.context)
        info: Any = {**connection, "transport": "ipc", "ip": f"{self.contained.socket_folder}/k", "key": key.encode()}
        self.client.load_connection_info(info)
        self.client.start_channels()
        try:
            self.client.wait_for_ready(timeout=START_TIMEOUT)
        except RuntimeError as error:
            raise ProcessFailed(f"the kernel does not answer: {error}", "see whether the machine is busy") from error

    def run(self, code: str, timeout: float) -> list[Output]:
        """Run a cell: its outputs, with an error at the end if it does not end in `timeout` seconds, or the kernel
        does."""
        client = self.client
        assert client is not None
        collector = Collector()
        request = client.execute(code, allow_stdin=False, stop_on_error=False)
        deadline = time.monotonic() + timeout
        is_interrupted = False
        while True:
            if time.monotonic() > deadline:
                if is_interrupted:
                    return [*collector.outputs, failure("Timeout", "the cell does not let itself be interrupted")]
                self.contained.signal(2)
                is_interrupted, deadline = True, time.monotonic() + START_TIMEOUT
                collector.outputs.append(failure("Timeout", f"not done after {timeout:g} s"))
            try:
                message: Mapping[str, Any] = client.get_iopub_msg(timeout=POLL)
            except Exception as error:
                if type(error).__name__ != "Empty":
                    raise
                if self.contained.poll() is not None:
                    return [*collector.outputs, failure("DeadKernel", "the kernel ended")]
                continue
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return collector.outputs
            collector.take(message["msg_type"], content)

    def changed_files(self) -> list[str]:
        """Files of the notebook's folder that are others now, in the copy that the cells worked in."""
        copy = f"{self.base}/folder"
        found = []
        for folder, _, names in os.walk(copy):
            for path in (os.path.join(folder, name) for name in names):
                original = os.path.join(self.contained.folder.path, os.path.relpath(path, copy))
                if os.path.isfile(original) and os.path.isfile(path) and not is_same_file(path, original):
                    found.append(os.path.relpath(path, copy))
        return sorted(found)

    def close(self) -> None:
        """Remove all of it. Idempotent."""
        if self.client is not None:
            self.client.stop_channels()
            self.client = None
        self.context.destroy(linger=0)
        self.contained.remove()
        shutil.rmtree(self.base, ignore_errors=True)


def failure(kind: str, text: str) -> Output:
    """An error that is not the cell's own."""
    return {"output_type": "error", "ename": kind, "evalue": text}


def is_same_file(one: str, other: str) -> bool:
    """Whether two files have the same bytes; a copy that nobody has written to is not read."""
    if os.lstat(one).st_mtime_ns == os.lstat(other).st_mtime_ns and os.path.getsize(one) == os.path.getsize(other):
        return True
    return filecmp.cmp(one, other, shallow=False)


def copy_folder(source: str, target: str) -> None:
    """Copy a notebook's folder. Raises InvalidInput for one that is too large."""
    size = 0
    for folder, _, names in os.walk(source):
        for name in names:
            size += os.lstat(os.path.join(folder, name)).st_size
        if size > LARGEST_FOLDER:
            raise InvalidInput(
                f"the folder {source!r} is too large to be copied for a replay: more than {LARGEST_FOLDER >> 30} GiB",
                "keep the notebook in a folder of its own, or let the cells work in it: --in-place",
            )
    shutil.copytree(source, target, symlinks=True, ignore=leave_out_special)


def leave_out_special(folder: str, names: list[str]) -> set[str]:
    """Sockets, FIFOs and devices, which cannot be copied."""
    paths = {name: os.path.join(folder, name) for name in names}
    plain = (os.path.islink, os.path.isdir, os.path.isfile)
    return {name for name, path in paths.items() if not any(is_kind(path) for is_kind in plain)}
