"""What verbs give back: data first, and plain text for people. The magics make HTML from the same data."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from nbhull.runtime.errors import HullError
    from nbhull.runtime.model import Container, Image, Usage


class Result:
    """The outcome of a verb."""

    status: int = 0
    """exit status of the command line"""
    failures: Sequence[HullError] = ()
    """what could not be done, where other things were"""
    notices: Sequence[str] = ()
    """sentences for people about how it was done"""

    def text(self) -> str:
        """For people, without a line end; empty prints nothing."""
        return ""

    def data(self) -> Any:
        """Plain data that JSON can carry."""
        return None


class Exit(Result):
    """A command ran in the foreground and ended."""

    def __init__(self, status: int, said: Sequence[HullError] = ()) -> None:
        """`said`: what the command's user should know beside what it printed."""
        self.status = status
        self.failures = said


class Text(Result):
    """Text for people alone."""

    def __init__(self, text: str) -> None:
        self._text = text

    def text(self) -> str:
        return self._text

    def data(self) -> str:
        return self._text


class Document(Result):
    """Data for programs, shown as JSON to people too."""

    def __init__(self, document: Any) -> None:
        self.document = document

    def text(self) -> str:
        import json

        return json.dumps(self.document, indent=2)

    def data(self) -> Any:
        return self.document


class Names(Result):
    """The names of what was made, changed or removed; one a line."""

    def __init__(
        self, names: Sequence[str], failures: Sequence[HullError] = (), notices: Sequence[str] = ()
    ) -> None:
        self.names = list(names)
        self.failures = list(failures)
        self.notices = list(notices)
        self.status = 1 if self.failures else 0

    def text(self) -> str:
        return "\n".join(self.names)

    def data(self) -> list[str]:
        return self.names


class Table(Result):
    """Rows under headings."""

    def __init__(
        self, columns: Sequence[str], rows: Sequence[Sequence[str]], items: Sequence[dict[str, Any]]
    ) -> None:
        self.columns = list(columns)
        self.rows = [list(row) for row in rows]
        """what is shown, a text for each column"""
        self.items = list(items)
        """the same, as data and in full"""

    def text(self) -> str:
        lines = [[column.upper() for column in self.columns], *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join(
            "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )

    def data(self) -> list[dict[str, Any]]:
        return self.items


class Fields(Result):
    """Named values of one thing."""

    def __init__(self, fields: Sequence[tuple[str, str]], item: dict[str, Any]) -> None:
        self.fields = list(fields)
        self.item = item

    def text(self) -> str:
        width = max(len(name) for name, _ in self.fields)
        return "\n".join(f"{name.ljust(width)}   {value}".rstrip() for name, value in self.fields)

    def data(self) -> dict[str, Any]:
        return self.item


def short_id(identity: str) -> str:
    """The first 12 characters of an id, the digest's algorithm left out, as Docker shows it."""
    return identity.rpartition(":")[2][:12]


def human_size(size: int) -> str:
    """Bytes for people: `0 B`, `1.5 KiB`, `23 MiB`."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1023.5 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.1f} {unit}" if unit != "B" and amount < 9.95 else f"{amount:.0f} {unit}"


def human_age(seconds: float) -> str:
    """A span of time for people: `12 seconds`, `1 minute`, `3 days`."""
    left = max(0, int(seconds))
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if left >= length or unit == "second":
            break
    count = left // length
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def snapshot_taken(image: Image) -> Names:
    """What names a new snapshot; and why it took long, if it did."""
    notices = [f"the files had to be copied: {image.reason}"] if image.reason else []
    return Names([image.name or short_id(image.id)], notices=notices)


def container_data(container: Container) -> dict[str, Any]:
    """A container as plain data."""
    limits = container.spec.limits
    return {
        "id": container.id,
        "name": container.name,
        "image": container.image,
        "state": container.state,
        "created": container.created,
        "snapshot": container.snapshot,
        "hostname": container.spec.hostname,
        "network": container.spec.network,
        "memory": limits.memory,
        "cpus": limits.cpus,
        "pids": limits.pids,
        "mounts": [
            {"source": m.source, "target": m.target, "read_only": m.read_only} for m in container.spec.mounts
        ],
        "labels": dict(container.spec.labels),
        "ended": container.end and container.end.when,
        "status": container.end and container.end.status,
        "reason": container.end and container.end.reason,
    }


def state_of(container: Container, now: float) -> str:
    """`running`, or `stopped 3 minutes ago (out of memory, SIGKILL)`."""
    end = container.end
    if end is None:
        return container.state
    return f"{container.state} {human_age(now - end.when)} ago" + (f" ({end.short})" if end.short else "")


def container_table(containers: Sequence[Container], now: float) -> Table:
    """Containers as `ps` lists them; `now` is seconds since the epoch."""
    rows = [
        (short_id(c.id), c.image, f"{human_age(now - c.created)} ago", state_of(c, now), c.name) for c in containers
    ]
    return Table(
        ("container id", "image", "created", "state", "name"), rows, [container_data(c) for c in containers]
    )


def image_data(image: Image) -> dict[str, Any]:
    """An image as plain data."""
    return {
        "id": image.id,
        "name": image.name,
        "parent": image.parent,
        "created": image.created,
        "size": image.size,
    }


def image_table(images: Sequence[Image], now: float) -> Table:
    """Images as `images` lists them; `now` is seconds since the epoch."""
    names = {image.id: image.name or short_id(image.id) for image in images}
    rows = [
        (
            image.name or "-",
            short_id(image.id),
            names.get(image.parent, short_id(image.parent)) if image.parent else "-",
            f"{human_age(now - image.created)} ago" if image.created else "-",
            "-" if image.size is None else human_size(image.size),
        )
        for image in images
    ]
    return Table(("image", "image id", "parent", "created", "size"), rows, [image_data(i) for i in images])


def container_fields(container: Container, usage: Usage, now: float) -> Fields:
    """One container with what it uses now, as `info` shows it."""
    spec = container.spec

    def of(used: str | None, limit: str | None) -> str:
        return f"{used or 'unknown'} of {limit}" if limit else f"{used or 'unknown'}, no limit"

    memory_limit = spec.limits.memory or usage.memory_limit
    pids_limit = spec.limits.pids or usage.pids_limit
    fields = [
        (
            "container",
            f"{container.name} ({short_id(container.id)})" if container.name else short_id(container.id),
        ),
        ("image", container.image),
        ("snapshot", short_id(container.snapshot) if container.snapshot else "-"),
        ("state", f"{container.state}, made {human_age(now - container.created)} ago"),
        (
            "memory",
            of(
                None if usage.memory is None else human_size(usage.memory),
                (memory_limit and human_size(memory_limit)) or None,
            ),
        ),
        (
            "processes",
            of(None if usage.pids is None else str(usage.pids), (pids_limit and str(pids_limit)) or None),
        ),
        ("cpus", f"{spec.limits.cpus:g}" if spec.limits.cpus else "no limit"),
        ("network", spec.network or "nat, where it can be had"),
    ]
    if usage.disk is not None:
        means = f"by the file system's project {usage.disk_project}" if usage.disk_project else "measured"
        limit = human_size(usage.disk_limit) if usage.disk_limit else f"{spec.limits.inodes} files"
        used = human_size(usage.disk) if usage.disk_limit else f"{usage.inodes} files"
        fields.append(("disk quota", f"{used} of {limit}, {means}"))
    fields += [("mount", m.target + (" (read-only)" if m.read_only else "")) for m in spec.mounts]
    item = container_data(container) | {
        "usage": {
            "memory": usage.memory,
            "memory_limit": usage.memory_limit,
            "pids": usage.pids,
            "pids_limit": usage.pids_limit,
            "cpu_seconds": usage.cpu_seconds,
            "oom_kills": usage.oom_kills,
            "disk": usage.disk,
            "disk_limit": usage.disk_limit,
            "disk_project": usage.disk_project,
            "inodes": usage.inodes,
        }
    }
    return Fields(fields, item)
