"""Values of variables as JSON and back. Runs in kernels and, copied there, in the containers of cells: by any Python
from 3.7, and with nothing but its standard library.

Nothing is ever pickled: what comes out of a container is data, and cannot run anything in the kernel.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

TAG = "$hull"
"""the key that marks what JSON has no form for; a dictionary that has it itself is written as pairs"""
ARRAY_KINDS = "biufcMmSU"
"""kinds of numpy's dtypes that are plain bytes"""


class CannotPass(Exception):
    """A value cannot be handed over, or what came is none."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint or "hand over plain data, arrays or data frames, or a file in the notebook's folder"


def dumps(value: Any) -> str:
    """A value as JSON text. Raises CannotPass."""
    try:
        return json.dumps(pack(value))
    except (RecursionError, ValueError) as error:
        raise CannotPass("it holds itself, is nested too deep, or a number is too long") from error


def loads(text: str) -> Any:
    """The inverse of `dumps`. Raises CannotPass for what `dumps` does not write."""
    try:
        return unpack(json.loads(text))
    except CannotPass:
        raise
    except ImportError as error:
        raise CannotPass(f"{error.name} is not there: {error}", "install it where the value goes") from error
    except (RecursionError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise CannotPass(f"what came is not of the right form: {str(error)[:200]}") from error


def pack(value: Any) -> Any:
    """A value as what JSON can carry."""
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", "text": repr(value)}
    if kind is list:
        return [pack(item) for item in value]
    if kind is dict:
        if TAG not in value and all(type(key) is str for key in value):
            return {key: pack(item) for key, item in value.items()}
        return {TAG: "dict", "items": [[pack(key), pack(item)] for key, item in value.items()]}
    if kind in (tuple, set, frozenset):
        return {TAG: kind.__name__, "items": [pack(item) for item in value]}
    if kind in (bytes, bytearray):
        return {TAG: kind.__name__, "data": base64.b64encode(value).decode()}
    if kind is complex:
        return {TAG: "complex", "parts": [pack(value.real), pack(value.imag)]}
    module = kind.__module__.split(".")[0]
    if module == "datetime" and kind.__name__ in ("date", "datetime") and getattr(value, "tzinfo", None) is None:
        return {TAG: kind.__name__, "text": value.isoformat()}
    if module == "datetime" and kind.__name__ == "timedelta":
        return {TAG: "timedelta", "parts": [value.days, value.seconds, value.microseconds]}
    if module == "numpy":
        return pack_numpy(value)
    if module == "pandas" and kind.__name__ in ("DataFrame", "Series"):
        return pack_frame(value) if kind.__name__ == "DataFrame" else pack_series(value)
    raise CannotPass(f"a {kind.__qualname__} cannot be handed to another container")


def pack_numpy(value: Any) -> Any:
    """An array or a number of numpy's."""
    import numpy

    if not isinstance(value, (numpy.ndarray, numpy.generic)) or value.dtype.kind not in ARRAY_KINDS:
        raise CannotPass(f"a {type(value).__name__} of numpy's that holds Python objects cannot be handed over")
    array = numpy.asarray(value)
    data = base64.b64encode(array.tobytes()).decode()
    packed = {TAG: "array", "dtype": array.dtype.str, "shape": list(array.shape), "data": data}
    return packed if isinstance(value, numpy.ndarray) else {TAG: "scalar", "array": packed}


def pack_column(values: Any) -> Any:
    """The values of one column or index, with its dtype."""
    dtype = values.dtype
    if getattr(dtype, "kind", "O") in ARRAY_KINDS and str(dtype).startswith(
        ("int", "uint", "float", "bool", "complex", "datetime64[", "timedelta64[")
    ) and "," not in str(dtype):
        return pack_numpy(values.to_numpy())
    if str(dtype) in ("object", "string", "str"):
        missing = values.isna()
        items = [None if gone else pack(item) for item, gone in zip(values, missing)]  # noqa: B905 (3.10)
        return {TAG: "objects", "dtype": str(dtype), "items": items}
    raise CannotPass(f"its column {values.name!r} has the type {dtype}", "convert it, as with .astype(str)")


def pack_index(index: Any) -> Any:
    """An index of pandas's."""
    import pandas

    if isinstance(index, pandas.MultiIndex):
        raise CannotPass("its index has several levels", "call .reset_index() first")
    if isinstance(index, pandas.RangeIndex):
        return {TAG: "range", "parts": [index.start, index.stop, index.step], "name": pack(index.name)}
    return {TAG: "index", "values": pack_column(index), "name": pack(index.name)}


def pack_series(series: Any) -> Any:
    return {TAG: "series", "values": pack_column(series), "index": pack_index(series.index), "name": pack(series.name)}


def pack_frame(frame: Any) -> Any:
    columns = [pack_column(frame.iloc[:, number]) for number in range(frame.shape[1])]
    return {TAG: "frame", "columns": pack_index(frame.columns), "index": pack_index(frame.index), "data": columns}


def unpack(data: Any) -> Any:
    """A value from what JSON carried."""
    if isinstance(data, list):
        return [unpack(item) for item in data]
    if not isinstance(data, dict):
        return data
    if TAG not in data:
        return {key: unpack(item) for key, item in data.items()}
    reader: Any = READERS.get(data[TAG]) if isinstance(data[TAG], str) else None
    if reader is None:
        raise CannotPass(f"what came is of a kind that is not known: {str(data[TAG])[:80]}")
    return reader(data)


def unpack_date(data: Any) -> Any:
    import datetime

    return getattr(datetime, data[TAG]).fromisoformat(data["text"])


def unpack_timedelta(data: Any) -> Any:
    import datetime

    return datetime.timedelta(*(int(part) for part in data["parts"]))


def unpack_array(data: Any) -> Any:
    import numpy

    dtype = numpy.dtype(str(data["dtype"]))
    if dtype.kind not in ARRAY_KINDS:
        raise CannotPass("what came is an array of objects")
    array = numpy.frombuffer(base64.b64decode(data["data"]), dtype=dtype)
    return array.reshape([int(length) for length in data["shape"]]).copy()


def unpack_objects(data: Any) -> Any:
    import pandas

    items = unpack(data["items"])
    dtype = data.get("dtype")
    if dtype is None:
        return pandas.Series(items)
    series = pandas.Series(items, dtype="object")
    # the dtype of text is called `str` by pandas 3, and `object` before
    return series if dtype == "object" or (dtype == "str" and pandas.__version__ < "3") else series.astype(dtype)


def unpack_range(data: Any) -> Any:
    import pandas

    return pandas.RangeIndex(*(int(part) for part in data["parts"]), name=unpack(data["name"]))


def unpack_index(data: Any) -> Any:
    import pandas

    return pandas.Index(unpack(data["values"]), name=unpack(data["name"]))


def unpack_series(data: Any) -> Any:
    import pandas

    values = unpack(data["values"])
    return pandas.Series(getattr(values, "array", values), index=unpack(data["index"]), name=unpack(data["name"]))


def unpack_frame(data: Any) -> Any:
    import pandas

    index = unpack(data["index"])
    columns = [unpack(column) for column in data["data"]]
    series = {n: pandas.Series(getattr(c, "array", c), index=index) for n, c in enumerate(columns)}
    frame = pandas.DataFrame(series, index=index)
    frame.columns = unpack(data["columns"])
    return frame


READERS: dict[str, Any] = {
    "float": lambda data: float(data["text"]),
    "dict": lambda data: {unpack(key): unpack(item) for key, item in data["items"]},
    "tuple": lambda data: tuple(unpack(data["items"])),
    "set": lambda data: set(unpack(data["items"])),
    "frozenset": lambda data: frozenset(unpack(data["items"])),
    "bytes": lambda data: base64.b64decode(data["data"]),
    "bytearray": lambda data: bytearray(base64.b64decode(data["data"])),
    "complex": lambda data: complex(*unpack(data["parts"])),
    "date": unpack_date,
    "datetime": unpack_date,
    "timedelta": unpack_timedelta,
    "array": unpack_array,
    "scalar": lambda data: unpack_array(data["array"])[()],
    "objects": unpack_objects,
    "range": unpack_range,
    "index": unpack_index,
    "series": unpack_series,
    "frame": unpack_frame,
}
