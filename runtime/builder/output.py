"""Where a build's image goes besides the store: a folder with its files, a tar of them, or an archive of the image."""

from __future__ import annotations

import os

from nbhull.runtime.errors import HostUnable, InvalidInput
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import Image

LOCAL, TAR, OCI, OCI_FOLDER, DOCKER = "local", "tar", "oci", "oci-dir", "docker"
FORMATS = {OCI: "oci-archive", OCI_FOLDER: "oci-dir", DOCKER: "docker-archive"}
CHUNK = 1 << 20


class Output(Record):
    """One place."""

    kind: str
    target: str
    """path; `-` is standard output"""


def parse_output(text: str) -> Output:
    """`DIR`, `-`, or as docker buildx writes it: `type=local|tar|oci|docker,dest=PATH`. Raises InvalidInput."""
    if text == "-":
        return Output(TAR, "-")
    if "=" not in text:
        return Output(LOCAL, text)
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    kind, target = fields.pop("type", ""), fields.pop("dest", "")
    unpacked = fields.pop("tar", "true") == "false"
    if fields or kind not in (LOCAL, TAR, OCI, DOCKER) or (unpacked and kind != OCI):
        raise InvalidInput(f"--output {text!r} is not understood", "write it like type=oci,dest=FILE; or DIR; or -")
    if not target:
        if kind in (LOCAL,) or unpacked:
            raise InvalidInput(f"--output {text!r} names no folder", "add ,dest=DIR")
        target = "-"
    return Output(OCI_FOLDER if unpacked else kind, target)


def write(engine: Engine, image: Image, output: Output) -> None:
    """Write an image. Raises HostUnable where that cannot be written."""
    if output.kind in FORMATS:
        from nbhull.runtime.images import archives

        archives.save(engine.catalog, [image.name or image.id], output.target, FORMATS[output.kind])  # type: ignore[arg-type]
        return
    try:
        if output.kind == LOCAL:
            unpack_into(engine, image, output.target)
        elif output.target == "-":
            with open(1, "wb", closefd=False) as file:
                file.writelines(files_of(engine, image))
        else:
            write_tar(engine, image, output.target)
    except OSError as error:
        raise HostUnable(f"cannot write {output.target!r}: {error.strerror}", "choose another place") from error


def write_tar(engine: Engine, image: Image, path: str) -> None:
    """Write a tar of an image's files, whole or not at all."""
    part = f"{path}.part-{os.getpid()}"
    try:
        with open(part, "xb") as file:
            file.writelines(files_of(engine, image))
        os.rename(part, path)
    finally:
        if os.path.exists(part):
            os.unlink(part)


def unpack_into(engine: Engine, image: Image, folder: str) -> None:
    """Write an image's files into a folder, over those that are there; all belong to who asks."""
    from nbhull.runtime.images import unpack

    os.makedirs(folder, exist_ok=True)
    unpack.unpack_own(folder, unpack.Joined(files_of(engine, image)).read)


def files_of(engine: Engine, image: Image) -> Iterator[bytes]:
    """A tar of all files of an image, packed by the worker."""
    from nbhull.runtime.builder.materials import lowers
    from nbhull.runtime.images.layers import set_pipe_size
    from nbhull.runtime.launcher import wire

    layers = engine.store.image_layers(engine.catalog.find(image.id))
    if not layers:
        yield bytes(1024)
        return
    worker = engine.catalog.workshop.worker_client()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    with open(read_end, "rb", buffering=0) as stream:
        set_pipe_size(read_end)
        try:
            channel = worker.open("files", [write_end], lowers=lowers(layers))
        finally:
            os.close(write_end)
        with channel:
            while piece := stream.read(CHUNK):
                yield piece
            wire.receive_answer(channel)
