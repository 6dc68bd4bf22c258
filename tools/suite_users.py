"""The ordinary users that the suite runs as: made, given the source tree, a Python and a session.

Stdlib only and for root only. Such a user can read neither root's home nor a Python that lies in
it, so it gets a copy of the tree and an environment made with the system's Python from a shared
folder of wheels.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = os.environ.get("NBHULL_TEST_USER", "nbhull-test")
"""the ordinary user's name, so that working trees side by side can each have users of their own"""
CACHE = Path(f"/var/cache/{NAME}")
USERS = {"user": NAME, "nosubuid": f"{NAME.removesuffix('-test')}-nosubuid"}
"""who each of the runs is made as"""
SYSTEM_PYTHON = "/usr/bin/python3"
PASSED_ON = re.compile(
    r"CI|LANG|TZ|PIP_\w+|(https?|no|all|ftp)_proxy|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE",
    re.IGNORECASE,
)
"""variables that say how to reach the network and what kind of run this is; no other goes in"""


@dataclass(frozen=True)
class SuiteUser:
    """A user that the suite runs as, its home ready."""

    entry: pwd.struct_passwd
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return Path(self.entry.pw_dir)

    @property
    def tree(self) -> Path:
        """its own copy of the source tree"""
        return self.home / "source"

    @property
    def python(self) -> Path:
        return self.home / "venv/bin/python"

    def command(self, *arguments: str | Path) -> list[str | Path]:
        """The command line that runs `arguments` as this user, in its environment and no other."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return ["runuser", "-u", self.entry.pw_name, "--", "env", "-i", *variables, *arguments]

    def run(self, *arguments: str | Path) -> None:
        """Run a command as this user, in its home; raises CalledProcessError."""
        subprocess.run(self.command(*arguments), cwd=self.home, check=True)

    def install(self, wheelhouse: Path, wheel: Path) -> None:
        """Bring the user's environment up to date: what the tests need, and nbhull from its wheel."""
        made_from = self.home / "venv/.made-from"
        pip: list[str | Path] = [self.python, "-m", "pip", "--disable-pip-version-check", "-qq"]
        pip += ["install", "--no-index"]
        if not made_from.exists() or made_from.read_text() != wheelhouse.name:
            print(f"making {self.home}/venv", flush=True)
            self.run(SYSTEM_PYTHON, "-m", "venv", "--clear", self.home / "venv")
            self.run(*pip, "--find-links", wheelhouse, *requirements())
            made_from.write_text(wheelhouse.name)
        self.run(*pip, "--no-deps", "--force-reinstall", wheel)


def pip_settings() -> dict[str, str]:
    """Root's own configuration of pip as variables, since no one else can read the file."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    settings = re.findall(r"^global\.([\w-]+)=(.*)$", listed, re.MULTILINE)
    return {f"PIP_{name.upper().replace('-', '_')}": str(ast.literal_eval(value)) for name, value in settings}


def requirements() -> list[str]:
    """What the tests need installed beside nbhull itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return sorted({*project["dependencies"], *project["optional-dependencies"]["test"], "pip"})


def wheels() -> Path:
    """A folder, readable to all, with a wheel of each thing that the tests need; made once."""
    version = subprocess.run([SYSTEM_PYTHON, "-VV"], check=True, capture_output=True, text=True).stdout
    key = hashlib.sha256("\n".join([version, *requirements()]).encode()).hexdigest()[:16]
    folder = CACHE / f"wheels-{key}"
    if folder.exists():
        return folder
    print("gathering wheels for the users' environments", flush=True)
    shutil.rmtree(CACHE, ignore_errors=True)
    CACHE.mkdir(mode=0o755, parents=True)
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", CACHE / "builder"], check=True)
    partial = CACHE / "partial"
    pip: list[str | Path] = [CACHE / "builder/bin/pip", "--disable-pip-version-check", "-qq"]
    subprocess.run([*pip, "wheel", "--wheel-dir", partial, *requirements()], check=True, cwd="/")
    partial.rename(folder)
    return folder


def own_wheel() -> Path:
    """nbhull's own wheel, built from the working tree."""
    out = CACHE / "dist"
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out], cwd=ROOT, check=True
    )
    (wheel,) = out.glob("*.whl")
    return wheel


def _ensure_user(name: str, *, subordinate_ids: bool) -> pwd.struct_passwd:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)
        entry = pwd.getpwnam(name)
    for file, option in (("/etc/subuid", "--del-subuids"), ("/etc/subgid", "--del-subgids")):
        lines = [line.split(":") for line in Path(file).read_text().splitlines()]
        ranges = [(int(first), int(count)) for owner, first, count in lines if owner == name]
        if subordinate_ids and not ranges:
            sys.exit(f"useradd gives {name} no range in {file}; set SUB_UID_COUNT in /etc/login.defs")
        for first, count in ranges if not subordinate_ids else ():
            subprocess.run(["usermod", option, f"{first}-{first + count - 1}", name], check=True)
    return entry


def _copy_tree(user: SuiteUser) -> None:
    """Give the user a fresh copy of what git tracks or would track."""
    shutil.rmtree(user.tree, ignore_errors=True)
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, user.tree / name
        if os.path.lexists(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    subprocess.run(["chown", "-R", "--no-dereference", f"{user.entry.pw_name}:", user.tree], check=True)


def prepare(name: str, *, subordinate_ids: bool) -> SuiteUser:
    """The user, made if need be, with a fresh copy of the tree."""
    entry = _ensure_user(name, subordinate_ids=subordinate_ids)
    passed_on = pip_settings() | {n: v for n, v in os.environ.items() if PASSED_ON.fullmatch(n)}
    user = SuiteUser(entry, {
        **passed_on,
        "HOME": entry.pw_dir,
        "USER": name,
        "LOGNAME": name,
        "SHELL": entry.pw_shell,
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "XDG_RUNTIME_DIR": f"/run/user/{entry.pw_uid}",
    })
    _copy_tree(user)
    return user


@contextlib.contextmanager
def session(user: SuiteUser) -> Iterator[None]:
    """What a login would give the user: its runtime folder, for as long as the block runs."""
    runtime = Path(user.environment["XDG_RUNTIME_DIR"])
    if runtime.exists():
        yield
        return
    runtime.parent.mkdir(mode=0o755, exist_ok=True)
    runtime.mkdir(mode=0o700)
    os.chown(runtime, user.entry.pw_uid, user.entry.pw_gid)
    try:
        yield
    finally:
        shutil.rmtree(runtime)


DELEGATED = ("cpu", "memory", "pids")
"""the controllers that systemd delegates to a user's session"""


@contextlib.contextmanager
def delegated_cgroup(user: SuiteUser, controllers: Iterable[str] = DELEGATED) -> Iterator[list[str]]:
    """What a login under systemd would give the user: a version 2 cgroup that it may divide.

    Yields the beginning of a command line that enters it. Where version 2 has none of the
    controllers, as under version 1, there is nothing to delegate and nothing to enter.
    """
    mount = _unified_mount()
    offered = (mount / "cgroup.controllers").read_text().split() if mount else []
    wanted = [name for name in controllers if name in offered]
    if mount is None or not wanted:
        yield []
        return
    # Only a cgroup without processes can be divided: the suite's own process goes one below.
    group, leaf = mount / user.entry.pw_name, mount / user.entry.pw_name / "session"
    (mount / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
    leaf.mkdir(parents=True)
    for folder in (group, leaf):
        for name in ("", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
            os.chown(folder / name, user.entry.pw_uid, user.entry.pw_gid)
    try:
        yield ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"', str(leaf / "cgroup.procs")]
    finally:
        leaf.rmdir()
        group.rmdir()


def _unified_mount() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        head, _, tail = line.partition(" - ")
        if tail.startswith("cgroup2 "):
            return Path(head.split(" ")[4])
    return None
