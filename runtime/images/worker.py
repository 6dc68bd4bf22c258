"""The process that reads and writes layers, inside the user namespace of the containers.

Its ids are the containers' ids, and it has no more rights on the host than they have: what an archive contains is
parsed here. It has the store in a mount namespace of its own (for real root by an idmapped mount), and everything
that it needs of Python is imported before it enters, since root's own files cannot be read from inside. Each request
is served by a fork.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable

from nbhull.runtime.builder.bench import Bench
from nbhull.runtime.errors import HullError
from nbhull.runtime.files import remove_tree
from nbhull.runtime.images import compression, unpack
from nbhull.runtime.images.pack import Packer, write_packed
from nbhull.runtime.launcher import child, copying, overlay, wire
from nbhull.runtime.linux import mount as linux_mount
from nbhull.runtime.linux import process as linux
from nbhull.runtime.linux.mount import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WITHIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class Worker(Bench):
    """The loop of the worker."""

    def __init__(self, stage: overlay.Stage) -> None:
        """`stage`: where the store is attached in this process's mount namespace."""
        self.stage = stage
        self.store = os.open(stage.store, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def serve(self, client: socket.socket) -> None:
        """Serve until the client goes away."""
        poll = select.poll()
        poll.register(client, select.POLLIN)
        while (received := wire.receive_request(client)) is not None:
            request, descriptors = received
            channel = socket.socket(fileno=descriptors.pop(0))
            self.start(request, descriptors, channel)
            channel.close()
            for fd in descriptors:
                os.close(fd)

    def start(self, request: dict[str, Any], descriptors: list[int], channel: socket.socket) -> None:
        """Serve one request in a fork, made twice so that it is reaped without a wait."""
        first = os.fork()
        if first:
            os.waitpid(first, 0)
            return
        with child.last_act(channel, "fork"):
            if os.fork() == 0:
                with child.last_act(channel, request["op"]):
                    handler: Callable[[dict[str, Any], list[int]], dict[str, object]]
                    handler = getattr(self, f"do_{request['op']}")
                    wire.send_answer(channel, "done", None, **handler(request, descriptors))

    def open(self, path: str, flags: int = os.O_RDONLY | os.O_DIRECTORY) -> int:
        """A folder of the store."""
        return openat2(self.store, path, flags, WITHIN)

    def do_unpack(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Unpack a stream (the first descriptor) into the folder `target` of the store, made where it is missing, or
        into the one of the second descriptor."""
        source = descriptors[0]
        if len(descriptors) > 1:
            root = openat2(descriptors[1], request["target"], os.O_RDONLY | os.O_DIRECTORY)
        else:
            above, _, name = request["target"].rpartition("/")
            folder = self.open(above)
            try:
                os.mkdir(name, 0o755, dir_fd=folder)
            except FileExistsError:
                pass
            root = self.open(request["target"])
        pieces = unpack.Pieces(lambda count: os.read(source, count), request["bounds"])
        writer = unpack.Unpacker(root, whiteouts=request["whiteouts"], owner=request["owner"])
        summary = writer.unpack(pieces)
        return {
            "diff_id": summary.diff_id,
            "size": summary.size,
            "entries": summary.entries,
            "devices": summary.devices,
            "owners": summary.owners,
        }

    def do_pack(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Pack the folder `source` of the store as a layer, compressed, into the first descriptor."""
        packer = Packer(self.open(request["source"]), epoch=request["epoch"])
        return write_packed(packer, request["compression"], descriptors[0])

    def do_merge(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Pack what the folders `lowers` of the store, the top first, are together, as one tree without whiteouts."""
        if len(request["lowers"]) == 1:
            root = self.open(request["lowers"][0])
        else:
            options: list[tuple[str, str | None]] = [("userxattr", None), ("index", "off"), ("metacopy", "off")]
            options += [("lowerdir+", self.stage.path(lower)) for lower in request["lowers"]]
            merged = linux_mount.make_filesystem("overlay", options)
            root = openat2(merged, ".", os.O_RDONLY | os.O_DIRECTORY)
        packer = Packer(root, epoch=request["epoch"], whiteouts=False, cross=True)
        return write_packed(packer, request["compression"], descriptors[0])

    def do_export(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Pack what a container sees, whose root folder is the second descriptor, into the first."""
        without = frozenset(map(os.fsencode, request["without"]))
        packer = Packer(descriptors[1], epoch=request["epoch"], whiteouts=False, cross=True, without=without)
        return {**write_packed(packer, request["compression"], descriptors[0]), "unread": packer.unread}

    def do_move(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Rename a folder of the store."""
        (above, name), (new_above, new_name) = (
            (self.open(head or "."), tail)
            for head, _, tail in (request[k].rpartition("/") for k in ("source", "target"))
        )
        os.rename(name, new_name, src_dir_fd=above, dst_dir_fd=new_above)
        return {}

    def do_exchange(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Exchange what is in a folder of the store (`copying.exchange`)."""
        place, kept, new = (self.stage.path(request[key]) for key in ("place", "kept", "new"))
        copying.exchange(place, kept, new, copy=request["copy"])
        return {}

    def do_measure(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Bytes and files of folders, a file with several names counted once."""
        seen: set[tuple[int, int]] = set()
        size = files = 0
        for path in request["paths"]:
            root = self.open(path)
            for _, _, names, folder in os.fwalk(".", dir_fd=root):
                for name in names:
                    status = os.lstat(name, dir_fd=folder)
                    files += 1
                    if (status.st_dev, status.st_ino) not in seen:
                        seen.add((status.st_dev, status.st_ino))
                        size += status.st_blocks * 512
            os.close(root)
        return {"size": size, "files": files}

    def do_delete(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, object]:
        """Delete a folder of the store; one that is gone is no error."""
        try:
            fd = self.open(request["path"], os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            return {}
        os.close(fd)
        above = self.open(request["path"].rpartition("/")[0])
        remove_tree(f"/proc/self/fd/{above}/{request['path'].rpartition('/')[2]}")
        return {}


def main() -> None:
    """Run as a worker until the client at the other end of standard input goes away.

    The first request brings the user namespace and the store's folder."""
    client = socket.socket(fileno=os.dup(0))
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the client's terminal is the client's
    received = wire.receive_request(client)
    if received is None:
        return
    request, (answer, namespace, store) = received  # the store's is a mount only where the user is root
    compression.import_all()

    channel = socket.socket(fileno=answer)
    try:
        linux.set_name("nbhull-worker")
        linux.setns(namespace, linux.CLONE_NEWUSER)
        os.close(namespace)
        linux.unshare(linux.CLONE_NEWNS)
        linux_mount.set_propagation(linux_mount.MS_REC | linux_mount.MS_SLAVE)
        folder = os.open(request["stage"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        if request["alone"]:
            os.setgroups([])  # root's; an ordinary user's groups still open the user's own files
        os.umask(0o022)
        worker = Worker(overlay.Stage(folder, store if request["alone"] else request["store"]))
    except HullError as error:
        wire.send_failure(channel, error)
        return
    wire.send_answer(channel, "entered")
    channel.close()
    worker.serve(client)
