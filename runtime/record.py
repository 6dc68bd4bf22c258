"""Immutable records without the module dataclasses, whose import takes longer than a container's start."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_options: object):  # typing's, for type checkers alone
        return lambda cls: cls


@dataclass_transform(frozen_default=True)
class Record:
    """A class whose annotated names are its fields, given by position or by name.

    Defaults are shared, so they must be values that nobody changes."""

    _fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        cls._fields = tuple(cls.__dict__.get("__annotations__", ()))  # noqa: RUF063  # inspect is slow to import

    def __init__(self, *values: Any, **named: Any) -> None:
        given = dict(zip(self._fields, values, strict=False))
        if len(values) > len(self._fields) or given.keys() & named.keys() or named.keys() - set(self._fields):
            raise TypeError(f"{type(self).__name__} takes {', '.join(self._fields)}, each once")
        given |= named
        for name in self._fields:
            if name not in given and not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} needs {name}")
        self.__dict__.update(given)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self._fields)})"

    def but(self, **changes: Any) -> Self:
        """The same with other values for the fields that are named."""
        return type(self)(**{name: getattr(self, name) for name in self._fields} | changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain data, records within too."""
        return {name: plain(getattr(self, name)) for name in self._fields}


def plain(value: Any) -> Any:
    """Records as dictionaries, tuples as lists of such."""
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value
