"""The store's side of a build: layers made of streams, parts of other images, base images, the image itself."""

from __future__ import annotations

import os

from nbhull.runtime.builder.cache import EMPTY, key_of
from nbhull.runtime.builder.state import State
from nbhull.runtime.errors import HullError, InvalidInput, NotFound
from nbhull.runtime.images import leftovers
from nbhull.runtime.launcher import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from nbhull.runtime.builder.build import Options
    from nbhull.runtime.builder.copying import Job
    from nbhull.runtime.builder.progress import Progress
    from nbhull.runtime.engine import Engine
    from nbhull.runtime.model import Image

CHUNK = 1 << 20
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst", ".tar.bz2", ".tbz2")


class Materials:
    """What a build takes from the store and gives to it; thread-safe."""

    def __init__(self, engine: Engine, options: Options) -> None:
        self.engine = engine
        self.options = options
        self.catalog = engine.catalog
        self.workshop = self.catalog.workshop

    # Layers

    def place(self, layers: list[str], job: Job, stream: Iterable[bytes]) -> str:
        """The layer that a stream of files makes on top of others; empty if it changes nothing."""
        return self.place_all(layers, [(job, stream)])

    def place_all(self, layers: list[str], streams: list[tuple[Job, Iterable[bytes]]]) -> str:
        """The same of several streams, one after the other."""

        def fill(part: str) -> None:
            for job, stream in streams:
                self.send("place", stream, **self.tree(layers, part), job=job.to_dict())

        return self.make_layer(fill)

    def pick(
        self,
        layers: list[str],
        job: Job,
        origin: list[str],
        sources: tuple[str, ...],
        is_folder: bool,
        excluded: tuple[str, ...],
        parents: bool,
    ) -> str:
        """The layer that files of another image make on top of others."""

        def fill(part: str) -> None:
            self.workshop.ask(
                "pick",
                **self.tree(layers, part),
                job=job.to_dict(),
                origin=lowers(origin),
                sources=list(sources),
                is_folder=is_folder,
                excluded=list(excluded),
                parents=parents,
            )

        return self.make_layer(fill)

    def tree(self, layers: list[str], part: str) -> dict[str, Any]:
        """Where the worker finds the files, and puts what changes."""
        return {"lowers": lowers(layers), "upper": f"{part}/root", "work": f"{part}/work"}

    def make_layer(self, fill: Callable[[str], None]) -> str:
        """A layer of what `fill` writes into a folder of the store; empty if it writes nothing."""
        part = f"layers/{os.urandom(8).hex()}.part"
        os.mkdir(self.engine.store.path(part), 0o700)
        try:
            self.workshop.ask("open_layer", path=part)
            fill(part)
            return self.adopt(f"{part}/root")
        finally:
            self.workshop.ask("delete", path=part)

    def adopt(self, folder: str) -> str:
        """The layer that a folder of changes becomes; empty if there are none."""
        facts = self.workshop.ask("look", path=folder, epoch=self.options.epoch)
        if facts["empty"] == "1":
            return EMPTY
        return self.catalog.layers.adopt(folder, int(facts["size"])).id

    def send(self, op: str, stream: Iterable[bytes], **request: Any) -> None:
        """Ask the worker, and send it a stream. Raises what the worker met."""
        from nbhull.runtime.images.layers import set_pipe_size

        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            set_pipe_size(write_end)
            channel = self.workshop.worker_client().open(op, [read_end], **request)
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        with channel:
            try:
                for piece in stream:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[os.write(write_end, rest) :]
            except BrokenPipeError:
                pass  # the worker's own words come by the channel
            finally:
                os.close(write_end)
            wire.receive_answer(channel)

    # Files for one step alone

    def hand(self, folder: str, number: int, content: bytes, mode: int, uid: int = 0, gid: int = 0) -> str:
        """Write a file for a step into a folder of the store; its path in the store."""
        path = f"{folder}/{number}"
        self.send("write", iter([content]), path=path, mode=mode, uid=uid, gid=gid)
        return path

    def cache_folder(self, name: str, mode: int, uid: int, gid: int) -> str:
        """The folder of a cache mount, made where it is missing; its path in the store."""
        folder = f"caches/{key_of('cache', name)[:24]}"
        os.makedirs(self.engine.store.path("caches"), 0o700, exist_ok=True)
        self.workshop.ask("folder", path=folder, mode=mode, uid=uid, gid=gid)
        leftovers.mark(self.engine.store, folder)
        return folder

    # Images

    def register(self, document: dict[str, Any], layers: list[str], names: tuple[str, ...]) -> Image:
        """An image of a configuration and of layers, the newest first."""
        return self.catalog.register(document, list(reversed(layers)), names)

    def pull(self, name: str, progress: Progress) -> str:
        """Get an image from its registry; its id. Raises NotFound."""
        from nbhull.runtime.images import reference

        if "/" not in name or not reference.parse(name).registry:
            raise NotFound(f"there is no image {name!r}", "`nbhull images` lists those there are")
        return self.engine.pull(name, progress=progress).id

    def from_path(self, path: str) -> State:
        """The state that an archive, a folder with an image, or a root file system is."""
        from nbhull.runtime.builder import bases
        from nbhull.runtime.images import archives

        if os.path.isdir(path) and not os.path.exists(f"{path}/oci-layout"):
            return self.from_root(folder_stream(path), path)
        if os.path.isfile(path) and not is_image_archive(path):
            return self.from_root(file_stream(path), path)
        found = archives.load(self.catalog, path)
        if len(found) != 1:
            raise InvalidInput(f"{path!r} has {len(found)} images", "load it, and name the one to build on")
        image = found[0]
        return bases.state_of(self.engine, self.engine.store.find("images", image.id, "image"), self.options)

    def from_root(self, stream: Iterator[bytes], path: str) -> State:
        """The state that a root file system of one layer is: what it is made of decides whether it was had before."""
        from nbhull.runtime.builder.cache import Cache

        layer = self.catalog.layers.ingest_root(stream)
        packed = self.catalog.layers.packed(layer.id)
        key = key_of("root", packed.diff_id)
        cache = Cache(self.engine.store)
        known = cache.find(key)
        if known is not None and known.layer != layer.id:
            self.catalog.layers.remove(layer.id)
            return State({}, [known.layer], key)
        cache.add(key, layer.id)
        return State({}, [layer.id], key)


def lowers(layers: list[str]) -> list[str]:
    """The folders of layers in the store."""
    return [f"layers/{layer}/root" for layer in layers]


def is_image_archive(path: str) -> bool:
    """Whether a tar holds an image (an OCI layout, or Docker's manifest.json), and no root file system."""
    import tarfile

    try:
        with tarfile.open(path) as archive:
            for number, member in enumerate(archive):
                if member.name.removeprefix("./") in ("oci-layout", "manifest.json", "index.json"):
                    return True
                if number > 1000:
                    return False
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InvalidInput(f"{path!r} is no archive: {error}", "give a tar, compressed or not") from error
    return False


def file_stream(path: str) -> Iterator[bytes]:
    """A file's bytes."""
    with open(path, "rb") as file:
        while piece := file.read(CHUNK):
            yield piece


def folder_stream(path: str) -> Iterator[bytes]:
    """A tar of a folder of this machine's."""
    from nbhull.runtime.images.pack import Packer

    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from Packer(fd, whiteouts=False).pieces()
    except OSError as error:
        raise HullError(f"cannot read the folder {path!r}: {error.strerror}", "see its modes") from error
    finally:
        os.close(fd)
