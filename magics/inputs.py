"""What a cell is run by, and how variables travel with it: for Python, R, shells, and any other interpreter.

Values go in and come out as JSON (`kernel.cells.inside.values`), in files that only the container sees, never on a
command line. A variable that the cell has not changed stays as it is in the notebook, the very same object.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nbhull.kernel.cells import inside
from nbhull.kernel.cells.inside import values
from nbhull.kernel.cells.running import FOLDER, OUT, SHELL
from nbhull.runtime.errors import InvalidInput

LONGEST_VARIABLE = 100_000
"""bytes of a variable of the environment: Linux takes no longer ones (MAX_ARG_STRLEN)"""
CELL = "cell"
REFUSED = ".refused"
"""behind a variable's name: the file that tells why it is not handed back"""


def refused(name: str, error: values.CannotPass, way: str) -> InvalidInput:
    """The error for a variable that cannot travel."""
    return InvalidInput(f"the variable {name} cannot be handed {way}: {error.reason}", error.hint)


def packed(variables: Mapping[str, Any]) -> dict[str, str]:
    """Variables as JSON. Raises InvalidInput, naming the one that cannot be handed over."""
    texts = {}
    for name, value in variables.items():
        try:
            texts[name] = values.dumps(value)
        except values.CannotPass as error:
            raise refused(name, error, "in") from error
    return texts


def script(name: str) -> str:
    """A file that runs cells in containers."""
    return Path(inside.__path__[0], name).read_text()


class Python:
    """Any Python from 3.7."""

    command: tuple[str, ...] = ("python3", "-u", f"{FOLDER}/run.py", FOLDER)

    def __init__(self, names: tuple[str, ...], variables: Mapping[str, Any]) -> None:
        """`variables`: those of `names` that the notebook has. Raises InvalidInput."""
        self.names = names
        self.given = packed(variables)

    def env(self) -> dict[str, str]:
        """Variables of the environment for it."""
        return {}

    def files(self) -> dict[str, str]:
        """What it is given beside the cell."""
        return {
            "run.py": script("run.py"),
            "values.py": script("values.py"),
            "given.json": json.dumps(self.given),
            "names.json": json.dumps(self.names),
        }

    def read(self, name: str, text: str) -> Any:
        """The value that it handed back. Raises InvalidInput."""
        try:
            return values.loads(text)
        except values.CannotPass as error:
            raise refused(name, error, "back") from error


class R(Python):
    """R without any package."""

    command = ("Rscript", "--vanilla", f"{FOLDER}/run.R", FOLDER)

    def files(self) -> dict[str, str]:
        """What it is given beside the cell."""
        lines = []
        for name, text in self.given.items():
            try:
                lines.append(f"{name} <- {r_code(json.loads(text))}\n")
            except values.CannotPass as error:
                raise refused(name, error, "to R") from error
        names = "".join(f"{name}\n" for name in self.names)
        return {"run.R": script("run.R"), "given.R": "".join(lines), "names": names}


class Shell(Python):
    """A POSIX shell. A text is the variable's value as it is, all else its JSON; what comes back is text."""

    command: tuple[str, ...] = (SHELL, f"{FOLDER}/run.sh", FOLDER)

    def __init__(self, names: tuple[str, ...], variables: Mapping[str, Any]) -> None:
        self.names = names
        texts = packed({name: value for name, value in variables.items() if not isinstance(value, str)})
        self.given = {name: texts.get(name, value) for name, value in variables.items()}
        for name, text in self.given.items():
            if "\0" in text:
                raise InvalidInput(f"the variable {name} has a NUL character, which no shell takes", "take it out")

    def files(self) -> dict[str, str]:
        """What it is given beside the cell."""
        given = []
        for name, text in self.given.items():
            given.append(f"{name}={shlex.quote(text)}\n")
            if len(text.encode(errors="surrogatepass")) < LONGEST_VARIABLE:
                given.append(f"export {name}\n")
        names = "".join(f"{name}\n" for name in self.names)
        return {"run.sh": script("run.sh"), "given.sh": "".join(given), "names": names}

    def read(self, name: str, text: str) -> Any:
        """The text that it handed back."""
        return text


class Other(Shell):
    """Any interpreter that takes a file: variables are the environment's, and come back as JSON in $NBHULL_OUT/NAME."""

    def __init__(self, interpreter: str, names: tuple[str, ...], variables: Mapping[str, Any]) -> None:
        super().__init__(names, variables)
        try:
            words = shlex.split(interpreter)
        except ValueError as error:
            raise InvalidInput(f"--interpreter cannot be read: {str(error).lower()}", "close the quotation") from error
        if not words:
            raise InvalidInput("--interpreter is empty", "write it like --interpreter 'perl -w'")
        self.command = (*words, f"{FOLDER}/{CELL}")
        for name, text in self.given.items():
            if len(text.encode(errors="surrogatepass")) >= LONGEST_VARIABLE:
                raise InvalidInput(
                    f"the variable {name} is too long for the environment",
                    "write it to a file in the notebook's folder",
                )

    def env(self) -> dict[str, str]:
        """Variables of the environment for it."""
        return {**self.given, "NBHULL_OUT": f"{FOLDER}/{OUT}"}

    def files(self) -> dict[str, str]:
        """What it is given beside the cell."""
        return {}

    def read(self, name: str, text: str) -> Any:
        """The value that it handed back. Raises InvalidInput."""
        return Python.read(self, name, text)


def r_code(data: Any) -> str:
    """What R is to evaluate for packed data: lists of one kind become vectors, others lists; None is NULL, and NA in
    a vector. Raises CannotPass for what R has no form for."""
    if data is None:
        return "NULL"
    if isinstance(data, list):
        return r_vector(data) or f"list({', '.join(map(r_code, data))})"
    if not isinstance(data, dict):
        return r_scalar(data)
    kind = data.get(values.TAG)
    if kind is None:
        return f"list({', '.join(f'{r_scalar(key)} = {r_code(item)}' for key, item in data.items())})"
    if kind in R_READERS:
        return R_READERS[kind](data)
    raise values.CannotPass(f"R has no form for a {kind}")


def r_scalar(data: Any) -> str:
    """A number, a text, a truth value."""
    if data is None:
        return "NA"
    if isinstance(data, bool):
        return "TRUE" if data else "FALSE"
    if isinstance(data, str):
        if "\0" in data:
            raise values.CannotPass("it has a NUL character, which R does not take")
        # octal, hexadecimal and Unicode escapes cannot be mixed in R, and it reads UTF-8 as it is
        text = data.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
        return f'"{text}"'
    if isinstance(data, int):
        return f"{data}L" if abs(data) < 1 << 31 else repr(float(data))
    if isinstance(data, float):
        return repr(data) if math.isfinite(data) else {"nan": "NaN", "inf": "Inf", "-inf": "-Inf"}[repr(data)]
    raise values.CannotPass("it is nested too deep for R")


def r_vector(items: list[Any]) -> str:
    """A vector, where all items are of one kind; else empty."""
    plain = [float(i["text"]) if isinstance(i, dict) and i.get(values.TAG) == "float" else i for i in items]
    kinds = {type(item) for item in plain if item is not None}
    if not plain or not (kinds <= {bool} or kinds <= {int, float} or kinds <= {str}):
        return ""
    return f"c({', '.join(map(r_scalar, plain))})"


def r_array(data: dict[str, Any]) -> str:
    """An array of numpy's, by columns as R has it."""
    array = values.unpack(data)
    if array.dtype.kind not in "biufU":
        raise values.CannotPass(f"R has no form for arrays of {array.dtype}")
    vector = r_vector([values.pack(item) for item in array.flatten(order="F").tolist()]) or "c()"
    return vector if array.ndim < 2 else f"array({vector}, dim = c({', '.join(map(str, array.shape))}))"


def r_column(data: Any) -> str:
    """A column of a data frame."""
    items = data["items"] if data[values.TAG] == "objects" else None
    if items is None:
        return r_array(data)
    return r_vector(items) or f"I(list({', '.join(map(r_code, items))}))"


def r_frame(data: dict[str, Any]) -> str:
    """A data frame; the index becomes row names, where it is of text."""
    names = values.unpack(data["columns"]).tolist()
    columns = ", ".join(
        f"{r_scalar(str(name))} = {r_column(column)}" for name, column in zip(names, data["data"], strict=True)
    )
    rows = ""
    if data["index"][values.TAG] == "index" and data["index"]["values"][values.TAG] == "objects":
        rows = f", row.names = {r_column(data['index']['values'])}"
    return f"data.frame({columns}{rows}, check.names = FALSE)"


R_READERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "float": lambda data: r_scalar(float(data["text"])),
    "tuple": lambda data: r_code(data["items"]),
    "array": r_array,
    "scalar": lambda data: r_scalar(values.unpack(data).item()),
    "series": lambda data: r_column(data["values"]),
    "frame": r_frame,
}
