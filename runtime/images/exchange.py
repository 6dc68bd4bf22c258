"""Root file systems in and out: tars of whole trees, Debian's own, and images of containers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from nbhull.runtime.errors import HostUnable, InvalidInput, NotFound, ProcessFailed
from nbhull.runtime.images import reference as references
from nbhull.runtime.images.layers import source_date_epoch
from nbhull.runtime.model import HOST_IMAGE, Image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.engine import Engine

PIECE = 1 << 20
NOT_EXPORTED = ("proc", "sys", "dev", "run")
"""folders that are the running container's, and go out empty"""
SUITE = re.compile(r"(debian|ubuntu):([a-z0-9-]+)")
DEBIAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """A file's bytes."""
    while piece := file.read(PIECE):
        yield piece


def import_file(engine: Engine, source: str, name: str, settings: dict[str, Any] | None = None) -> Image:
    """An image of a root file system's tar, compressed or not; `-` is standard input. Raises NotFound, InvalidInput."""
    catalog = engine.catalog
    if source != "-" and not os.path.isfile(source):
        raise NotFound(
            f"there is no file {source!r}", "give the path of a root file system's tar, or - for standard input"
        )
    with catalog.making(), open(0 if source == "-" else source, "rb", buffering=0, closefd=source != "-") as file:
        return catalog.import_root(pieces_of(file), [name], settings)


CHANGES = ("cmd", "entrypoint", "env", "expose", "label", "stopsignal", "user", "volume", "workdir")
"""the instructions of a Containerfile that `commit` takes"""


def commit(engine: Engine, ref: str, name: str, changes: Sequence[str] = ()) -> Image:
    """An image of a container's files as they are now, its configuration changed by instructions of a Containerfile.

    Raises NotFound, InvalidInput for another instruction, Conflict where there are changes for a container of the
    image `host`, which has no configuration, or where the name is taken."""
    if not changes:
        return engine.snapshot(ref, name)
    from nbhull.runtime.builder import instructions, syntax
    from nbhull.runtime.builder.scope import GlobalScope, StageScope
    from nbhull.runtime.builder.state import State

    catalog = engine.catalog
    text = "\n".join(["FROM scratch", *changes])
    (stage,) = instructions.program(syntax.parse(text.encode(), "--change"), "--change").stages
    for command in stage.commands:
        if command.name not in CHANGES:
            raise InvalidInput(f"{command.name.upper()} cannot be a change", f"use {', '.join(CHANGES).upper()}")
    snapshot = engine.snapshot(ref)
    catalog.store.query("delete from tags where image = ?", snapshot.id)
    row = catalog.find(snapshot.id)
    document = catalog.config(row).document
    state = State(document.get("config") or {}, [], "")
    scope = StageScope(GlobalScope({}, (), "\\", ""), state.env)
    for command in stage.commands:
        state.apply(command, scope)
    document = {**document, "config": state.config, "rootfs": {"type": "layers", "diff_ids": []}}
    return catalog.register(document, list(reversed(catalog.store.image_layers(row))), [name], parent=snapshot.id)


def export(engine: Engine, ref: str, output: str) -> int:
    """Write what a container sees as a tar, to a file or, with `-`, to standard output: its image and its changes, also
    of the image `host`; handed-in folders, /proc, /sys, /dev and /run empty. A container that does not run is started
    for as long. How many files may not be read, and are left out. Raises NotFound, HostUnable."""
    container = engine.container(ref)
    workshop = engine.catalog.workshop
    workshop.worker_client()
    is_running = container.state == "running"
    if not is_running:
        engine.start(container.id)
    try:
        folder, root = engine.open(container.id, "/")
        assert folder
        without = [*NOT_EXPORTED, *(mount.target.strip("/") for mount in container.spec.mounts)]
        request = {"without": without, "epoch": source_date_epoch(), "compression": "none"}
        with root:
            if output == "-":
                return int(workshop.ask("export", [1, root.fileno()], **request)["unread"])
            part = f"{output}.part-{os.getpid()}"
            try:
                with open(part, "xb") as file:
                    facts = workshop.ask("export", [file.fileno(), root.fileno()], **request)
                os.rename(part, output)
            except OSError as error:
                raise HostUnable(f"cannot write {output!r}: {error.strerror}", "choose another place") from error
            finally:
                if os.path.exists(part):
                    os.unlink(part)
            return int(facts["unread"])
    finally:
        if not is_running:
            engine.stop(container.id, 0)


def bootstrap(engine: Engine, suite: str, name: str, packages: Sequence[str] = (), mirror: str = "") -> Image:
    """An image of a minimal Debian or Ubuntu, `debian:bookworm`, made by mmdebstrap(1) from their packages, with
    `packages` more. Raises InvalidInput, HostUnable where mmdebstrap is missing, ProcessFailed with its words."""
    match = SUITE.fullmatch(suite)
    if match is None:
        raise InvalidInput(f"{suite[:80]!r} is no distribution that can be made", "write it like debian:bookworm")
    program = shutil.which("mmdebstrap")
    if program is None:
        raise HostUnable("mmdebstrap is not installed", "sudo apt-get install -y mmdebstrap")
    for package in packages:
        if re.fullmatch(r"[a-z0-9][a-z0-9+.-]*", package) is None:
            raise InvalidInput(f"{package[:80]!r} is not the name of a package", "write it like python3-venv")
    argv = [program, "--variant=minbase", "--quiet", "--format=tar"]
    if packages:
        argv.append(f"--include={','.join(packages)}")
    argv += [match[2], "-", *([mirror] if mirror else [])]
    catalog = engine.catalog
    settings = {"Env": [f"PATH={DEBIAN_PATH}"], "Cmd": ["/bin/bash"]}
    with catalog.making():
        made = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert made.stdout is not None
        assert made.stderr is not None
        words = Collected(made.stderr)
        try:
            return catalog.import_root(checked(made, words), [name], settings, f"mmdebstrap {match[2]}")
        finally:
            made.kill()
            made.wait()
            words.end()
            made.stdout.close()
            made.stderr.close()


def checked(made: subprocess.Popen[bytes], words: Collected) -> Iterator[bytes]:
    """What a program writes; raises ProcessFailed with its last words if it does not end well."""
    assert made.stdout is not None
    yield from pieces_of(made.stdout)  # type: ignore[arg-type]
    status = made.wait()
    if status != 0:
        raise ProcessFailed(
            f"mmdebstrap ended with {status}: {words.end()[-300:]}",
            "see the name of the suite, the network and apt's proxy",
        )


class Collected:
    """What a program says, read in a thread so that it is never held up."""

    def __init__(self, stream: Any) -> None:
        import threading

        self.stream = stream
        self.data = b""
        self.thread = threading.Thread(target=self.collect, daemon=True)
        self.thread.start()

    def collect(self) -> None:
        """In the thread."""
        for line in self.stream:
            self.data = (self.data + line)[-10_000:]

    def end(self) -> str:
        """All of it, once the program has ended."""
        self.thread.join()
        return " ".join(self.data.decode(errors="replace").split())


def pin(engine: Engine, notebook: str) -> str:
    """Write the name and the digest of the image that a notebook chooses into its metadata; `name@digest`.

    Raises NotFound for a notebook or an image that is not there, InvalidInput for one that nobody else could get: it
    was neither pulled nor pushed."""
    text, document, chosen = read_notebook(notebook)
    name = str(chosen.get("image", "host")).partition("@")[0]
    row = engine.catalog.find(name)
    digests = engine.catalog.digests(row["id"])
    wanted = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
    fitting = [digest for digest in digests if digest.partition("@")[0] == wanted] or digests
    if not fitting:
        raise InvalidInput(
            f"the image {name!r} is in no registry, so its digest would lead nowhere",
            f"push it first: nbhull push {name}",
        )
    repository, _, digest = fitting[0].partition("@")
    tag = f":{name.rpartition(':')[2]}" if ":" in name.rpartition("/")[2] and repository == wanted else ""
    chosen["image"] = f"{repository}{tag}@{digest}"
    write_notebook(notebook, document, text)
    return str(chosen["image"])


def use(engine: Engine, ref: str, notebook: str) -> str:
    """Write an image into a notebook's metadata as the one that it runs in; its name. Raises NotFound for a notebook,
    or an image of no registry, that is not there, InvalidInput."""
    if ref != HOST_IMAGE and not ("/" in ref and references.parse(ref).registry):
        engine.store.find("images", ref, "image")
    text, document, chosen = read_notebook(notebook)
    chosen["image"] = ref
    write_notebook(notebook, document, text)
    return ref


def read_notebook(notebook: str) -> tuple[str, Any, dict[str, Any]]:
    """A notebook's text, the same as data, and in that `metadata.container`. Raises NotFound, InvalidInput."""
    try:
        with open(notebook, encoding="utf-8") as file:
            text = file.read()
        document = json.loads(text)
        chosen = document["metadata"].setdefault("container", {})
        chosen.get("image")
    except FileNotFoundError as error:
        raise NotFound(f"there is no notebook {notebook!r}", "give the path of an .ipynb file") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{notebook!r} cannot be read as a notebook: {error}", "open and save it in Jupyter"
        ) from error
    return text, document, chosen


def write_notebook(notebook: str, document: Any, text: str) -> None:
    """Write a notebook's data in the form of its old text. Raises HostUnable."""
    indent = 1 if text.startswith('{\n "') else 2 if text.startswith('{\n  "') else None
    part = f"{notebook}.part-{os.getpid()}"
    try:
        with open(part, "x", encoding="utf-8") as file:
            json.dump(document, file, indent=indent, ensure_ascii=False)
            file.write("\n" if text.endswith("\n") else "")
        shutil.copymode(notebook, part)
        os.rename(part, notebook)
    except OSError as error:
        raise HostUnable(f"cannot write {notebook!r}: {error.strerror}", "see its folder's permissions") from error
