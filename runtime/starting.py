"""Having a launcher start a container."""

from __future__ import annotations

from nbhull.runtime import composition, confinement, network, policy
from nbhull.runtime.errors import HullError, LauncherLost, SyscallFailed
from nbhull.runtime.launcher import client
from nbhull.runtime.lean import loads
from nbhull.runtime.rows import spec_of
from nbhull.runtime.running import socket_folder
from nbhull.runtime.snapshots import chains, generations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sqlite3 import Row
    from typing import Any

    from nbhull.runtime.engine import Engine


def start(engine: Engine, launcher: client.Client, row: Row) -> tuple[str, ...]:
    """Start a container in a launcher, and write down where it runs; what who started it should know."""
    record = loads(row["record"])
    if not record.get("volumes"):
        return start_now(engine, launcher, row, record)
    from nbhull.runtime.snapshots.volumes import locked

    with locked(engine, record["volumes"].values(), shared=True):
        return start_now(engine, launcher, row, record)


def start_now(engine: Engine, launcher: client.Client, row: Row, record: dict[str, Any]) -> tuple[str, ...]:
    """The same, once its volumes are as they are to be."""
    store = engine.store
    spec = policy.apply(spec_of(row))
    connected = network.plan(spec, policy.fallback())
    composition.make_network_files(store.path("containers", row["id"], "files"), spec, record, connected)
    generations.separate(store, launcher, row["id"], record)
    sockets = socket_folder(launcher.folder, row["id"])
    plan = composition.compose(store, row["id"], spec, record, record["top"], sockets)
    try:
        launcher.request(
            "start",
            container=row["id"],
            hostname=record["hostname"],
            network=connected.request(),
            limits=spec.limits.given(),
            confinement=confinement.plan(spec.confinement, store.home),
            **plan,
        )
    except HullError as error:
        if not isinstance(error, LauncherLost) and launcher.is_open():
            launcher.request("discard", container=row["id"])
        if isinstance(error, SyscallFailed):
            raise client.explained(error) from error
        raise
    store.update_container(row["id"], launcher=launcher.folder)
    chains.note_mounted(store, row["id"], [plan["root"], *plan["mounts"]])
    return (connected.notice,) if connected.notice else ()
