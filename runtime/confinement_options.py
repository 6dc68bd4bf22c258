"""From what a user writes to the settings of `Confinement`: Docker's option forms.

For the command line and kernelspecs alike. Every function raises InvalidInput with what it wanted instead.
"""

from __future__ import annotations

import os
import re

from nbhull.runtime.confinement import ALL, UNCONFINED, Confinement, Device, Tmpfs, Ulimit
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.linux.mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY
from nbhull.runtime.linux.process import CAPABILITIES, RLIMITS
from nbhull.runtime.model import parse_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LARGEST_PROFILE = 1 << 20
"""bytes"""
TMPFS_OPTIONS = {"size": "64m or 50%", "mode": "1777", "uid": "1000", "gid": "1000", "nr_inodes": "10k"}
TMPFS_FLAGS = {"ro": MOUNT_ATTR_RDONLY, "noexec": MOUNT_ATTR_NOEXEC}
"""what is set and, with `rw` and `exec`, cleared again"""


def parse_capability(text: Any) -> str:
    """A capability's name without CAP_, or ALL; written in any case, with or without it."""
    name = str(text).upper().removeprefix("CAP_")
    if name != ALL and name not in CAPABILITIES:
        from difflib import get_close_matches

        near = get_close_matches(name, CAPABILITIES, n=1)
        raise InvalidInput(
            f"{str(text)[:80]!r} is no capability",
            f"did you mean {near[0]}?" if near else "see capabilities(7), or ALL",
        )
    return name


def parse_security_opt(text: Any) -> tuple[str, Any]:
    """A field of `Confinement` and its value, from `seccomp=FILE|unconfined`, `no-new-privileges[=BOOL]` or
    `systempaths=unconfined`."""
    match = re.fullmatch(r"([a-z-]*)(?:[=:](.*))?", str(text), re.DOTALL)
    key, value = (match[1], match[2] or "") if match else ("", "")
    if key == "seccomp" and value:
        return "seccomp", value if value == UNCONFINED else read_profile(value)
    if key == "no-new-privileges" and value in ("", "true", "false"):
        return "no_new_privileges", value != "false"
    if key == "systempaths" and value == UNCONFINED:
        return "system_paths", False
    raise InvalidInput(
        f"{str(text)[:80]!r} is no security option that is known",
        "one of: seccomp=PROFILE.json, seccomp=unconfined, no-new-privileges=false, systempaths=unconfined",
    )


def read_profile(path: str) -> str:
    """The text of a seccomp profile, which must be JSON of the right form."""
    from nbhull.runtime.seccomp import compiled

    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_PROFILE + 1)
    except OSError as error:
        raise InvalidInput(
            f"the seccomp profile {path!r} cannot be read: {error.strerror}", "give the path of a file, or unconfined"
        ) from error
    if len(data) > LARGEST_PROFILE:
        raise InvalidInput(f"the seccomp profile {path!r} is larger than {LARGEST_PROFILE} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"the seccomp profile {path!r} is no text", "give a profile in Docker's JSON format"
        ) from error
    compiled(text, frozenset(CAPABILITIES))
    return text


def parse_tmpfs(text: Any) -> Tmpfs:
    """`PATH[:OPTION,…]`, with tmpfs(5)'s options; never with devices or set-user-id programs, and without
    programs unless `exec` is said, as with Docker."""
    target, _, rest = str(text).partition(":")
    target = parse_target(target, "tmpfs")
    flags, options = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, {"mode": "1777"}
    for option in filter(None, rest.split(",")):
        key, equals, value = option.partition("=")
        if key in TMPFS_FLAGS and not equals:
            flags |= TMPFS_FLAGS[key]
        elif key in ("rw", "exec") and not equals:
            flags &= ~TMPFS_FLAGS[{"rw": "ro", "exec": "noexec"}[key]]
        elif key in ("nosuid", "nodev") and not equals:
            pass  # it always is
        elif key in TMPFS_OPTIONS:
            options[key] = tmpfs_value(key, value)
        else:
            raise InvalidInput(
                f"tmpfs option {option[:80]!r} is not known",
                f"one of: ro, rw, exec, noexec, nosuid, nodev, {', '.join(f'{k}=…' for k in TMPFS_OPTIONS)}",
            )
    return Tmpfs(target, tuple(f"{key}={value}" for key, value in options.items()), flags)


def tmpfs_value(key: str, value: str) -> str:
    """One of tmpfs's options with a value, as the kernel takes it."""
    if key == "size" and not re.fullmatch(r"\d{1,3}%", value):
        return str(parse_bytes(value, "tmpfs size"))
    if not re.fullmatch({"mode": "[0-7]{1,4}", "nr_inodes": r"\d{1,12}[kKmMgG]?"}.get(key, r"\d{1,5}%?"), value):
        raise InvalidInput(f"tmpfs {key} {value[:80]!r} is not valid", f"write it like {key}={TMPFS_OPTIONS[key]}")
    return value


def parse_target(text: str, what: str) -> str:
    """An absolute path without `.` and `..`."""
    path = text.rstrip("/")
    if not path.startswith("/") or os.path.normpath(path) != path or "\0" in path or path.startswith("//"):
        raise InvalidInput(f"{what} target {text[:80]!r} is not a plain absolute path", "write it like /scratch")
    return path


def parse_device(text: Any) -> Device:
    """`SOURCE[:TARGET][:rwm]`. Device nodes cannot be made in a user namespace, so `m` gives nothing."""
    source, *rest = str(text).split(":")
    access = "rwm"
    if rest and not rest[-1].startswith("/"):
        access = rest.pop()
    if len(rest) > 1 or not access or not set(access) <= set("rwm") or set(access) == {"m"}:
        raise InvalidInput(
            f"device {str(text)[:80]!r} is not of the form SOURCE[:TARGET][:rwm]",
            "write it like /dev/fuse or /dev/a:/dev/b:r",
        )
    source = parse_target(source, "device")
    target = parse_target(rest[0], "device") if rest else source
    if not target.startswith("/dev/"):
        raise InvalidInput(f"device target {target!r} is not in /dev", "write it like /dev/fuse")
    return Device(source, target, "".join(letter for letter in "rw" if letter in access))


def parse_ulimit(text: Any) -> Ulimit:
    """`NAME=SOFT[:HARD]`; -1 is no limit."""
    name, _, rest = str(text).partition("=")
    soft, colon, hard = rest.partition(":")
    form = "write it like nofile=1024:4096; -1 is no limit"
    if name not in RLIMITS:
        raise InvalidInput(f"there is no resource limit {name[:80]!r}", "one of: " + ", ".join(sorted(RLIMITS)))
    numbers = [soft, hard if colon else soft]
    if not all(re.fullmatch(r"-1|unlimited|\d{1,18}", number) for number in numbers):
        raise InvalidInput(f"resource limit {str(text)[:80]!r} is not of the form NAME=SOFT[:HARD]", form)
    low, high = (-1 if number == "unlimited" else int(number) for number in numbers)
    if high != -1 and (low == -1 or low > high):
        raise InvalidInput(f"the soft limit of {name} is above the hard one", form)
    return Ulimit(name, low, high)


def parse_group(text: Any) -> str:
    """A group by name or number; what it means is looked up in the container."""
    if isinstance(text, bool) or not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}", str(text)):
        raise InvalidInput(f"group {str(text)[:80]!r} is not valid", "write it like 100, users or keep-groups")
    return str(text)


def parse_gpus(text: Any) -> str:
    """`all`, a count, or `device=0,1`."""
    value = str(text).strip('"')
    if not re.fullmatch(r"all|[1-9]\d?|device=\d{1,2}(,\d{1,2})*", value):
        raise InvalidInput(f"gpus {value[:80]!r} is not valid", "write it like all, 1 or device=0,1")
    return value


def from_options(values: dict[str, Any]) -> Confinement:
    """The settings from parsed options by their names, `security_opt` as pairs of field and value."""
    settings: dict[str, Any] = dict(values.get("security_opt") or ())
    renamed = {"device": "devices", "ulimit": "ulimits", "group_add": "groups"}
    plain = ("cap_add", "cap_drop", "privileged", "read_only", "tmpfs", "gpus", "user", *renamed)
    for name in plain:
        if values.get(name):
            settings[renamed.get(name, name)] = values[name]
    return Confinement(**settings)
