"""Images of environment files: what they ask for is resolved once, locked with hashes, and installed from the lock.

The work is two builds like any other, of Containerfiles that are written here: one resolves, in a container, since
building a source distribution runs its code; one installs what the lock file says. So steps are cached as always, and
the same lock file gives the same image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import time

from nbhull.runtime.builder import bases
from nbhull.runtime.builder.build import Build, Options, Result
from nbhull.runtime.builder.cache import Done, key_of
from nbhull.runtime.builder.conda.packages import CondaPackages, parse_line
from nbhull.runtime.builder.progress import Terminal
from nbhull.runtime.builder.repository import PACKAGE, Repository
from nbhull.runtime.builder.state import State
from nbhull.runtime.errors import InvalidInput, NotFound
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nbhull.runtime.engine import Engine

BASE = "debian:bookworm"
LOCK = "nbhull.lock"
VERSION = 1
LISTS = ("layers", "packages", "requirements", "conda")
"""fields of a lock file that are lists of texts"""
WITH_CONDA = "environment"
"""what the base with conda's packages on it is called in a Containerfile written here"""
PREFIX = "/opt/environment"
"""of the virtual environment, or conda's"""
WORK = "/srv/work"
"""where the repository's files are"""
OWN = "/usr/share/nbhull"
"""where the image keeps what it was made from"""
APT_CACHE = (
    "--mount=type=cache,id=apt-archives,target=/var/cache/apt,sharing=locked "
    "--mount=type=cache,id=apt-lists,target=/var/lib/apt/lists,sharing=locked"
)
PIP_CACHE = "--mount=type=cache,id=pip,target=/root/.cache"
APT_INSTALL = "apt-get install -y --no-install-recommends -o APT::Keep-Downloaded-Packages=true"
APT_CLEAN = (
    "rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/ldconfig/aux-cache "
    "/var/cache/debconf/*-old /var/lib/dpkg/*-old /var/lib/apt/extended_states"
)
"""what apt and dpkg write that is another each time"""
SETTINGS = "ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1"
PYTHON_PACKAGES = ("python3", "python3-venv")
CONVERT = """\
import hashlib, json, sys, urllib.request
def digest_of(info):
    hashes = info["archive_info"].get("hashes") or {}
    if "sha256" in hashes:
        return hashes["sha256"]
    with urllib.request.urlopen(info["url"]) as answer:  # the index does not tell
        return hashlib.sha256(answer.read()).hexdigest()
for item in json.load(sys.stdin)["install"]:
    name, info = item["metadata"]["name"], item["download_info"]
    if "vcs_info" in info:
        print(f"{name} @ git+{info['url']}@{info['vcs_info']['commit_id']}")
    elif item.get("is_direct") and "dir_info" in info:
        continue
    elif item.get("is_direct"):
        print(f"{name} @ {info['url']} --hash=sha256:{digest_of(info)}")
    else:
        print(f"{name}=={item['metadata']['version']} --hash=sha256:{digest_of(info)}")
"""
"""from pip's installation report to requirements with hashes
(https://pip.pypa.io/en/stable/reference/installation-report/)"""


class Lock(Record):
    """What was resolved."""

    base: str
    """the base image's name"""
    layers: tuple[str, ...]
    """digests of its layers, the lowest first"""
    asked: str
    """digest of what the files asked for"""
    epoch: int
    """seconds: the time of all that the image has"""
    packages: tuple[str, ...]
    """of Debian, with versions"""
    requirements: tuple[str, ...]
    """Python's, with versions and hashes"""
    conda: tuple[str, ...] = ()
    """conda's packages: address and digest"""

    def text(self) -> str:
        """As it is kept in the file."""
        return json.dumps({"version": VERSION, **self.to_dict()}, indent=1) + "\n"


def parse_lock(text: str) -> Lock:
    """A lock file. Raises InvalidInput."""
    wrong = InvalidInput(f"{LOCK} is no lock file of nbhull's", "remove it, and build again")
    try:
        data = json.loads(text)
        if data.pop("version") != VERSION:
            raise wrong
        data.setdefault("conda", [])
        lists = {name: tuple(str(item) for item in data[name]) for name in LISTS}
        lock = Lock(base=str(data["base"]), asked=str(data["asked"]), epoch=int(data["epoch"]), **lists)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise wrong from None
    if any("\n" in item or not item for item in lock.requirements):
        raise wrong
    if any(parse_line(line) is None for line in lock.conda):
        raise wrong
    for package in lock.packages:
        if PACKAGE.fullmatch(package) is None:
            raise wrong
    return lock


class EnvironmentBuild:
    """One build of environment files."""

    def __init__(self, engine: Engine, options: Options, asked: Repository, base: str | None, source: str) -> None:
        """`options.context`: the folder; `source`: the folder or notebook that was named."""
        self.engine = engine
        self.options = options
        self.asked = asked
        self.base = base
        stem = f"{source[: -len('.ipynb')]}." if source.endswith(".ipynb") else f"{source.rstrip('/')}/"
        self.path = f"{stem}{LOCK}"
        self.progress = options.teller or Terminal(options.progress)
        self.scripts: list[str] = []
        """of conda's packages, for a shell"""
        self.steps: dict[str, Done] = {}

    def run(self, *, locked: bool, relock: bool) -> Result:
        """Build; write the lock file where there is none, or where it does not fit any more. `locked`: refuse instead.
        `relock`: resolve anew even if it fits. Raises InvalidInput, NotFound, ProcessFailed."""
        for name in self.asked.ignored:
            self.progress.note(f"warning: {name} does not count beside environment.yml; its section pip can name it")
        for key in self.asked.conda.unknown if self.asked.conda else ():
            self.progress.note(f"warning: {key!r} in environment.yml means nothing here")
        lock = self.read_lock()
        if lock is not None and self.base is None:
            self.base = lock.base
        self.base = self.base or BASE
        if locked:
            if lock is None:
                raise NotFound(f"there is no lock file {self.path!r}", "build once without --locked")
            self.check(lock)
        if lock is None or relock or not self.fits(lock):
            lock = self.resolve(relock)
            beside = f"{self.path}.{os.getpid()}"
            with open(beside, "w") as file:
                file.write(lock.text())
            os.rename(beside, self.path)
        with self.engine.catalog.making():
            given = self.with_conda(lock.conda, lock.epoch)
            result = self.build(self.install_text(lock), lock.epoch, None, given)
        return result.but(steps={**self.steps, **result.steps})

    def read_lock(self) -> Lock | None:
        """The lock file, if there is one."""
        try:
            with open(self.path) as file:
                return parse_lock(file.read())
        except FileNotFoundError:
            return None

    def fits(self, lock: Lock) -> bool:
        """Whether it was made of what is asked for now, on the base as it is now."""
        return lock.asked == self.asked.digest() and lock.base == self.base and lock.layers == self.base_layers()

    def check(self, lock: Lock) -> None:
        """Raise InvalidInput that says why it does not fit."""
        again = "build without --locked to resolve anew"
        if lock.asked != self.asked.digest():
            raise InvalidInput(f"{self.path} was made before the environment files were changed", again)
        if lock.base != self.base:
            raise InvalidInput(f"{self.path} was made on {lock.base}, not on {self.base}", again)
        if lock.layers != self.base_layers():
            raise InvalidInput(f"{self.path} was made on another {lock.base} than there is here", again)

    def base_layers(self) -> tuple[str, ...]:
        """The digests of the base's layers. Raises NotFound."""
        assert self.base is not None
        try:
            row = self.engine.catalog.find(self.base)
        except NotFound as error:
            error.hint = f"nbhull bootstrap {self.base}; or name another with --base"
            raise
        _, _, layers = self.engine.catalog.completed(row)
        return tuple(str(layer.diff_id) for layer in layers)

    def with_conda(self, lines: tuple[str, ...], epoch: int | None) -> dict[str, State]:
        """The base with conda's packages on it, by the name that a Containerfile knows it by; nothing without them."""
        if self.asked.conda is None:
            return {}
        packages = [package for line in lines if (package := parse_line(line)) is not None]
        conda = self.conda_packages(epoch)
        layer = conda.layer(packages, PREFIX)
        self.steps.update(conda.steps)
        base = bases.state_of(self.engine, self.engine.catalog.find(str(self.base)), self.options)
        state = State(
            base.config,
            [layer, *base.layers] if layer else base.layers,
            key_of("with conda", base.key, conda.key(packages, PREFIX)),
            base.history,
            base.author,
        )
        if layer:
            made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
            state.remember(f"conda install {' '.join(one.file_name for one in packages)}", made, empty=False)
        self.scripts = conda.scripts(layer, PREFIX) if layer else []
        return {WITH_CONDA: state}

    def conda_packages(self, epoch: int | None) -> CondaPackages:
        """What has to do with conda's packages, whose files are not younger than `epoch`."""
        return CondaPackages(self.engine, self.options.but(epoch=epoch), self.progress)

    def build(self, text: str, epoch: int | None, target: str | None, given: dict[str, State]) -> Result:
        """Build a Containerfile that was written here; `given`: what FROM may name besides images."""
        import tempfile

        with tempfile.TemporaryDirectory(prefix="unpacked-", dir=self.folder()) as folder:
            path = f"{folder}/Containerfile"
            with open(path, "w") as file:
                file.write(text)
            options = self.options.but(
                file=path, epoch=epoch if self.options.epoch is None else self.options.epoch, target=target
            )
            one = Build(self.engine, options if target is None else options.but(tags=(), labels={}), given)
            one.file_name = "environment"
            try:
                return one.run()
            finally:
                one.close()

    def folder(self) -> str:
        """Where Containerfiles are written."""
        path = self.engine.store.path("contexts")
        os.makedirs(path, 0o700, exist_ok=True)
        return path

    # Resolving

    def resolve(self, relock: bool) -> Lock:
        """Resolve what is asked for, in a container; the lock file that comes of it. What was resolved before does not
        count: the answer is the network's. `relock`: not even that the base's packages are still to be had."""
        layers = self.base_layers()
        epoch = int(time.time()) if self.options.epoch is None else self.options.epoch
        conda = self.solve()
        texts = ["", ""]
        if self.asked.conda is None or self.asked.packages or self.resolve_arguments():
            with self.engine.catalog.making():
                given = self.with_conda(conda, epoch)
                result = self.build(self.resolve_text(str(time.time_ns()), relock), None, "resolved", given)
            texts = self.read_files(result.image.id, (f"{OWN}/packages", f"{OWN}/requirements"))
        return Lock(
            str(self.base),
            layers,
            self.asked.digest(),
            epoch,
            tuple(sorted(texts[0].split())),
            tuple(line for line in texts[1].splitlines() if line),
            conda,
        )

    def solve(self) -> tuple[str, ...]:
        """The packages of conda that environment.yml comes to."""
        asked = self.asked.conda
        if asked is None:
            return ()
        specs = list(asked.specs)
        if self.asked.python:
            specs.append(f"python {self.asked.python}.*")
        if (self.asked.requirements or self.asked.project) and not any(
            re.match(r"pip(\W|$)", spec) for spec in specs
        ):
            specs += ["python", "pip"]
        folder = os.path.join(self.options.context, self.asked.folder)
        packages = self.conda_packages(None).solve(asked.but(specs=tuple(specs)), folder, str(self.base))
        return tuple(package.line for package in packages)

    def read_files(self, image: str, paths: tuple[str, ...]) -> list[str]:
        """Files of an image."""
        from nbhull.runtime.model import ContainerSpec

        container = self.engine.create(ContainerSpec(image=image, network="none"))
        try:
            self.engine.start(container.id)
            return [self.engine.read(container.id, path, 8 << 20).decode() for path in paths]
        finally:
            self.engine.remove(container.id, force=True)

    def resolve_text(self, now: str, relock: bool) -> str:
        """The Containerfile that resolves; its last stage has the results in OWN. `now`: another text each time."""
        asked = self.asked
        install = [
            "dpkg-query -W -f '${Package}=${Version}\\n' | sort > /tmp/before",
            "apt-get update",
            f"{APT_INSTALL} {shlex.join([*(PYTHON_PACKAGES if asked.conda is None else ()), *asked.packages])}",
            "dpkg-query -W -f '${Package}=${Version}\\n' | sort > /tmp/after",
            f"comm -13 /tmp/before /tmp/after > {OWN}/packages",
        ]
        # a base that has Python needs no apt, and need not be a Debian
        needs = "true" if asked.conda else "python3 -c 'import ensurepip, venv' 2> /dev/null"
        needs = "false" if asked.packages else needs
        lines = [
            f"FROM {self.foundation()} AS resolved",
            f"RUN {APT_CACHE} export DEBIAN_FRONTEND=noninteractive && mkdir -p {OWN} && touch {OWN}/packages && \\",
            f"    {{ {needs} || {{ {' && '.join(install)}; }}; }}" + (f" # {now}" if asked.packages or relock else ""),
            *self.python_lines(),
        ]
        if asked.uv_lock:
            lines.append(f"RUN touch {OWN}/requirements")
            return "\n".join([*lines, ""])
        lines += [*copy_text(CONVERT, f"{OWN}/convert.py"), *self.copies()]
        arguments = self.resolve_arguments()
        if not arguments:
            return "\n".join([*lines, f"RUN touch {OWN}/requirements", ""])
        lines += [
            f"RUN {PIP_CACHE} cd {OWN} && python3 -m pip install --quiet --dry-run --ignore-installed \\",
            f"    --report report.json {arguments} && \\",
            f"    python3 convert.py < report.json > requirements # {now}",
        ]
        return "\n".join([*lines, ""])

    def foundation(self) -> str:
        """What FROM names."""
        return str(self.base) if self.asked.conda is None else WITH_CONDA

    def resolve_arguments(self) -> str:
        """What pip is to resolve."""
        words = [f"-r asked/{self.asked.requirements_name}"] if self.asked.requirements else []
        return " ".join([*words, f"{WORK}/{self.asked.folder}".rstrip("/")] if self.asked.project else words)

    def copies(self) -> list[str]:
        """Lines that bring the requirements in, and the project where it is one."""
        asked = self.asked
        lines = []
        if asked.requirements:
            lines += copy_text(asked.requirements, f"{OWN}/asked/{asked.requirements_name}")
            folder = f"{asked.folder}/" if asked.folder else ""
            lines += [
                f"COPY {json.dumps([f'{folder}{path}', f'{OWN}/asked/{path}'])}" for path in asked.included
            ]
        if asked.project:
            lines.append(f"COPY . {WORK}/")
        return lines

    def python_lines(self) -> list[str]:
        """Lines that make the virtual environment, or go into conda's."""
        if self.asked.conda is not None:
            own = [f"ENV {name}={quoted(value)}" for name, value in self.asked.conda.variables]
            scripts = [f"RUN {' && '.join(self.scripts)}"] if self.scripts else []
            return [f"ENV PATH={PREFIX}/bin:$PATH CONDA_PREFIX={PREFIX}", *own, SETTINGS, *scripts]
        lines = []
        if self.asked.python:
            lines.append(f"RUN python3 -c {shlex.quote(version_check(self.asked.python))}")
        return [
            *lines,
            f"RUN python3 -m venv {PREFIX} && find {PREFIX} -name __pycache__ -prune -exec rm -r {{}} +",
            f"ENV PATH={PREFIX}/bin:$PATH VIRTUAL_ENV={PREFIX}",
            SETTINGS,
        ]

    # Installing

    def install_text(self, lock: Lock) -> str:
        """The Containerfile that installs what a lock file says."""
        asked = self.asked
        hashed = all(" --hash=" in line for line in lock.requirements)
        lines = [f"FROM {self.foundation()}"]
        if lock.packages:
            lines += [
                f"RUN {APT_CACHE} export DEBIAN_FRONTEND=noninteractive && apt-get update && \\",
                f"    {APT_INSTALL} {shlex.join(lock.packages)} && \\",
                "    find / -xdev -name __pycache__ -prune -exec rm -r {} + && \\",
                f"    {APT_CLEAN}",
            ]
        lines += self.python_lines()
        if lock.requirements:
            lines += [
                *copy_text("\n".join(lock.requirements), f"{OWN}/requirements.lock"),
                f"RUN {PIP_CACHE} python3 -m pip install --quiet --no-compile --no-deps "
                f"{'--require-hashes ' if hashed else ''}-r {OWN}/requirements.lock",
            ]
        if not asked.notebook:
            lines += [f"COPY . {WORK}/", f"WORKDIR {WORK}"]
        folder = f"{WORK}/{asked.folder}".rstrip("/")
        if asked.uv_lock:
            lines.append(
                f"RUN {PIP_CACHE} python3 -m venv /tmp/uv && /tmp/uv/bin/pip install --quiet uv && cd {folder} && \\\n"
                f"    /tmp/uv/bin/uv sync --active --frozen --no-editable --no-dev && rm -r /tmp/uv"
            )
        elif asked.project:
            lines.append(f"RUN {PIP_CACHE} python3 -m pip install --quiet --no-compile --no-deps {folder}")
        if asked.post_build:
            lines.append(f"RUN chmod +x {folder}/postBuild && {folder}/postBuild")
        if asked.start:
            lines += [f"RUN chmod +x {folder}/start", f'ENTRYPOINT ["{folder}/start"]']
        has_python = asked.conda is None or any(re.search(r"/python-\d", line) for line in lock.conda)
        return "\n".join([*lines, f'CMD ["{"python3" if has_python else "/bin/sh"}"]', ""])


def quoted(value: str) -> str:
    """A value as ENV takes it, with nothing put in its place."""
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def copy_text(text: str, path: str) -> list[str]:
    """Lines that write a text to a file of the image, whatever is in it: it cannot have its own digest in it."""
    end = f"end-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    return [f"COPY <<'{end}' {path}", text.rstrip("\n"), end]


def version_check(wanted: str) -> str:
    """A line of Python that fails, with the reason, where its version is not the one wanted (`3.11`, or PEP 440's
    `>=3.10,<3.13`)."""
    terms = [term.strip() for term in wanted.split(",") if term.strip()]
    if re.fullmatch(r"\d+\.\d+", wanted):
        terms = [f"=={wanted}.*"]
    checks = []
    for term in terms:
        match = re.fullmatch(r"(==|!=|>=|<=|>|<|~=)\s*(\d+(?:\.\d+)*)(\.\*)?", term)
        if match is None:
            raise InvalidInput(f"requires-python {wanted!r} is not understood", "write it like >=3.10 or ==3.11.*")
        operator, numbers, wild = match[1], tuple(int(part) for part in match[2].split(".")), match[3]
        if operator == "~=":
            checks.append(f"v[:{len(numbers)}]>={numbers} and v[:{len(numbers) - 1}]=={numbers[:-1]}")
        elif wild or operator in ("==", "!="):
            checks.append(f"v[:{len(numbers)}]{operator}{numbers}")
        else:
            checks.append(f"v[:{len(numbers)}]{operator}{numbers}")
    said = f"Python {wanted} is asked for, and the base image has "
    return (
        f"import sys; v=tuple(sys.version_info[:3]); "
        f"sys.exit(None if {' and '.join(checks) or 'True'} else {said!r} + '.'.join(map(str, v)))"
    )
