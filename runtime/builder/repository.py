"""The files that describe an environment, as repo2docker reads them, and what they ask for.

Searched for in `binder/`, `.binder/` or the folder itself, whichever is there first (https://repo2docker.readthedocs.io,
Configuration Files). A notebook may carry its requirements itself, as inline script metadata (PEP 723) in a code cell.
"""

from __future__ import annotations

import hashlib
import json
import os
import re

from nbhull.runtime.builder.conda.file import CondaFile
from nbhull.runtime.builder.conda.file import parse as parse_conda
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDERS = ("binder", ".binder", "")
REQUIREMENTS, PROJECT, UV_LOCK, APT, RUNTIME = "requirements.txt", "pyproject.toml", "uv.lock", "apt.txt", "runtime.txt"
POST_BUILD, START = "postBuild", "start"
CONDA = ("environment.yml", "environment.yaml")
FILES = (REQUIREMENTS, PROJECT, UV_LOCK, APT, RUNTIME, POST_BUILD, START, *CONDA)
PIP_SECTION = ".pip-section.txt"
"""a file of what `pip:` in environment.yml says"""
PROJECTS = {".", "-e .", "-e.", "--editable ."}
"""lines of the section `pip:` that mean the repository itself"""
UNKNOWN = ("Project.toml", "install.R", "default.nix", "Pipfile", "setup.py", "DESCRIPTION")
"""what repo2docker knows beyond; none of it is passed over in silence"""
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(?:=[A-Za-z0-9.+:~-]+)?")
"""a Debian package's name, with a version (deb-version(7))"""
SCRIPT = re.compile(r"^# /// script\s*$\n((?:^#(?: .*)?$\n)*?)^# ///\s*$", re.MULTILINE)
"""PEP 723's block; its lines begin with `# `"""
LARGEST = 1 << 20


class Repository(Record):
    """What is asked for."""

    folder: str
    """of the environment files, relative to the context; empty for the context itself"""
    requirements: str = ""
    """in the form of a requirements file"""
    included: tuple[str, ...] = ()
    """other requirements files that this one names, relative to `folder`"""
    packages: tuple[str, ...] = ()
    """of Debian"""
    python: str = ""
    """`3.11`; empty takes the base's own"""
    project: bool = False
    """the context is itself a Python project, to be installed"""
    uv_lock: bool = False
    """what is installed is what uv.lock says"""
    conda: CondaFile | None = None
    """what environment.yml asks for"""
    post_build: bool = False
    start: bool = False
    notebook: str = ""
    """name of the notebook that carries the requirements"""
    ignored: tuple[str, ...] = ()
    """files that do not count beside environment.yml"""

    def digest(self) -> str:
        """A digest of what was asked for, to tell whether a lock file still fits."""
        fields = self.to_dict()
        del fields["ignored"]
        fields["conda"] = fields["conda"] or ""
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def requirements_name(self) -> str:
        """What the file of `requirements` is called, beside those that it names."""
        return REQUIREMENTS if self.conda is None else PIP_SECTION


def find(context: str) -> Repository | None:
    """What the files of a folder, or a notebook, ask for; None if there are none. Raises InvalidInput."""
    if context.endswith(".ipynb"):
        return of_notebook(context)
    for folder in FOLDERS:
        here = os.path.join(context, folder) if folder else context
        if folder and not os.path.isdir(here):
            continue
        there = {name for name in (*FILES, *UNKNOWN) if os.path.isfile(f"{here}/{name}")}
        if there or folder:
            return of_files(here, folder, there) if there else None
    return None


def of_files(here: str, folder: str, there: set[str]) -> Repository | None:
    """What the files `there` ask for."""
    for name in UNKNOWN:
        if name in there and not there & set(FILES):
            raise InvalidInput(
                f"environments of {name} cannot be built", "write a Containerfile, or requirements.txt …"
            )
    if not there & set(FILES):
        return None
    requirements, conda = "", None
    ignored: tuple[str, ...] = ()
    project = PROJECT in there
    for name in CONDA:
        if name in there:
            conda = parse_conda(read(f"{here}/{name}"))
            # as repo2docker has it: what pip is to install is then said by the section pip
            ignored = tuple(sorted(there & {REQUIREMENTS, PROJECT, UV_LOCK}))
            project = bool(PROJECTS & set(conda.pip))
            requirements = "".join(f"{line}\n" for line in conda.pip if line not in PROJECTS)
            ignored = tuple(one for one in ignored if one != PROJECT or not project)
            if project and PROJECT not in there:
                raise InvalidInput(f"{name} has pip install '.', which is no project", "add a pyproject.toml")
            there = there - set(ignored)
            break
    if REQUIREMENTS in there:
        requirements = read(f"{here}/{REQUIREMENTS}")
    included = includes(here, requirements, REQUIREMENTS if conda is None else "")
    if project:
        check_project(read(f"{here}/{PROJECT}"))
    if UV_LOCK in there and not project:
        raise InvalidInput("there is a uv.lock without a pyproject.toml", "uv lock makes both belong together")
    return Repository(
        folder,
        requirements,
        tuple(included),
        parse_packages(read(f"{here}/{APT}")) if APT in there else (),
        parse_runtime(read(f"{here}/{RUNTIME}")) if RUNTIME in there else "",
        project,
        UV_LOCK in there,
        conda,
        POST_BUILD in there,
        START in there,
        ignored=ignored,
    )


def read(path: str) -> str:
    """A text file. Raises InvalidInput for one too large, or no text."""
    with open(path, "rb") as file:
        data = file.read(LARGEST + 1)
    name = os.path.basename(path)
    if len(data) > LARGEST:
        raise InvalidInput(f"{name} is larger than {LARGEST >> 20} MiB", "is it the right file?")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} is no UTF-8 text", "save it as UTF-8") from None


def parse_packages(text: str) -> tuple[str, ...]:
    """The names in an apt.txt: one or more a line, `#` begins a comment. Raises InvalidInput."""
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        for word in line.partition("#")[0].split():
            if PACKAGE.fullmatch(word) is None:
                raise InvalidInput(f"{APT}:{number}: {word!r} is not the name of a package", "write it like graphviz")
            found.append(word)
    return tuple(dict.fromkeys(found))


def parse_runtime(text: str) -> str:
    """The version of Python in a runtime.txt: `python-3.11`. Raises InvalidInput for other languages."""
    word = text.strip()
    match = re.fullmatch(r"python-(\d+\.\d+)(?:\.\d+)?", word)
    if match is None:
        raise InvalidInput(f"{RUNTIME}: {word[:40]!r} is not a version of Python", "write it like python-3.11")
    return match[1]


def includes(here: str, text: str, own: str) -> list[str]:
    """The files that a requirements file names by -r and -c, theirs too; `own`: its name. Raises InvalidInput for one
    that is missing, or outside."""
    found: list[str] = []
    pending = [("", text)]
    while pending:
        base, content = pending.pop()
        for match in re.finditer(r"^\s*(?:-r|-c|--requirement|--constraint)[ =]?\s*(\S+)", content, re.MULTILINE):
            if match[1].startswith(("http://", "https://")):
                continue
            path = os.path.normpath(os.path.join(base, match[1]))
            if path.startswith(("..", "/")):
                raise InvalidInput(f"{REQUIREMENTS} names {match[1]!r}, which lies outside", "move it beside")
            if path in found or path == own:
                continue
            if not os.path.isfile(f"{here}/{path}"):
                raise InvalidInput(f"{REQUIREMENTS} names {match[1]!r}, which is not there", "correct the path")
            found.append(path)
            pending.append((os.path.dirname(path), read(f"{here}/{path}")))
    return found


def check_project(text: str) -> dict[str, Any]:
    """The table of a pyproject.toml. Raises InvalidInput."""
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{PROJECT} is no TOML: {error}", "correct it") from None


def of_notebook(path: str) -> Repository:
    """What a notebook's inline script metadata asks for (PEP 723). Raises InvalidInput where there is none."""
    import tomllib

    name = os.path.basename(path)
    try:
        cells = json.loads(read(path)).get("cells") or []
        sources = ["".join(cell["source"]) for cell in cells if cell.get("cell_type") == "code"]
    except (ValueError, AttributeError, KeyError, TypeError):
        raise InvalidInput(f"{name} is no notebook", "give a notebook of format 4") from None
    blocks = [match[1] for source in sources for match in SCRIPT.finditer(source + "\n")]
    if len(blocks) != 1:
        what = "no inline script metadata" if not blocks else "inline script metadata twice"
        raise InvalidInput(
            f"{name} has {what}", "write a cell with:  # /// script  then  # dependencies = [\"pandas\"]  then  # ///"
        )
    try:
        table = tomllib.loads("\n".join(line[2:] for line in blocks[0].splitlines()))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{name}'s inline script metadata is no TOML: {error}", "correct it") from None
    dependencies = table.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(one, str) and "\n" not in one for one in dependencies):
        raise InvalidInput(f"{name}'s dependencies are no list of texts", 'write it like dependencies = ["pandas"]')
    wanted = str(table.get("requires-python", ""))
    return Repository("", "".join(f"{one}\n" for one in dependencies), python=wanted, notebook=name)
