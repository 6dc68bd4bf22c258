"""Parts of standard modules without the rest of them, for what is imported before a container starts.

`signal`, `socket`, `threading`, `ctypes`, `json` and `sqlite3` draw in enumerations, regular expressions and more:
up to 6 ms each, where a whole container takes little more. What is used of them lies in the C modules below them.
"""

from __future__ import annotations

import _collections_abc
import _json
import _thread
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _ctypes
    import signal
    import socket
    import sqlite3
    from ctypes import c_int, c_long, c_ulong, get_errno
    from typing import Any, Self
else:
    import _ctypes
    import _signal as signal
    import _socket as socket
    from _ctypes import get_errno

    class c_int(_ctypes._SimpleCData):
        """As in ctypes."""

        _type_ = "i"

    class c_long(_ctypes._SimpleCData):
        """As in ctypes."""

        _type_ = "l"

    class c_ulong(_ctypes._SimpleCData):
        """As in ctypes."""

        _type_ = "L"

    def __getattr__(name: str) -> Any:
        """sqlite3, when it is asked for."""
        if name != "sqlite3":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return _import_sqlite()


class StandIn:
    """While entered, what a C module finds in a module's place that it imports for little: unless that one is there
    already. Later imports get the whole module."""

    def __init__(self, name: str, module: object) -> None:
        self.name = name
        self.module = module
        self.is_needed = name not in sys.modules

    def __enter__(self) -> None:
        if self.is_needed:
            sys.modules[self.name] = self.module  # type: ignore[assignment]

    def __exit__(self, *exception: object) -> None:
        if self.is_needed:
            del sys.modules[self.name]


# array registers its type in collections.abc, which is this module; the package above it takes 2 ms.
with StandIn("collections", _collections_abc), StandIn("collections.abc", _collections_abc):
    import array

__all__ = ["Lock", "RLock", "Socket", "array", "c_int", "c_long", "c_ulong", "get_errno", "signal", "socket", "sqlite3"]

Lock, RLock = _thread.allocate_lock, _thread.RLock


def other_threads() -> int:
    """How many threads run beside the main one."""
    return _thread._count()


class Socket(socket.socket):
    """As socket.socket, as far as it is used here."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def accepted(self) -> Socket:
        """The next connection."""
        return Socket(fileno=self._accept()[0])  # type: ignore[attr-defined]

    @staticmethod
    def pair(family: int, kind: int) -> tuple[Socket, Socket]:
        """socketpair(2)."""
        one, other = socket.socketpair(family, kind)
        return Socket(fileno=one.detach()), Socket(fileno=other.detach())


class Library:
    """The C library, and the interpreter's own functions: as ctypes.PyDLL(None, use_errno=True), whose functions
    return int. The interpreter lock stays held, which a raw clone needs and quick calls do not mind."""

    def __init__(self) -> None:
        self._handle: int = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]

        class Function(_ctypes.CFuncPtr):
            _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI | _ctypes.FUNCFLAG_USE_ERRNO
            _restype_ = c_int

        self._function = Function

    def __getattr__(self, name: str) -> Any:
        function = self._function((name, self))  # type: ignore[arg-type]
        setattr(self, name, function)
        return function


class Buffer:
    """Memory for a system call to read or write, at `address`."""

    def __init__(self, content: bytes) -> None:
        self._array = array.array("B", content)
        self.address = c_ulong(self._array.buffer_info()[0])

    @property
    def raw(self) -> bytes:
        """What is in it."""
        return self._array.tobytes()


def _import_sqlite() -> Any:
    """The C module of sqlite3; of functools, which takes 4 ms, it uses lru_cache."""
    from _functools import _lru_cache_wrapper  # type: ignore[import-not-found]

    functools = type(sys)("functools")
    functools.lru_cache = lambda size: lambda function: _lru_cache_wrapper(function, size, False, tuple)  # type: ignore[attr-defined]
    with StandIn("functools", functools):
        import _sqlite3
    return _sqlite3


class _Decoding:
    """The settings of json.loads."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float


def dumps(value: Any) -> str:
    """json.dumps."""
    encode = _json.make_encoder(None, _refuse, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    return "".join(encode(value, 0))


def loads(text: str) -> Any:
    """json.loads of what `dumps` has written."""
    return _json.make_scanner(_Decoding)(text, 0)[0]  # type: ignore[arg-type]


def _refuse(value: object) -> None:
    raise TypeError(f"{type(value).__name__} is not plain data")
