"""Users and groups of an image, whose files are hostile."""

from __future__ import annotations

import pytest

from nbhull.runtime.accounts import Account, resolve
from nbhull.runtime.errors import InvalidInput, NotFound

PASSWD = """root:x:0:0:root:/root:/bin/sh
ann:x:1000:100:Ann:/home/ann:/bin/sh
1000:x:0:0:a number as a name:/:/bin/sh
bob:x:1001:100:Bob:relative:/bin/sh
wrap:x:4294967296:0::/:/bin/sh
minus:x:-1:0::/:/bin/sh
short:x:5
"""
GROUP = """root:x:0:
users:x:100:
video:x:44:ann,bob
audio:x:29:bob,ann
1000:x:0:
large:x:70000:
"""


def read(path: str) -> str:
    return {"/etc/passwd": PASSWD, "/etc/group": GROUP}[path]


def nothing(path: str) -> str:
    return ""


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("root", Account(0, 0, (), "/root")),
        ("0", Account(0, 0, (), "/root")),
        ("ann", Account(1000, 100, (44, 29), "/home/ann")),
        ("1000", Account(1000, 100, (44, 29), "/home/ann")),
        ("ann:video", Account(1000, 44, (), "/home/ann")),
        ("ann:1000", Account(1000, 1000, (), "/home/ann")),
        ("bob", Account(1001, 100, (44, 29), "/")),
        ("1234", Account(1234, 0, (), "/")),
        ("1234:5", Account(1234, 5, (), "/")),
        ("00", Account(0, 0, (), "/")),
    ],
)
def test_users_are_found_as_docker_finds_them(user: str, account: Account) -> None:
    """A number is a number, whatever a line may be called."""
    assert resolve(read, user) == account


def test_added_groups_come_beside_the_users_own() -> None:
    assert resolve(read, "ann", ["users", "7", "video"]).groups == (44, 29, 100, 7)
    assert resolve(read, "0", ["video"]) == Account(0, 0, (44,), "/root")


@pytest.mark.parametrize("user", ["65535", "4294967295", "4294967296", "9" * 20, "wrap", "0:70000", "0:large"])
def test_ids_that_no_process_has_are_refused(user: str) -> None:
    with pytest.raises(InvalidInput, match="too large"):
        resolve(read, user)


@pytest.mark.parametrize(
    "user", ["minus", "0:-1", "-1", "nobody-such", "short", "ann:none", "٣", "0x1", "1e3", "+1", " 1"]
)
def test_what_is_no_user_is_refused(user: str) -> None:
    with pytest.raises((NotFound, InvalidInput), match=r"no (user|group)|which is no number"):
        resolve(read, user)


def test_an_image_without_the_files_has_numbers() -> None:
    assert resolve(nothing, "12:34", ["56"]) == Account(12, 34, (56,), "/")
    with pytest.raises(NotFound):
        resolve(nothing, "ann")
