"""The store on disk: folders for layers and containers, and the SQLite index that names them.

Files are written beside their place and renamed; the row comes last, and goes first. Whatever no
row names is garbage.
"""

from __future__ import annotations

import os
import time

from nbhull.runtime.errors import Conflict, HostUnable, HullError, NotFound
from nbhull.runtime.lean import RLock, dumps, loads, sqlite3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

VERSION = 6
IMAGES_TABLE = """
create table images (
    id text primary key, parent text, base text not null, created real not null,
    size integer not null, top text, record text not null,
    note text not null default '', pinned integer not null default 0, auto text not null default '',
    config text, manifest text
) strict;
"""
IMAGES_TABLES = f"""{IMAGES_TABLE}
create table tags (name text primary key, image text not null, created real not null) strict;
create table digests (
    repository text not null, digest text not null, image text not null, primary key (repository, digest)
) strict;
create table layers (
    id text primary key, created real not null, size integer not null, diff_id text,
    blob text, blob_size integer, media_type text, below text
) strict;
"""
"""`images.record` has, as `foundation`, the layers that the image was made of elsewhere, the newest first; `top` is the
newest of those that snapshots have put on them, and `layers.below` the next one, so that a row is no longer for many.
`images.config` and `images.manifest` are digests of blobs: what the image is to other tools, once something has
asked. `tags` name images; `digests` tell under which digest of its manifest, or index, a repository has an image.
`layers.id` is a folder of `layers/`; `diff_id` the digest of its tar; `blob` that of the same, compressed, as kept"""
BUILD_TABLES = """
create table steps (key text primary key, layer text not null, created real not null) strict;
create table builds (key text primary key, image text not null, created real not null) strict;
"""
"""steps of builds, and images, by what they were made from (builder/cache.py); `steps.layer` is empty for one that
changed no file"""
VOLUMES_TABLE = """
create table volumes (
    id text primary key, name text not null unique, created real not null, snapshot text, record text not null
) strict;
"""
SCHEMA = f"""{IMAGES_TABLES}{BUILD_TABLES}{VOLUMES_TABLE}
create table containers (
    id text primary key, name text not null unique, image text not null, created real not null,
    launcher text not null, snapshot text, spec text not null, record text not null
) strict;
"""
MIGRATIONS = {
    1: """
alter table images add column note text not null default '';
alter table images add column pinned integer not null default 0;
alter table images add column auto text not null default '';
""",
    2: f"""
alter table images rename to images_2;
{IMAGES_TABLES.replace("top text", "layers text not null").replace(", below text", "")}
insert into images (id, parent, base, created, size, layers, record, note, pinned, auto)
    select id, parent, base, created, size, layers, record, note, pinned, auto from images_2;
insert into tags (name, image, created) select name, id, created from images_2;
insert into layers (id, created, size) select id, created, size from images_2;
drop table images_2;
""",
    3: BUILD_TABLES,
    4: VOLUMES_TABLE,
    5: f"""
alter table layers add column below text;
create temporary table sources as
    select layers, coalesce(json_array_length(record, '$.foundation'), 0) as own from images union all
    select json_extract(record, '$.layers'), coalesce(json_array_length(record, '$.foundation'), 0) from containers;
create temporary table pairs as
    select distinct upper.value as id, lower.value as below
    from sources, json_each(sources.layers) as upper, json_each(sources.layers) as lower
    where lower.key = upper.key + 1 and lower.key < json_array_length(sources.layers) - sources.own;
update layers set below = (select pairs.below from pairs where pairs.id = layers.id);
drop table pairs;
drop table sources;
alter table images rename to images_5;
{IMAGES_TABLE}
insert into images select id, parent, base, created, size,
    iif(json_array_length(layers) > coalesce(json_array_length(record, '$.foundation'), 0),
        json_extract(layers, '$[0]'), null),
    record, note, pinned, auto, config, manifest from images_5;
drop table images_5;
update containers set record = json_remove(json_set(record, '$.top',
    iif(json_array_length(record, '$.layers') > coalesce(json_array_length(record, '$.foundation'), 0),
        json_extract(record, '$.layers[0]'), null)), '$.layers');
""",
}
"""by format: what makes an index of that format one of the next"""
FIRST_TAG = "select name from tags where image = images.id order by created, name limit 1"
IMAGES = f"select images.*, coalesce(({FIRST_TAG}), '') as name"
"""the columns of an image, with the first of its names, empty if it has none"""
NEWEST_FIRST = "select * from containers order by created desc"
NAMED = (
    "select images.*, coalesce(tags.name, '') as name from images left join tags on tags.image = images.id "
    "order by images.created desc, tags.created, tags.name"
)
"""all images, with each of their names"""
CHAIN = """
with recursive chain (id, below) as (
    select id, below from layers where id = ?
    union all select layers.id, layers.below from layers join chain on layers.id = chain.below
) select id, below from chain limit 50
"""
"""a layer and those below it, not all of them if there are many"""
PAGES = 200
"""of changes that are gathered before they are written back; the first to open an index reads what there is of them"""
BUSY = 10.0
"""seconds to wait for another process's transaction"""


class Store:
    """A store at a folder of the user's own; thread-safe, and shared among processes."""

    def __init__(self, home: str, *, ends: bool = False) -> None:
        """Open, and make where it is missing. `ends`: this process ends when it is done with it. Raises HostUnable when
        the folder cannot be used."""
        self.ends = ends
        self.home = os.path.abspath(home)
        self.lock = RLock()
        try:
            for folder in ("", "layers", "containers", "skeletons", "volumes", "blobs/sha256"):
                os.makedirs(f"{self.home}/{folder}", 0o700, exist_ok=True)
            self.database = sqlite3.connect(
                f"{self.home}/index.db", timeout=BUSY, isolation_level=None, check_same_thread=False
            )
            self.database.row_factory = sqlite3.Row
            self.database.execute("pragma synchronous = normal")
            self.database.execute(f"pragma wal_autocheckpoint = {PAGES}")
            self.prepare()
        except OSError as error:
            raise HostUnable(
                f"cannot use the store {self.home!r}: {error.strerror}", "set NBHULL_HOME to a folder of your own"
            ) from error
        except sqlite3.Error as error:
            raise HostUnable(
                f"cannot use the index of the store {self.home!r}: {error}",
                "set NBHULL_HOME to a folder on a local disk",
            ) from error

    def prepare(self) -> None:
        """Make the tables in a new index, bring an older one up to date. Raises HullError for one of a newer nbhull."""
        if (found := self.user_version()) < VERSION:
            if found == 0:
                self.database.execute("pragma journal_mode = wal")
            with self.transaction():
                while (found := self.user_version()) < VERSION:
                    new, script = (VERSION, SCHEMA) if found == 0 else (found + 1, MIGRATIONS[found])
                    for statement in script.split(";"):
                        self.database.execute(statement)
                    self.database.execute(f"pragma user_version = {new}")
        if found != VERSION:
            raise HullError(
                f"the store {self.home!r} has format {found}, this nbhull knows {VERSION}", "upgrade nbhull"
            )

    def user_version(self) -> int:
        """The index's format."""
        return int(self.database.execute("pragma user_version").fetchone()[0])

    def transaction(self) -> Transaction:
        """All or nothing, alone in the index, for a `with`; one within another is part of it."""
        return Transaction(self)

    def close(self) -> None:
        """Close the index; idempotent. A process that ends leaves it to its end: whoever is the last to close an index
        writes all back, which waits for the disk, and does again when the next one begins to write."""
        if not self.ends:
            self.database.close()

    def query(self, statement: str, *values: object) -> list[sqlite3.Row]:
        """The rows of a statement."""
        with self.lock:
            return self.database.execute(statement, values).fetchall()

    def path(self, *parts: str) -> str:
        """A path in the store."""
        return "/".join((self.home, *parts))

    def add_container(self, row: dict[str, Any]) -> None:
        """A new container's row. Raises Conflict when its name is taken."""
        self.insert("containers", row, "container")

    def add_image(self, row: dict[str, Any], layers: dict[str, str | None]) -> None:
        """A new image's row, with `name`, if there, as its first tag, and those of its new layers: what lies below
        each. Raises Conflict when the name is taken."""
        row = dict(row)
        name = row.pop("name", None)
        now = time.time()
        with self.transaction():
            self.insert("images", row, "image")
            for layer, below in layers.items():
                self.query(
                    "insert into layers (id, created, size, below) values (?, ?, ?, ?)", layer, now, row["size"], below
                )
            if name is not None:
                self.insert("tags", {"name": name, "image": row["id"]}, "image")

    def chain(self, top: str | None) -> Iterator[str]:
        """The layers that snapshots have made, from the newest down to those of the image below all of them."""
        while top is not None:
            rows = self.query(CHAIN, top)
            yield from (row["id"] for row in rows)
            top = rows[-1]["below"] if rows else None

    def layers(self, top: str | None, record: dict[str, Any]) -> list[str]:
        """All layers of a container or an image, the newest first."""
        return [*self.chain(top), *record.get("foundation", [])]

    def image_layers(self, row: sqlite3.Row) -> list[str]:
        """The same by an image's row."""
        return self.layers(row["top"], loads(row["record"]))

    def container_layers(self, row: sqlite3.Row) -> list[str]:
        """The same by a container's."""
        record = loads(row["record"])
        return self.layers(record["top"], record)

    def needed_layers(self) -> set[str]:
        """Those that an image or a container has."""
        needed: set[str] = set()
        for row in self.query("select top as top, record from images union all select null, record from containers"):
            record = loads(row["record"])
            needed.update(record.get("foundation", []))
            for layer in self.chain(row["top"] or record.get("top")):
                if layer in needed:
                    break  # and so are those below it
                needed.add(layer)
        return needed

    def set_tag(self, name: str, image: str) -> None:
        """Give an image a name, which is taken from whoever has it."""
        self.query(
            "insert into tags values (?, ?, ?) on conflict (name) do update set "
            "image = excluded.image, created = excluded.created where image <> excluded.image",
            name,
            image,
            time.time(),
        )

    def insert(self, table: str, row: dict[str, Any], what: str) -> None:
        """Insert; dictionaries and lists are stored as JSON."""
        values = {key: dumps(v) if isinstance(v, (dict, list)) else v for key, v in row.items()}
        values.setdefault("created", time.time())
        columns, marks = ", ".join(values), ", ".join("?" * len(values))
        try:
            self.query(f"insert into {table} ({columns}) values ({marks})", *values.values())
        except sqlite3.IntegrityError as error:
            raise Conflict(
                f"the {what} name {row.get('name', row.get('id'))!r} is in use",
                f"choose another name, or remove that {what}",
            ) from error

    def update_container(self, identity: str, **values: Any) -> None:
        """Change columns of a container's row."""
        assignments = ", ".join(f"{column} = ?" for column in values)
        encoded = [dumps(v) if isinstance(v, (dict, list)) else v for v in values.values()]
        self.query(f"update containers set {assignments} where id = ?", *encoded, identity)

    def find(self, table: str, ref: str, what: str) -> sqlite3.Row:
        """The row of that name, id, or unambiguous beginning of an id. Raises NotFound, Conflict."""
        if table == "images":
            return self.find_image(ref, what)
        rows = self.query(f"select * from {table} where name = ? or id = ?", ref, ref)
        if not rows and is_hexadecimal(ref):
            rows = self.query(f"select * from {table} where substr(id, 1, ?) = ?", len(ref), ref)
        return only(rows, ref, what, "nbhull ps -a" if table == "containers" else "nbhull volume ls")

    def find_image(self, ref: str, what: str = "image") -> sqlite3.Row:
        """The row of the image with that tag, id, beginning of an id, or `repository@digest`; column `name` is
        the first of its tags. Raises NotFound, Conflict."""
        name = ref.removesuffix(":latest")
        rows = self.query(
            f"{IMAGES} from images where id in (select image from tags where name in (?, ?))", name, f"{name}:latest"
        )
        plain = ref.removeprefix("sha256:")
        if not rows and is_hexadecimal(plain):
            rows = self.query(f"{IMAGES} from images where substr(id, 1, ?) = ?", len(plain), plain)
        if not rows and "@" in ref:
            repository, _, digest = ref.partition("@")
            repository = repository.rpartition(":")[0] if ":" in repository.rpartition("/")[2] else repository
            chosen = "select image from digests where repository = ? and digest = ?"
            rows = self.query(f"{IMAGES} from images where id in ({chosen})", repository, digest)
        if not rows and ref:  # a name that other tools have written out, with their own registry before it
            ending = f"/{ref}" if ":" in ref.rpartition("/")[2] else f"/{ref}:latest"
            chosen = "select image from tags where substr(name, -length(?)) = ?"
            rows = self.query(f"{IMAGES} from images where id in ({chosen})", ending, ending)
        return only(rows, ref, what, "nbhull images")


class Transaction:
    """What `Store.transaction` gives."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_inner = False

    def __enter__(self) -> None:
        self.store.lock.acquire()
        try:
            self.is_inner = self.store.database.in_transaction
            if not self.is_inner:
                self.store.database.execute("begin immediate")
        except BaseException:
            self.store.lock.release()
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if not self.is_inner:
                self.store.database.execute("commit" if error is None else "rollback")
        finally:
            self.store.lock.release()


def is_hexadecimal(text: str) -> bool:
    """Whether it can be an id's beginning."""
    return text != "" and all(c in "0123456789abcdef" for c in text)


def only(rows: list[sqlite3.Row], ref: str, what: str, listing: str) -> sqlite3.Row:
    """The one row found for `ref`. Raises NotFound, Conflict."""
    if len(rows) > 1:
        raise Conflict(f"{ref!r} is the beginning of {len(rows)} ids, or the end of names", "give more of it")
    if not rows:
        raise NotFound(f"there is no {what} {ref!r}", f"`{listing}` lists what there is")
    return rows[0]
