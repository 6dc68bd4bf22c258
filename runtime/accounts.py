"""Users and groups as a container's own /etc/passwd and /etc/group name them (passwd(5), group(5)).

The files are hostile: a number is always an id, whatever a line of the image may be called, and nothing
beyond the ids of a container can be named.
"""

from __future__ import annotations

from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Read = Callable[[str], str]

LAST_ID = 65534
"""the largest id that a process may have; 65535 is (uid_t)-1 in 16 bits"""


class Account(Record):
    """Who a process is."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    """supplementary ones"""
    home: str = "/"


ROOT = Account(0, 0, (), "/root")


def resolve(read: Read, user: str, extra_groups: Sequence[str] = ()) -> Account:
    """The account of `user[:group]`, each by name or number, with the supplementary groups that the image gives
    to a user who is named without a group (as Docker does), and `extra_groups`.

    `read` gives the text of a file of the container, empty if there is none. Raises NotFound, InvalidInput."""
    owner, _, group = user.partition(":")
    if owner in ("0", "root") and not group and not extra_groups:
        return ROOT
    fields = find(read("/etc/passwd"), owner, "user", 7)
    if fields is None:
        uid, gid, home, name = number(owner), 0, "/root" if owner == "0" else "/", ""
    else:
        uid, gid = id_in(fields, 2, "passwd"), id_in(fields, 3, "passwd")
        name, home = fields[0], fields[5] if fields[5].startswith("/") else "/"
    groups: list[int] = []
    text = read("/etc/group") if group or name or extra_groups else ""
    if group:
        gid = group_id(text, group)
    elif name:
        for line in text.splitlines():
            parts = line.split(":")
            if len(parts) >= 4 and name in parts[3].split(","):
                groups.append(id_in(parts, 2, "group"))
    groups += [group_id(text, extra) for extra in extra_groups]
    return Account(uid, gid, tuple(dict.fromkeys(groups)), home)


def group_id(text: str, group: str) -> int:
    """The id of a group by name or number."""
    fields = find(text, group, "group", 3)
    return number(group) if fields is None else id_in(fields, 2, "group")


def find(text: str, name: str, what: str, length: int) -> list[str] | None:
    """The fields of the first line of that name, or of that number if it is one; None for a number without a line."""
    column = 2 if name.isascii() and name.isdigit() else 0
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= length and fields[column] == name:
            return fields
    if column == 2:
        return None
    raise NotFound(
        f"there is no {what} {name[:80]!r} in the container",
        f"give a number from 0 to {LAST_ID}, or a {what} of the image",
    )


def number(text: str) -> int:
    """An id. Raises InvalidInput for one that no process can have."""
    if len(text) > 5 or int(text) > LAST_ID:
        raise InvalidInput(f"the id {text[:80]} is too large", f"give a number from 0 to {LAST_ID}")
    return int(text)


def id_in(fields: list[str], column: int, file: str) -> int:
    """An id in a line of the image's."""
    text = fields[column]
    if not (text.isascii() and text.isdigit()):
        raise InvalidInput(
            f"the image's /etc/{file} gives {fields[0][:80]!r} the id {text[:80]!r}, which is no number",
            "give the user as a number",
        )
    return number(text)
