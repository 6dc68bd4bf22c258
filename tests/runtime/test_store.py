"""The store's index: made, brought up to date, refused."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from nbhull.runtime.errors import HullError
from nbhull.runtime.store import VERSION, Store

FORMAT_1 = """
create table images (
    id text primary key, name text not null unique, parent text, base text not null, created real not null,
    size integer not null, layers text not null, record text not null
) strict;
create table containers (
    id text primary key, name text not null unique, image text not null, created real not null,
    launcher text not null, snapshot text, spec text not null, record text not null
) strict;
insert into images values ('ab12', 'old', null, 'host', 1.5, 7, '["ab12"]', '{}');
insert into images values ('cd34', 'newer', 'ab12', 'host', 2.5, 8, '["cd34", "ab12"]', '{}');
insert into images values ('ef56', 'above', null, 'oci', 3.5, 9, '["ef56", "dd"]', '{"foundation": ["dd"]}');
insert into containers values ('11', 'box', 'host', 4.5, '', 'cd34', '{}', '{"layers": ["cd34", "ab12"], "first": 3}');
insert into containers values ('22', 'new', 'host', 5.5, '', null, '{}', '{"layers": [], "first": 1}');
pragma user_version = 1;
"""


def columns(store: Store, table: str) -> list[tuple[object, ...]]:
    """What a table consists of, in no order: added columns stand last."""
    rows = store.query(f"select name, type, \"notnull\", dflt_value, pk from pragma_table_info('{table}')")
    return sorted(tuple(row) for row in rows)


def test_an_index_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    with sqlite3.connect(old / "index.db") as database:
        database.executescript(FORMAT_1)
    database.close()
    migrated, new = Store(str(old)), Store(str(tmp_path / "new"))
    try:
        row = migrated.find("images", "old", "image")
        assert (row["id"], row["size"], row["note"], row["pinned"], row["auto"]) == ("ab12", 7, "", 0, "")
        assert list(migrated.chain(row["top"])) == ["ab12"]
        assert migrated.image_layers(migrated.find("images", "newer", "image")) == ["cd34", "ab12"]
        above = migrated.find("images", "above", "image")
        assert (above["top"], migrated.image_layers(above)) == ("ef56", ["ef56", "dd"])
        records = [row["record"] for row in migrated.query("select record from containers order by id")]
        assert records == ['{"first":3,"top":"cd34"}', '{"first":1,"top":null}']
        assert migrated.needed_layers() == {"ab12", "cd34", "ef56", "dd"}
        assert migrated.user_version() == new.user_version() == VERSION
        for table in ("images", "containers"):
            assert columns(migrated, table) == columns(new, table)
    finally:
        migrated.close()
        new.close()


def test_an_index_of_a_newer_nbhull_is_refused(tmp_path: Path) -> None:
    Store(str(tmp_path)).close()
    with sqlite3.connect(tmp_path / "index.db") as database:
        database.execute(f"pragma user_version = {VERSION + 1}")
    database.close()
    with pytest.raises(HullError, match=f"has format {VERSION + 1}"):
        Store(str(tmp_path))
