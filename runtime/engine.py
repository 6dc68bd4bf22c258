"""The façade: the one thing that the command line, the magics and the provisioner talk to."""

from __future__ import annotations

import os

from nbhull.runtime import accounts, composition, confinement, defaults, limits, network, policy
from nbhull.runtime.confinement import Confinement
from nbhull.runtime.errors import Conflict, InvalidInput, LauncherLost, NotFound
from nbhull.runtime.files import FolderDescriptor, remove_tree
from nbhull.runtime.launcher import client, wire
from nbhull.runtime.launcher.client import Process
from nbhull.runtime.lean import Lock, loads
from nbhull.runtime.model import HOST_IMAGE, Container, ContainerSpec, Image, ProcessSpec, Usage, is_word, parse_name
from nbhull.runtime.rows import container_of, image_of, spec_of
from nbhull.runtime.running import default_home, holds, is_running, sweep_ended
from nbhull.runtime.snapshots import generations, journal
from nbhull.runtime.starting import start
from nbhull.runtime.store import NAMED, NEWEST_FIRST, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from sqlite3 import Row
    from types import TracebackType
    from typing import Any

    from nbhull.runtime.images.catalog import Catalog
    from nbhull.runtime.registry.transfer import Progress
    from nbhull.runtime.snapshots.comparing import Comparison
    from nbhull.runtime.snapshots.tree import Node
    from nbhull.runtime.volumes import Volumes

__all__ = ["Engine", "Process", "default_home"]


class Engine:
    """Images, containers, snapshots. Thread-safe; all methods block (milliseconds, but for pulls
    and removals), so call them from a thread in asyncio code.

    Containers started through an Engine run in its launcher, a process of its own that is started
    on first use and ends, with all its containers, when the Engine is closed or its process dies.
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        *,
        fork: bool = False,
        begun: client.Client | None = None,
    ) -> None:
        """`home`: the store; None takes $NBHULL_HOME, else the user's data folder.

        `fork`: start the launcher as a fork of this process (quicker; for processes without threads).
        `begun`: a launcher of that store that is starting already (`client.begin`); it is the engine's from here on.
        Raises HostUnable when the store cannot be used."""
        try:
            self.store = Store(os.fspath(home or default_home()), ends=fork)
        except BaseException:
            if begun is not None:
                begun.close()
            raise
        self.fork = fork
        self.lock = Lock()
        self.own = begun
        self.has_swept = False
        self.library: Catalog | None = None
        self.others: dict[str, client.Client] = {}

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the launcher and its containers; idempotent."""
        with self.lock:
            for other in self.others.values():
                other.close()
            self.others.clear()
            if self.library is not None:
                self.library.workshop.close()
                self.library = None
            if self.own is not None:
                self.own.leave()  # it cleans up while the index is closed
            self.store.close()
            if self.own is not None:
                self.own.close()
                self.own = None

    # Launchers

    def launcher(self) -> client.Client:
        """This engine's launcher, started on first use, and again if it was lost."""
        with self.lock:
            if self.own is not None and not self.own.is_starting and not is_running(self.own.folder):
                self.own.close()
                self.own = None
                self.has_swept = False
            if not self.has_swept:
                sweep_ended()
                self.has_swept = True
            if self.own is None:
                self.own = client.start(self.store.home, fork=self.fork)
            return self.own

    def launcher_of(self, row: Row) -> client.Client:
        """The launcher that holds a container. Raises Conflict if it is not running."""
        folder = row["launcher"]
        if not holds(folder, row["id"]):
            raise Conflict(
                f"the container {row['name']} is not running", f"start it, or see `nbhull ps -a`: {row['id']}"
            )
        with self.lock:
            if self.own is not None and self.own.folder == folder:
                return self.own
            if folder not in self.others:
                self.others[folder] = client.connect(folder)
            return self.others[folder]

    # Looking around

    @property
    def catalog(self) -> Catalog:
        """The images: what they are made of, and how they come and go."""
        from nbhull.runtime.images.catalog import Catalog
        from nbhull.runtime.images.workshop import Workshop

        with self.lock:
            if self.library is None:
                self.library = Catalog(self.store, Workshop(self.launcher))
            return self.library

    @property
    def volumes(self) -> Volumes:
        """The named volumes: how they come and go, and who has them."""
        from nbhull.runtime.volumes import Volumes

        return Volumes(self)

    def pull(self, ref: str, *, plain_http: bool = False, progress: Progress | None = None) -> Image:
        """Get an image from its registry. Raises NotFound, Denied, InvalidInput, HostUnable (`transfer.pull`)."""
        from nbhull.runtime.registry import transfer

        return transfer.pull(self.catalog, ref, plain_http=plain_http, progress=progress)

    def provide(self, ref: str, when: str = "missing", progress: Progress | None = None) -> None:
        """Get an image that is not here from the registry that its name tells; other names are left as they are.

        `when`: `missing`, `always` (a newer one may be there) or `never`. Raises what `pull` raises."""
        if when == "never" or "/" not in ref:
            return
        if when == "missing":
            try:
                self.store.find("images", ref, "image")
                return
            except NotFound:
                pass  # it may be had
        from nbhull.runtime.images import reference

        if reference.parse(ref).registry:
            self.pull(ref, progress=progress)

    def push(
        self, ref: str, target: str | None = None, *, plain_http: bool = False, progress: Progress | None = None
    ) -> str:
        """Give an image to a registry, under its own name or another; the manifest's digest (`transfer.push`)."""
        from nbhull.runtime.registry import transfer

        return transfer.push(self.catalog, ref, target, plain_http=plain_http, progress=progress)

    def images(self) -> list[Image]:
        """All images and snapshots under each of their names, the embedded `host` first."""
        from nbhull.runtime.snapshots import sizes

        sizes.measure(self.store)
        rows = self.store.query(NAMED)
        return [Image(HOST_IMAGE, HOST_IMAGE, None, 0.0, 0), *(image_of(row) for row in rows)]

    def containers(self) -> list[Container]:
        """All containers, of every launcher of this user, newest first."""
        return [container_of(row, self.store.home) for row in self.store.query(NEWEST_FIRST)]

    def container(self, ref: str) -> Container:
        """The container of that name, id or unambiguous id prefix; raises NotFound."""
        return container_of(self.row(ref), self.store.home)

    def row(self, ref: str) -> Row:
        """A container's row in the index."""
        return self.store.find("containers", ref, "container")

    # The life of a container

    def create(self, spec: ContainerSpec) -> Container:
        """Make a container, not yet running. Raises NotFound (image), Conflict (name), InvalidInput."""
        policy.check_image(self.store, spec.image)
        return self.create_from(spec, *self.image_record(spec.image, spec.environment))

    def create_from(
        self, spec: ContainerSpec, record: composition.ImageRecord, top: str | None, snapshot: str | None,
        identity: str | None = None,
    ) -> Container:  # fmt: skip
        """The same of what an image is made of (`image_record`). `identity`: an id whose folder is there already."""
        exists = identity is not None
        identity = identity or os.urandom(6).hex()
        name = parse_name(spec.name, "container name") if spec.name is not None else identity
        hostname = spec.hostname or name[:63]
        if len(hostname) > 63 or not is_word(hostname, "._-"):
            raise InvalidInput(f"the host name {hostname!r} is not valid", "use letters, digits, '-', at most 63")
        spec = policy.apply(spec)
        network.check(spec)
        targets = composition.check_mounts(spec, record)
        if spec.confinement != confinement.USUAL:
            confinement.check(spec.confinement, record["base"], self.store.home)
        record = {**record, "top": top, "hostname": hostname, "first": generations.FIRST}
        folder = self.store.path("containers", identity)
        if not exists:
            composition.make_folder(folder, spec.limits)
        try:
            generations.make(folder, generations.FIRST, composition.keys(record))
            composition.make_mountpoints(f"{folder}/mountpoints", targets)
            composition.make_files(f"{folder}/files", record, hostname, identity)
            record["host_env"] = composition.hand_settings(f"{folder}/host", spec, record)
            row = {
                "id": identity,
                "name": name,
                "image": spec.image,
                "launcher": "",
                "snapshot": snapshot,
                "spec": spec.to_dict(),
                "record": record,
            }
            named = [mount.source for mount in spec.mounts if mount.is_volume]
            with self.store.transaction():  # so that nobody removes a volume meanwhile
                record["volumes"] = provide_volumes(self.store, named) if named else {}
                self.store.add_container(row)
        except BaseException:
            if not exists:
                remove_tree(folder)
            raise
        return self.container(identity)

    def image_record(self, ref: str, environment: str | None) -> tuple[composition.ImageRecord, str | None, str | None]:
        """What an image is made of: its base's record, the newest layer of its snapshots, its id."""
        if ref == HOST_IMAGE:
            return composition.host_record(environment), None, None
        journal.recover(self.store)
        row = self.store.find("images", ref, "image")
        if row["base"] == composition.OF_VOLUME:
            raise Conflict(f"{ref!r} is a snapshot of a volume", "`nbhull reset --volume` puts it back")
        return loads(row["record"]), row["top"], row["id"]

    def start(self, ref: str) -> Container:
        """Run a created or stopped container: its init stands, its file system is up, no other
        process runs. Raises HostUnable with the mending line where the machine refuses."""
        row = self.row(ref)
        if holds(row["launcher"], row["id"]):
            raise Conflict(f"the container {row['name']} is already running", "stop it first")
        notices = start(self, self.launcher(), row)
        return container_of(self.row(row["id"]), self.store.home, notices)

    def spawn(self, ref: str, spec: ProcessSpec, stdio: Sequence[int] = ()) -> Process:
        """Start a process in a running container. `stdio`: up to three descriptors for standard input, output and
        error; missing ones are /dev/null. Raises ProcessFailed when the program cannot be executed, at once."""
        row = self.row(ref)
        launcher = self.launcher_of(row)
        if not spec.argv or any("\0" in text for text in (*spec.argv, *spec.env, *spec.env.values())):
            raise InvalidInput("the command is empty or has a NUL byte in it", "give a program and its arguments")
        made_from, record = spec_of(row), loads(row["record"])
        user = spec.user or made_from.confinement.user or defaults.user(record)
        account = self.account(row["id"], user, made_from.confinement)
        handed = record.get("host_env", {})
        image = {**limits.environment(made_from.limits), **defaults.environment(record, account)}
        # what a caller takes over from here as it is would name a file of this machine's
        given = {name: text for name, text in spec.env.items() if name not in handed or text != os.environ.get(name)}
        env = {**handed, **image, **made_from.env, **given}
        return client.spawn(
            launcher,
            list(stdio),
            container=row["id"],
            argv=list(spec.argv),
            env=env,
            cwd=spec.cwd or defaults.folder(record, env, account.uid),
            uid=account.uid,
            gid=account.gid,
            groups=list(account.groups),
            tty=spec.tty,
        )

    def adopt(self, ref: str, pid: int) -> Process:
        """A process of a running container that was started by another one in it; `pid` is its number there. Its end
        is told once its parent has ended. Raises NotFound when there is none, or it is spoken to already."""
        row = self.row(ref)
        return client.adopt(self.launcher_of(row), container=row["id"], pid=pid)

    def command(self, ref: str, words: Sequence[str], entrypoint: str | None = None) -> tuple[str, ...]:
        """What to run in a container for `words`: with its image's Entrypoint, which `entrypoint` replaces, or its Cmd.

        Empty where the image is `host` and nothing is given. Raises InvalidInput for an image without a command."""
        return defaults.command(loads(self.row(ref)["record"]), words, entrypoint)

    def account(self, identity: str, user: str, inside: Confinement) -> accounts.Account:
        """Who a process of a container is, looked up in the container's own files."""

        def read_text(path: str) -> str:
            try:
                return self.read(identity, path).decode(errors="replace")
            except NotFound:
                return ""

        groups = tuple(group for group in inside.groups if group != confinement.KEEP_GROUPS)
        return accounts.resolve(read_text, user, groups)

    def open(self, ref: str, path: str) -> tuple[bool, Any]:
        """Whether it is a folder, and a binary file object of a file inside a running container."""
        row = self.row(ref)
        _, fields, descriptors = self.launcher_of(row).request("open", container=row["id"], path=path)
        file = os.fdopen(descriptors[0], "rb") if fields["folder"] == "0" else FolderDescriptor(descriptors[0])
        return fields["folder"] == "1", file

    def read(self, ref: str, path: str, limit: int = 1 << 20) -> bytes:
        """The bytes of a regular file inside a running container, links resolved inside it.

        Raises NotFound, or InvalidInput when it is no regular file or larger than `limit` bytes."""
        folder, file = self.open(ref, path)
        with file:
            if folder:
                raise InvalidInput(f"{path!r} in the container is a folder")
            data: bytes = file.read(limit + 1)
        if len(data) > limit:
            raise InvalidInput(f"{path!r} in the container is larger than {limit} bytes")
        return data

    def listdir(self, ref: str, path: str) -> list[str]:
        """Names in a folder inside a running container; empty if there is no such folder."""
        try:
            folder, file = self.open(ref, path)
        except NotFound:
            return []
        with file:
            return sorted(os.listdir(file.fileno())) if folder else []

    def stop(self, ref: str, timeout: float = 10.0) -> None:
        """End a container's processes: SIGTERM, then SIGKILL after `timeout` seconds (0: at once).
        Its files stay. Idempotent."""
        row = self.row(ref)
        if not holds(row["launcher"], row["id"]):
            return
        launcher = self.launcher_of(row)
        try:
            with launcher.open("wait", container=row["id"]) as ended:
                if timeout > 0:
                    stop_signal = defaults.stop_signal(loads(row["record"]))
                    launcher.request("terminate", container=row["id"], signal=stop_signal)
                    ended.settimeout(timeout)
                    try:
                        wire.receive_answer(ended)
                        return
                    except TimeoutError:
                        ended.settimeout(None)
                launcher.request("kill", container=row["id"], keep=False)
                wire.receive_answer(ended)
        except (NotFound, LauncherLost):
            return  # it ended by itself, or with its launcher, in this moment

    def remove(self, ref: str, *, force: bool = False) -> None:
        """Delete a container and its files. Raises NotFound, and Conflict if it runs and `force` is not given."""
        row = self.row(ref)
        if holds(row["launcher"], row["id"]):
            if not force:
                raise Conflict(
                    f"the container {row['name']} is running", f"stop it first, or: nbhull rm -f {row['name']}"
                )
            self.stop(row["id"], 0)
        with journal.locked(self.store, row["id"]):
            row = self.row(row["id"])  # another one may have removed it meanwhile, and is deleting its files
            composition.release_folder(self.store.path("containers", row["id"]), spec_of(row).limits)
            self.store.query("delete from containers where id = ?", row["id"])
        if row["launcher"]:
            # A launcher of one command has nobody else to serve while it deletes.
            self.launcher().request("delete", path=f"containers/{row['id']}", in_child=not self.fork)
        else:  # perhaps because no launcher can be had here
            remove_tree(self.store.path("containers", row["id"]))  # it never ran, so all in it is this process's own

    # Snapshots

    def snapshot(
        self, ref: str, name: str | None = None, *, note: str = "", pinned: bool = False, asleep: Collection[int] = (),
        volumes: bool = False,
    ) -> Image:
        """Keep the container's files, as they are at this moment, as an image; running processes go on. Takes as long
        whatever was written, but where something cannot be moved: then the files are copied, and the result tells
        why. `asleep`: processes, by their numbers inside, that wait and have no file of the container's open, so
        that none need look at them. `volumes`: and what is in its volumes, in the same moment, as snapshots of
        these (it is copied). Raises Conflict when the name is taken."""
        from nbhull.runtime.snapshots import taking

        image, road, reason = taking.take(self, ref, name, note=note, pinned=pinned, asleep=asleep, volumes=volumes)
        return image_of(self.store.find("images", image, "image"), road, reason)

    def keep(self, ref: str, occasion: str, *, asleep: Collection[int] = ()) -> Image | None:
        """Take a snapshot that nobody asked for, if anything has changed (`keeping.keep`)."""
        from nbhull.runtime.snapshots import keeping

        return keeping.keep(self, ref, occasion, asleep)

    def reset(
        self, ref: str, name: str | None = None, *, keep: Collection[int] = (), volumes: bool = False
    ) -> Container:
        """Put the container's files back on a snapshot (None: the last one made or reset to, else the image itself).
        All its processes end; a running container is running again, empty, with the same id, name and socket folder,
        when this returns. `undo` takes it back. `keep`: processes, by their numbers inside, that have no file of the
        container's open. They live on among the snapshot's files; where that cannot be, they end as all others do.
        `volumes`: the volumes that the snapshot was taken with go back with it."""
        from nbhull.runtime.snapshots import resetting

        resetting.reset(self, ref, name, keep, volumes=volumes)
        return self.container(ref)

    def undo(self, ref: str, *, keep: Collection[int] = ()) -> Container:
        """Put the container's files back to where they were before its last reset, or undo. All its processes end,
        but for `keep`, as with `reset`. Raises NotFound when there was none."""
        from nbhull.runtime.snapshots import resetting

        resetting.undo(self, ref, keep)
        return self.container(ref)

    def snapshots(self, ref: str | None = None) -> list[Node]:
        """The tree of images and snapshots from the top, or the one that a container stands in. Raises NotFound."""
        from nbhull.runtime.snapshots import tree

        if ref is not None:
            return tree.draw(self.images(), self.containers(), self.container(ref))
        standing = [volume for volume in self.volumes.all() if volume.snapshot]
        return tree.draw(self.images(), [*self.containers(), *standing])

    def diff(self, old: str, new: str | None = None, *, text: bool = False) -> Comparison:
        """What differs from one container, image or snapshot to another; without `new`, what has changed in `old` since
        the snapshot or image that it was made from. `text`: with the lines of text files that differ."""
        from nbhull.runtime.snapshots import comparing

        if new is None:
            old, new = comparing.since(self, old), old
        return comparing.compare(self, old, new, text=text)

    def usage(self, ref: str) -> Usage:
        """What a running container uses."""
        row = self.row(ref)
        _, fields, _ = self.launcher_of(row).request("usage", container=row["id"])
        numbers: dict[str, Any] = {key: float(value) if "." in value else int(value) for key, value in fields.items()}
        return Usage(**numbers)

    def user_ids(self, ref: str) -> list[range]:
        """The ids that the users of a running container have on the host."""
        return self.launcher_of(self.row(ref)).user_ids()

    def events(self, ref: str) -> dict[str, int]:
        """How often a container has met its limits since it started (`ends.Events`), also if it has ended."""
        row = self.row(ref)
        try:
            usage = self.usage(row["id"])
        except (Conflict, NotFound, LauncherLost):
            from nbhull.runtime.ends import read_counts

            return read_counts(self.store.path("containers", row["id"]))
        return {name: count for name, count in usage.to_dict().items() if name.endswith(("_kills", "_hits")) and count}

    def note_status(self, ref: str, status: int) -> None:
        """Keep how the main process of a container ended, which `Container.end` then tells."""
        with open(self.store.path("containers", self.row(ref)["id"], "status"), "w") as file:
            file.write(str(status))


def provide_volumes(store: Store, names: list[str]) -> dict[str, str]:
    """The ids of named volumes, which are made where they are missing."""
    from nbhull.runtime.volumes import provide

    return provide(store, names)
