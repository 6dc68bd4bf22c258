"""The compiled code of the modules that a start may need, in one file.

Python finds, opens, checks and reads a compiled file for each module, which together takes a third of what imports
take. The bundle lies beside those files, in `__pycache__`, and is as they are in all else: who may write it, and when
it holds (while each source has the time and size that were noted). The first command that finds none makes it. A
process that will lose sight of the files can keep code in memory for later (`hold`).
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader, spec_from_file_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

ROOT = os.path.dirname(__file__)
PACKAGE = "nbhull.runtime"
FOLDERS = ("", "cgroups", "doctor", "launcher", "linux", "policy", "snapshots", "verbs", "verbs/groups")
"""of ROOT: those with modules that a start may need"""
PLACE = f"{ROOT}/__pycache__/bundle.{sys.implementation.cache_tag}-{sys.flags.optimize}"
HEAD = b"%s %s\n" % (MAGIC_NUMBER, os.fsencode(ROOT))
"""how the file begins; then come the index's length in eight digits, and the index"""
CODES = 1 << 15
"""where in the file the modules' code begins"""

Entry = tuple[str, bool, int, int, int, int]
"""of a module: its source's path below ROOT; whether it is a package; its source's time and size; where in the file its
code begins, and the length of that"""


class Bundle:
    """A finder (sys.meta_path) of the modules in the bundle."""

    def __init__(self, index: dict[str, Entry]) -> None:
        self.index = index
        self.held: dict[str, bytes] = {}
        """code that is in memory, by module"""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        entry = self.index.get(name)
        if entry is None:
            return None
        source = f"{ROOT}/{entry[0]}"
        folders = [os.path.dirname(source)] if entry[1] else None
        return spec_from_file_location(
            name, source, loader=Loader(name, source, self), submodule_search_locations=folders
        )

    def code(self, name: str) -> bytes:
        """The code of a module, marshalled."""
        if name in self.held:
            return self.held[name]
        file = os.open(PLACE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(file, self.index[name][5], self.index[name][4])
        finally:
            os.close(file)


class Loader(SourceFileLoader):
    """As Python's own, but for where the code comes from."""

    def __init__(self, name: str, path: str, bundle: Bundle) -> None:
        super().__init__(name, path)
        self.bundle = bundle

    def get_code(self, fullname: str) -> CodeType:
        """See importlib.abc.InspectLoader."""
        code: CodeType = marshal.loads(self.bundle.code(fullname))
        return code


def use() -> bool:
    """Have modules come from the bundle from now on; False if there is none that holds."""
    index = find()
    if index is not None:
        sys.meta_path.insert(0, Bundle(index))
    return index is not None


def find() -> dict[str, Entry] | None:
    """The index of the bundle; None if there is none that holds."""
    try:
        file = os.open(PLACE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(file, CODES)
    finally:
        os.close(file)
    if not data.startswith(HEAD):
        return None
    begin = len(HEAD) + 8
    index: dict[str, Entry] = marshal.loads(data[begin : begin + int(data[begin - 8 : begin])])
    for source, _, time, size, _, _ in index.values():
        try:
            status = os.stat(f"{ROOT}/{source}")
        except FileNotFoundError:
            return None
        if (status.st_mtime_ns, status.st_size) != (time, size):
            return None
    return index


def hold(*names: str) -> None:
    """Have modules of the runtime at hand for where their files cannot be read: their code in memory, or, where there
    is no bundle, imported now."""
    for finder in sys.meta_path:
        if isinstance(finder, Bundle):
            finder.held = {f"{PACKAGE}.{name}": finder.code(f"{PACKAGE}.{name}") for name in names}
            return
    for name in names:
        __import__(f"{PACKAGE}.{name}")


def write() -> None:
    """Make the bundle of the modules as they are now. Where that is not allowed there is none, as with Python's own
    compiled files."""
    if sys.dont_write_bytecode:
        return
    temporary = f"{PLACE}.{os.getpid()}"
    try:
        with open(temporary, "xb") as file:
            file.writelines(content())
        os.rename(temporary, PLACE)
    except OSError:
        return


def content() -> list[bytes]:
    """What is in the file."""
    index: dict[str, Entry] = {}
    codes: list[bytes] = []
    offset = CODES
    for name, source, is_package in modules():
        status = os.stat(f"{ROOT}/{source}")
        codes.append(marshal.dumps(SourceFileLoader(name, f"{ROOT}/{source}").get_code(name)))
        index[name] = source, is_package, status.st_mtime_ns, status.st_size, offset, len(codes[-1])
        offset += len(codes[-1])
    words = marshal.dumps(index)
    return [(b"%s%08d%s" % (HEAD, len(words), words)).ljust(CODES, b"\0"), *codes]


def modules() -> Iterator[tuple[str, str, bool]]:
    """Each module's name, the path of its source below ROOT, and whether it is a package."""
    for folder in FOLDERS:
        for file in sorted(os.listdir(f"{ROOT}/{folder}")):
            if file.endswith(".py"):
                source = f"{folder}/{file}".strip("/")
                words = source.removesuffix(".py").split("/")
                is_package = words[-1] == "__init__"
                yield ".".join([PACKAGE, *(words[:-1] if is_package else words)]), source, is_package
