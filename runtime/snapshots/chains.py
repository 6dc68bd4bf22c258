"""Long chains of layers kept short: every so often, those of a chain are merged into one folder that stands for them.

`flat/ID/KEY` is what the layer ID and all snapshots' layers below it come to, made of hard links, so its bytes are the
layers' own. Containers are mounted on it; the snapshots stay what they are. overlayfs takes 500 layers at most, and
looks a name that does not exist up in each.
"""

from __future__ import annotations

import os

from nbhull.runtime.lean import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.launcher.client import Client
    from nbhull.runtime.store import Store

FOLDER = "flat"
UNDER = "under"
"""in a merged folder, to be mounted right below it: the folders, empty, in which it has whiteouts. overlayfs looks for
whiteouts only in folders that several layers have, and would else list them as files"""
LENGTH = 24
"""layers above the last merged folder, after which the next one is made"""
LONGEST = 200
"""layers above it, after which one waits for it"""


def folders(store: Store, layers: list[str], foundation: list[str]) -> list[str]:
    """The folders, relative to the store, that a chain of layers (the newest first) is mounted as; `foundation`: those
    at its end that are an image's own."""
    own = layers[: len(layers) - len(foundation)]
    for index, layer in enumerate(own):
        if os.path.isdir(store.path(FOLDER, layer)):
            above, below = ([f"layers/{one}" for one in part] for part in (own[:index], foundation))
            merged = f"{FOLDER}/{layer}"
            under = [f"{merged}/{UNDER}"] if os.path.isdir(store.path(merged, UNDER)) else []
            return [*above, merged, *under, *below]
    return [f"layers/{layer}" for layer in layers]


def keep_short(store: Store, launcher: Client | None, record: dict[str, Any], keys: list[str]) -> None:
    """Have a container's chain merged in the background, where it has become long."""
    if launcher is None:
        return
    layers, foundation = record["layers"], record.get("foundation", [])
    parts = folders(store, layers, foundation)
    above = parts[: len(parts) - len(foundation)]
    if len(above) <= LENGTH or above[0].startswith(f"{FOLDER}/"):
        return
    os.makedirs(store.path(FOLDER), 0o700, exist_ok=True)
    drop_unneeded(store, launcher)
    channel = launcher.open("flatten", target=f"{FOLDER}/{layers[0]}", folders=above, keys=keys)
    with channel:
        if len(above) > LONGEST:
            from nbhull.runtime.launcher import wire

            wire.receive_answer(channel)


def drop_unneeded(store: Store, launcher: Client) -> None:
    """Delete merged folders whose layer no image and no container names any more."""
    there = {name for name in os.listdir(store.path(FOLDER)) if not name.endswith(".part")}
    # The newest first: mostly one chain has them all, and each row of a long one is long.
    for image in store.query("select id from images order by created desc") if there else ():
        for row in store.query("select layers from images where id = ?", image["id"]):
            there -= set(loads(row["layers"]))
        if not there:
            return
    for row in store.query("select record from containers"):
        there -= set(loads(row["record"])["layers"])
    for name in there:
        launcher.request("delete", path=f"{FOLDER}/{name}")
