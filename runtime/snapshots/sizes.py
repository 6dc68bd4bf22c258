"""How large layers are, which nobody needs to know in the moment that they are made."""

from __future__ import annotations

import os

from nbhull.runtime.snapshots import journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.store import Store


def measure(store: Store) -> None:
    """Write down the size of images that have none yet."""
    rows = store.query("select id from images where size < 0")
    if rows:
        journal.recover(store)
    for row in rows:
        size = folder_size(store.path("layers", row["id"]))
        for table in ("images", "layers"):
            store.query(f"update {table} set size = ? where id = ?", size, row["id"])


def folder_size(path: str) -> int:
    """Bytes of all regular files below a folder; what this user may not look into is not counted."""
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(path) for name in names)
