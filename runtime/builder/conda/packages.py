"""Packages of conda: solved and downloaded on this machine, with its proxies, certificates and passwords; opened and
installed in a container of this machine's own system without a network, straight into what becomes a layer.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

from nbhull.runtime import hostsettings
from nbhull.runtime.builder.cache import EMPTY, Cache, Done, key_of
from nbhull.runtime.builder.conda import program, settings
from nbhull.runtime.builder.conda.file import NAME, CondaFile
from nbhull.runtime.builder.materials import Materials
from nbhull.runtime.builder.progress import Progress
from nbhull.runtime.errors import HullError, InvalidInput, ProcessFailed
from nbhull.runtime.model import ContainerSpec, Mount, ProcessSpec
from nbhull.runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.builder.build import Options
    from nbhull.runtime.builder.progress import Step
    from nbhull.runtime.engine import Engine

DOWNLOADS = "downloads"
"""folder of the store with packages, each in one named by its digest"""
REPODATA = "repodata"
"""the folder in it with what channels have"""
SUBDIRS = {"x86_64": "linux-64", "aarch64": "linux-aarch64"}
LINE = re.compile(r"((?:https?|file)://[^#\s]+/[A-Za-z0-9_.+!-]+(?:\.conda|\.tar\.bz2))#sha256:([0-9a-f]{64})")
"""a package in a lock file"""
KERNEL = "5.11"
"""Linux that solutions may count on: the oldest that nbhull runs on, and not the one that happens to run here"""
TELL_LIBC = "ldd --version || getconf GNU_LIBC_VERSION"
VERSION = 1
"""changes when the same packages are installed to something else"""
LONGEST_ANSWER = 64 << 20


class Package(Record):
    """A package, as a lock file names it."""

    url: str
    sha256: str

    @property
    def line(self) -> str:
        """As it is written."""
        return f"{self.url}#sha256:{self.sha256}"

    @property
    def file_name(self) -> str:
        """Of the archive."""
        return self.url.rpartition("/")[2]


def parse_line(line: str) -> Package | None:
    """A package of a lock file; None if it is none."""
    match = LINE.fullmatch(line)
    return Package(match[1], match[2]) if match else None


class CondaPackages:
    """What a build has to do with conda's packages."""

    def __init__(self, engine: Engine, options: Options, progress: Progress) -> None:
        """`options.epoch`: no file is younger; `options.cached`: whether what was installed before counts."""
        self.engine = engine
        self.materials = Materials(engine, options)
        self.progress = progress
        self.epoch = options.epoch
        self.cache = Cache(engine.store, enabled=options.cached)
        self.steps: dict[str, Done] = {}
        """what was installed, by key"""
        self.downloads = engine.store.path(DOWNLOADS)

    # On this machine

    def solve(self, asked: CondaFile, folder: str, base: str) -> list[Package]:
        """The packages that satisfy a file; `folder`: the file's own; `base`: the image that they go onto. Raises
        InvalidInput where nothing does, HullError."""
        machine = os.uname().machine
        if machine not in SUBDIRS:
            raise InvalidInput(f"conda has no packages for {machine}", "use requirements.txt")
        reached = settings.read()
        with self.step(f"solve {NAME}"):
            found = self.ask(
                {
                    "do": "solve",
                    "channels": settings.addresses(asked.channels, reached, folder),
                    "specs": list(asked.specs),
                    "virtual": [*self.virtual(base), ("__archspec", "1", machine)],
                    "platform": SUBDIRS[machine],
                    "cache": os.path.join(self.downloads, REPODATA),
                },
                reached,
            )
        return self.locked(found, reached)

    def virtual(self, base: str) -> list[tuple[str, str, str]]:
        """What the base has that packages may ask for: name, version, build."""
        found = [("__unix", "0", "0"), ("__linux", KERNEL, "0")]
        container = self.engine.create(ContainerSpec(image=base, network="none"))
        try:
            self.engine.start(container.id)
            try:
                status, told = self.run(container.id, ProcessSpec(("sh", "-c", TELL_LIBC)))
            except ProcessFailed:
                status, told = 1, ""  # without a shell there is nothing to ask, and nothing is promised to packages
        finally:
            self.engine.remove(container.id, force=True)
        version = re.search(r"(?:GLIBC|GNU libc|glibc).*?(\d+\.\d+)\s*$", told, re.MULTILINE)
        return [*found, ("__glibc", version[1], "0")] if version and not status else found

    def locked(self, found: list[dict[str, str]], reached: settings.Settings) -> list[Package]:
        """Packages with their digests; those that their channel tells none of are downloaded for it."""
        packages = []
        for one, digest in zip(found, self.download(found, reached), strict=True):
            package = parse_line(f"{one['url']}#sha256:{digest}")
            if package is None:
                raise InvalidInput(f"the address of a package, {one['url'][:200]!r}, is none", "see the channel")
            packages.append(package)
        return sorted(packages, key=lambda package: package.line)

    def download(self, packages: list[dict[str, str]], reached: settings.Settings) -> list[str]:
        """Have packages in the store; their digests. Raises HullError."""
        missing = [
            one
            for one in packages
            if not one["sha256"] or not os.path.exists(self.place(one["sha256"], one["url"].rpartition("/")[2]))
        ]
        digests = {one["url"]: one["sha256"] for one in packages}
        if missing:
            os.makedirs(self.downloads, 0o700, exist_ok=True)
            with self.step(f"download {len(missing)} packages"):
                answer = self.ask({"do": "download", "packages": missing, "folder": self.downloads}, reached)
            digests.update(zip((one["url"] for one in missing), answer, strict=True))
        for digest in digests.values():
            os.utime(os.path.join(self.downloads, digest))  # prune goes by when it was last of use
        return [digests[one["url"]] for one in packages]

    def place(self, sha256: str, name: str) -> str:
        """Where a package is kept."""
        return os.path.join(self.downloads, sha256, name)

    def ask(self, request: dict[str, Any], reached: settings.Settings) -> Any:
        """Have the program do something on this machine. Raises HullError with its words."""
        with tempfile.NamedTemporaryFile(prefix="nbhull-", suffix=".crt") as bundle:
            bundle.write(hostsettings.certificates({**os.environ, **certificate(reached)}))
            bundle.flush()
            env = {**os.environ, **{f"{scheme}_proxy": url for scheme, url in reached.proxies.items()}}
            env.pop("SSL_CERT_DIR", None)
            if os.path.getsize(bundle.name):
                env["SSL_CERT_FILE"] = bundle.name
            done = subprocess.run(
                [sys.executable, "-I", program.__file__],
                input=json.dumps(request).encode(),
                capture_output=True,
                env=env,
                check=False,
            )
        return answer_of(done.returncode, done.stdout, done.stderr)

    # In a container

    def layer(self, packages: list[Package], prefix: str) -> str:
        """The layer with packages installed in `prefix`, made unless it was before; its id, empty for no packages.
        Nobody may be taking garbage meanwhile (Catalog.making). Raises HullError."""
        if not packages:
            return EMPTY
        key = self.key(packages, prefix)
        done = self.cache.find(key)
        if done is None:
            wanted = [{"url": package.url, "sha256": package.sha256, "md5": ""} for package in packages]
            self.download(wanted, settings.read())
            with self.step(f"install {len(packages)} packages into {prefix}"):
                done = self.cache.add(key, self.materials.make_layer(lambda part: self.fill(part, packages, prefix)))
        self.steps[key] = done
        return done.layer

    def scripts(self, layer: str, prefix: str) -> list[str]:
        """Lines for a shell that run what packages want run once they are installed (conda's post-link scripts)."""
        folder = self.engine.store.path("layers", layer, "root", prefix.strip("/"))
        lines = []
        for path in sorted(glob.glob(f"{folder}/bin/.*-post-link.sh")):
            name = os.path.basename(path)[1 : -len("-post-link.sh")]
            for record in glob.glob(f"{folder}/conda-meta/{glob.escape(name)}-*.json"):
                with open(record) as file:
                    facts = json.load(file)
                if facts["name"] == name:
                    told = {"PREFIX": prefix, "PKG_NAME": name, "PKG_VERSION": facts["version"]}
                    told["PKG_BUILDNUM"] = str(facts["build_number"])
                    env = " ".join(f"{key}={shlex.quote(value)}" for key, value in told.items())
                    lines.append(f"{env} sh {shlex.quote(f'{prefix}/bin/{os.path.basename(path)}')}")
        return lines

    def key(self, packages: list[Package], prefix: str) -> str:
        """A digest of all that decides what is installed."""
        return key_of("conda", VERSION, prefix, [package.line for package in packages], self.epoch)

    def fill(self, part: str, packages: list[Package], prefix: str) -> None:
        """Install packages into a layer that is being made."""
        folder = f"{part}/root"
        for name in prefix.strip("/").split("/"):
            folder = f"{folder}/{name}"
            self.materials.workshop.ask("folder", path=folder, mode=0o755, uid=0, gid=0)
        archives = "/run/packages"
        mounts = (
            Mount(self.engine.store.path(folder), prefix),
            Mount(self.downloads, archives, read_only=True),
        )
        request = {
            "do": "install",
            "prefix": prefix,
            "packages": [
                {"file": f"{archives}/{package.sha256}/{package.file_name}", "url": package.url} for package in packages
            ],
        }
        with open(program.__file__) as file:
            text = file.read()
        container = self.engine.create(ContainerSpec(network="none", mounts=mounts))
        try:
            self.engine.start(container.id)
            with tempfile.TemporaryFile() as asked:
                asked.write(json.dumps(request).encode())
                asked.seek(0)
                process = ProcessSpec((sys.executable, "-I", "-c", text))
                status, told = self.run(container.id, process, asked.fileno())
        finally:
            self.engine.remove(container.id, force=True)
        answer_of(status, told.encode(), b"")

    def run(self, container: str, spec: ProcessSpec, given: int = -1) -> tuple[int, str]:
        """Run a program in a container: its exit status, and what it wrote."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        with open(os.devnull, "rb") as null, open(read_end, "rb", buffering=0) as output:
            try:
                stdio = (null.fileno() if given < 0 else given, write_end, write_end)
                process = self.engine.spawn(container, spec, stdio)
            finally:
                os.close(write_end)
            with process:
                told = bytearray()
                while piece := output.read(1 << 16):
                    told += piece[: LONGEST_ANSWER - len(told)]
                return process.wait(), told.decode(errors="replace")

    def step(self, text: str) -> Step:
        """A step that is shown while it goes on."""
        return self.progress.step("conda", text)


def certificate(reached: settings.Settings) -> dict[str, str]:
    """conda's own file of certificates, before the host's."""
    return {"SSL_CERT_FILE": reached.certificates} if reached.certificates else {}


def answer_of(status: int, output: bytes, errors: bytes) -> Any:
    """What the program answered. Raises InvalidInput, HullError with its words."""
    try:
        answer = json.loads(output.rpartition(b"\n")[2])
    except ValueError:
        words = (errors or output).decode(errors="replace").strip().splitlines()
        raise HullError(
            f"conda's packages cannot be read: {words[-1] if words else f'status {status}'}",
            "is py-rattler whole? pip install --force-reinstall py-rattler",
        ) from None
    if "error" not in answer:
        return answer["answer"]
    if answer["kind"] in ("ModuleNotFoundError", "ImportError"):
        raise InvalidInput(f"building {NAME} needs py-rattler", "pip install 'nbhull[conda]'")
    kind = InvalidInput if answer["kind"] in ("SolverError", "ValueError", "InvalidMatchSpecError") else HullError
    raise kind(f"{NAME}: {' '.join(answer['error'].split())}", "see its channels and dependencies, and the network")
