"""Runs a cell of Python as a notebook would: `python run.py FOLDER ARGUMENT...`, in the container of the cell.

FOLDER holds the cell (`cell`), the variables that it is given (`given.json`), and the names of those that it may hand
back (`names.json`), for which files in FOLDER/out are written. Its syntax stays old, since images bring their own
Python.
"""

from __future__ import annotations

import ast
import json
import linecache
import os
import sys
import traceback
import types
from typing import Any

CELL = "<cell>"


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    import values  # type: ignore[import-not-found]  # it lies beside this file in the container

    del sys.path[0]
    # as in a notebook, the folder that it works in is where modules are looked for
    sys.path[0] = ""
    with open(os.path.join(folder, "cell")) as file:
        code = file.read()
    with open(os.path.join(folder, "given.json")) as file:
        given = json.load(file)
    with open(os.path.join(folder, "names.json")) as file:
        names = json.load(file)
    module = types.ModuleType("__main__")
    space = module.__dict__
    sys.modules["__main__"] = module
    sys.argv = [CELL, *sys.argv[2:]]
    linecache.cache[CELL] = (len(code), None, code.splitlines(True), CELL)
    try:
        space.update((name, values.loads(text)) for name, text in given.items())
    except values.CannotPass as error:
        sys.exit(f"nbhull: a variable cannot be read here: {error.reason}\n  hint: {error.hint}")
    try:
        run(code, space)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 (the interpreter would show it so, too)
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != CELL:
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
        sys.exit(1)
    finally:
        hand_back(values, names, space, os.path.join(folder, "out"))


def run(code: str, space: dict[str, Any]) -> None:
    """Run the cell; the value of an expression at its end is shown."""
    tree = ast.parse(code, CELL)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, CELL, "exec"), space)
    if last is not None:
        assert isinstance(last, ast.Expr)
        shown = eval(compile(ast.Expression(last.value), CELL, "eval"), space)
        if shown is not None:
            print(repr(shown))


def hand_back(values: Any, names: list[str], space: dict[str, Any], folder: str) -> None:
    """Write what the cell's variables are now."""
    for name in names:
        if name in space:
            try:
                text = values.dumps(space[name])
            except values.CannotPass as error:
                text = json.dumps({"refused": error.reason, "hint": error.hint})
                name += ".refused"
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)


if __name__ == "__main__":
    main(sys.argv[1])
