"""Messages between nbhull's own processes, over SOCK_SEQPACKET Unix sockets, with descriptors.

A request travels down (engine, launcher, holder, init) and carries the socket on which it is
answered, so answers come in any order and one may stay open for as long as a process runs.
Requests are made by code that is trusted more than the one that reads them, so they are marshalled.
Answers travel up, from ever less trusted code, so they are flat text that cannot be misread.
"""

from __future__ import annotations

import marshal
import os
import struct

from nbhull.runtime.errors import HullError, InvalidInput, LauncherLost
from nbhull.runtime.lean import Socket, array, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INLINE = 60_000
"""bytes; a larger request travels in a memory file, since a packet may not exceed the socket's buffer"""
LARGEST = 8 << 20
PEER = struct.Struct("=iII")
"""struct ucred: process, user, group"""
DESCRIPTORS = 128
"""at most, in one message; the kernel's own bound is 253 (SCM_MAX_FD)"""


def pair() -> tuple[Socket, Socket]:
    """Two connected ends."""
    return Socket.pair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def peer_user(channel: socket.socket) -> int:
    """The id of the user who connected a Unix socket, as it was then (unix(7), SO_PEERCRED)."""
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
    uid: int = PEER.unpack(credentials)[1]
    return uid


def send_request(channel: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    """Send a request; the descriptors stay open here. Raises LauncherLost if nobody reads there."""
    data = marshal.dumps(request)
    if len(data) > LARGEST or len(descriptors) >= DESCRIPTORS:
        raise InvalidInput("the request is too large", "shorten the arguments, the environment or the list of mounts")
    if len(data) <= INLINE:
        send_packet(channel, data, descriptors)
        return
    memory = os.memfd_create("nbhull-request", os.MFD_CLOEXEC)
    try:
        while data:
            data = data[os.write(memory, data) :]
        send_packet(channel, b"", [*descriptors, memory])
    finally:
        os.close(memory)


def receive_request(channel: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request with its descriptors (the receiver's to close); None at the end."""
    packet = receive_packet(channel)
    if packet is None:
        return None
    data, descriptors = packet
    if not data:
        if not descriptors:
            return None
        memory = descriptors.pop()
        data = os.pread(memory, LARGEST, 0)
        os.close(memory)
    request: dict[str, Any] = marshal.loads(data)
    return request, descriptors


def send_answer(channel: socket.socket, word: str, descriptors: list[int] | None = None, /, **fields: object) -> None:
    """Answer with a word and named values (as text). A client that has gone away is not waited for."""
    words = [word, *(f"{key}={value}" for key, value in fields.items())]
    try:
        send_packet(channel, "\0".join(words).encode(errors="surrogateescape"), descriptors or [])
    except LauncherLost:
        pass  # the client ended before its answer: nobody is left to be told


def send_failure(channel: socket.socket, error: HullError) -> None:
    """Answer with an exception, which `receive_answer` raises at the other end."""
    send_answer(channel, "failed", None, **error.to_dict())


def receive_answer(channel: socket.socket) -> tuple[str, dict[str, str], list[int]]:
    """The next answer: its word, its values, its descriptors. Raises the HullError that the other
    side sent, or LauncherLost when it has gone."""
    packet = receive_packet(channel)
    if packet is None or not packet[0]:
        raise LauncherLost("the container's launcher or its init ended", "start the container again")
    data, descriptors = packet
    word, *words = data.decode(errors="surrogateescape").split("\0")
    fields = dict(field.partition("=")[::2] for field in words)
    if word == "failed":
        for fd in descriptors:
            os.close(fd)
        raise HullError.from_dict(fields)
    return word, fields, descriptors


def send_packet(channel: socket.socket, data: bytes, descriptors: list[int]) -> None:
    """One packet with descriptors (unix(7), SCM_RIGHTS)."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        channel.sendmsg([data], rights, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        raise LauncherLost("the container's launcher or its init ended", "start the container again") from None


def receive_packet(channel: socket.socket) -> tuple[bytes, list[int]] | None:
    """One packet with its descriptors (close-on-exec), None at the end of the stream."""
    integer = array.array("i").itemsize
    try:
        data, ancillary, flags, _ = channel.recvmsg(
            INLINE + 8192, socket.CMSG_SPACE(DESCRIPTORS * integer), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % integer])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in descriptors:
            os.close(fd)
        raise InvalidInput("a message between nbhull's processes was cut off")
    if not data and not descriptors:
        return None
    return data, list(descriptors)
