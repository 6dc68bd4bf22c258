"""The import rules: magics -> kernel -> runtime, and runtime on the standard library alone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT = {
    "runtime": {"runtime"},
    "kernel": {"kernel", "runtime"},
    "magics": {"magics", "kernel", "runtime"},
}
"""Which of nbhull's packages a module of a package may import."""

LONGEST = 500
"""lines a module may have: beyond, it has more than one reason to change"""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, function-level imports included, with its line."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # `from nbhull import kernel` imports nbhull.kernel.
            for alias in node.names if node.module == "nbhull" else ():
                yield node.lineno, f"nbhull.{alias.name}"
            yield node.lineno, str(node.module)


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_dependencies_point_one_way(package: str) -> None:
    assert modules(package), f"{package}/ holds no modules"
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {package} must not import {name}"
        for path in modules(package)
        for line, name in imported(path)
        if name.split(".")[0] == "nbhull"
        and len(name.split(".")) > 1
        and name.split(".")[1] not in MAY_IMPORT[package] | {"__version__"}
    ]
    assert wrong == []


LIBRARIES = {
    "runtime/builder/conda/file.py": {"yaml"},
    "runtime/builder/conda/program.py": {"rattler"},
    "runtime/cgroups/systemd.py": {"jeepney"},
    "runtime/images": {"backports", "compression", "isal"},
    "runtime/registry": {"urllib3"},
    "runtime/verbs/progress.py": {"rich"},
}
"""what parts of runtime may import beside the standard library: nothing that a container's start needs"""


def test_runtime_stands_on_the_standard_library_alone() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: runtime must not import {name}"
        for path in modules("runtime")
        for line, name in imported(path)
        if name.split(".")[0] not in sys.stdlib_module_names | {"nbhull"}
        and not any(
            path.is_relative_to(ROOT / place) and name.split(".")[0] in libraries
            for place, libraries in LIBRARIES.items()
        )
    ]
    assert wrong == []


def test_everything_is_imported_as_nbhull() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: import nbhull.{name}"
        for folder in ("runtime", "kernel", "magics", "tests", "tools", "benchmarks", "src/nbhull")
        for path in modules(folder)
        for line, name in imported(path)
        if name.split(".")[0] in MAY_IMPORT
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", ["runtime", "kernel", "magics", "tests", "tools", "benchmarks"])
def test_no_module_is_too_long(folder: str) -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules(folder)}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST} == {}
