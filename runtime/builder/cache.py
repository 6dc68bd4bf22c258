"""Steps that were done before: by a digest of all that they depend on, never of paths or times."""

from __future__ import annotations

import hashlib
import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.store import Store

VERSION = 1
"""changes when a step of the same key would come out differently"""
EMPTY = ""
"""in the place of a layer's id: the step changed no file"""


class Done:
    """A step that was done."""

    __slots__ = ("created", "layer")

    def __init__(self, layer: str, created: float) -> None:
        self.layer = layer
        self.created = created
        """seconds since the epoch"""


class Cache:
    """The steps and images that a store remembers."""

    def __init__(self, store: Store, *, enabled: bool = True) -> None:
        """`enabled`: whether what is remembered counts; what is done is remembered anyway."""
        self.store = store
        self.enabled = enabled

    def find(self, key: str) -> Done | None:
        """The step of that key, if its layer is still there."""
        if not self.enabled:
            return None
        rows = self.store.query("select layer, created from steps where key = ?", key)
        if not rows:
            return None
        layer = rows[0]["layer"]
        if layer and not os.path.isdir(self.store.path("layers", layer)):
            return None
        return Done(layer, rows[0]["created"])

    def add(self, key: str, layer: str, created: float | None = None) -> Done:
        """Remember a step; `created`: seconds since the epoch, now if not given."""
        done = Done(layer, time.time() if created is None else created)
        query = "insert or replace into steps (key, layer, created) values (?, ?, ?)"
        self.store.query(query, key, layer, done.created)
        return done

    def find_image(self, key: str) -> str | None:
        """The id of the image that was made of the same, if it is still there."""
        rows = self.store.query(
            "select image from builds where key = ? and image in (select id from images)", key
        )
        return rows[0]["image"] if rows and self.enabled else None

    def add_image(self, key: str, image: str) -> None:
        """Remember an image."""
        now = time.time()
        self.store.query("insert or replace into builds (key, image, created) values (?, ?, ?)", key, image, now)


def key_of(kind: str, *parts: Any) -> str:
    """A digest of plain data."""
    import json

    text = json.dumps([VERSION, kind, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
