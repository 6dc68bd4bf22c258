"""The checks and the whole test suite: as root, as an ordinary user, and as one without subordinate ids.

The ordinary users' runs go on beside root's, in a process of their own whose output is shown when root's
run has ended. Run by an ordinary user, only that user's part. The last line counts the tests of all
runs (a check that fails counts as a failed test); exit status 1 if anything failed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import check
import debian
import suite_users

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support import outside  # noqa: E402  # the tests' own

REPORTS = ROOT / "build/tests"
USERS_LOG, USERS_OUTCOMES = REPORTS / "users.log", REPORTS / "users.json"
"""what the process of the users' runs writes: its output, and how many tests passed, failed and were skipped"""

FOR_USERS = "--only-users"
"""first argument of that process"""

TESTS_FAILED = 1
"""pytest's exit status for a run that came to its end with failures"""
LONGEST_RUN = 900
"""seconds that one of the runs may take; far above what it needs"""

PACKAGES = {
    "Rscript": "r-base-core",
    "buildah": "buildah",
    "busybox": "busybox-static",
    "bwrap": "bubblewrap",
    "chromium": "chromium",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "git": "git",
    "htpasswd": "apache2-utils",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "skopeo": "skopeo",
    "umoci": "umoci",
    "podman": "podman",
    "newuidmap": "uidmap",
    "nft": "nftables",
    "pasta": "passt",
    "runc": "runc",
    "runuser": "util-linux",
    "slirp4netns": "slirp4netns",
    "strace": "strace",
    "useradd": "passwd",
}
"""Programs that the tests use, and the Debian packages that they come in."""

MODULES = {"seccomp": "python3-seccomp"}
"""The same of modules of the system's Python."""


@dataclass
class Outcome:
    """How many tests passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def read_report(report: Path, status: int) -> Outcome:
    """The outcome of a pytest run; a failure that no test stands for (a leak, a crash) counts as one."""
    if not report.exists():
        return Outcome(failed=1)
    suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    tests, failures, errors, skipped = (
        sum(int(suite.get(name, "0")) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return Outcome(max(0, tests - failed - skipped), max(failed, 1 if status else 0), skipped)


def missing_packages() -> list[str]:
    packages = {package for program, package in PACKAGES.items() if shutil.which(program) is None}
    python = suite_users.SYSTEM_PYTHON
    if not Path(python).exists():
        packages.add("python3")
    for module, package in {"ensurepip": "python3-venv", **MODULES}.items():
        if not Path(python).exists() or subprocess.run(
            [python, "-c", f"import {module}"], check=False, capture_output=True
        ).returncode:
            packages.add(package)
    return sorted(packages)


def pytest_command(python: str | Path, run: str, report: Path, arguments: list[str]) -> list[str | Path]:
    """One run of the suite; interrupted, so that it still reports, if a hang holds it up for too long."""
    limit = ["timeout", "--foreground", "--signal=INT", "--kill-after=30", str(LONGEST_RUN)]
    return [*limit, python, "-m", "pytest", f"--run={run}", f"--junitxml={report}", *arguments]


def with_second_try(report: Path, attempt: Callable[[Path, list[str]], int]) -> Outcome:
    """The outcome of a run after which the tests that failed were tried once more, by themselves: on a busy machine
    even what waits for events may wait too long. Those that pass then are named, to be made steady.

    `attempt` runs pytest with a report and more arguments; its exit status. A run that was cut short, or that left
    something behind, gets no second try."""
    status = attempt(report, [])
    first = read_report(report, status)
    if status != TESTS_FAILED:
        return first
    title("once more, by themselves: the tests that failed")
    second_report = report.with_stem(f"{report.stem}-again")
    status = attempt(second_report, ["--last-failed", "--last-failed-no-failures=none", "-v"])
    second = read_report(second_report, status)
    if status or not second.passed:
        return first
    print(f"not steady: {second.passed} tests failed at first, and passed by themselves", flush=True)
    return Outcome(first.passed + second.passed, 0, first.skipped)


def run_here(run: str, arguments: list[str]) -> Outcome:
    """Run the suite as whoever runs this."""

    def attempt(report: Path, more: list[str]) -> int:
        report.unlink(missing_ok=True)
        command = pytest_command(sys.executable, run, report, [*arguments, *more])
        return subprocess.run(command, cwd=ROOT, check=False).returncode

    return with_second_try(REPORTS / f"{run}.xml", attempt)


def run_as(run: str, user: suite_users.SuiteUser, arguments: list[str]) -> Outcome:
    """Run the suite as an ordinary user, in its own copy of the tree."""
    with suite_users.session(user), suite_users.delegated_cgroup(user) as enter, outside.outside() as (there, resolver):
        user.environment[outside.VARIABLE] = there

        def attempt(report: Path, more: list[str]) -> int:
            command = user.command(*pytest_command(user.python, run, report, [*arguments, *more]))
            return subprocess.run(
                [*outside.machine(resolver), *enter, *command], cwd=user.tree, check=False
            ).returncode

        return with_second_try(user.tree / "report.xml", attempt)


def run_as_users(arguments: list[str]) -> int:
    """The ordinary users' runs; the process that root's run goes on beside."""
    # The copies first, before anything is written into the tree.
    users = {run: suite_users.prepare(name, subordinate_ids=run == "user") for run, name in suite_users.USERS.items()}
    wheelhouse, wheel = suite_users.wheels(), suite_users.own_wheel()
    outcomes: dict[str, Outcome] = {}
    for run, user in users.items():
        title(f"tests as {user.entry.pw_name}")
        user.install(wheelhouse, wheel)
        outcomes[run] = run_as(run, user, arguments)
    USERS_OUTCOMES.write_text(json.dumps({run: asdict(outcome) for run, outcome in outcomes.items()}))
    return 0


def collect_users(process: subprocess.Popen[bytes]) -> dict[str, Outcome]:
    """Wait for the users' runs, and show what they wrote."""
    if process.poll() is None:
        print("\nwaiting for the ordinary users' runs", flush=True)
    status = process.wait()
    sys.stdout.buffer.write(USERS_LOG.read_bytes())
    sys.stdout.flush()
    if status:
        return {"users": Outcome(failed=1)}
    return {run: Outcome(**counts) for run, counts in json.loads(USERS_OUTCOMES.read_text()).items()}


def title(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def main(arguments: list[str]) -> int:
    """Run everything; `arguments` go to each pytest."""
    started = time.monotonic()
    REPORTS.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    is_root = os.getuid() == 0

    if missing := missing_packages():
        if is_root:
            debian.install(missing)
        else:
            print(f"some tests will be skipped; for all of them: sudo apt-get install -y {' '.join(missing)}")

    if is_root:
        command = [sys.executable, __file__, FOR_USERS, *arguments]
        with USERS_LOG.open("wb") as log:
            users = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    title("checks")
    if failed := check.failing_checks():
        outcomes["checks"] = Outcome(failed=len(failed))

    if is_root:
        title("tests as root")
        outcomes["root"] = run_here("root", arguments)
        outcomes |= collect_users(users)
    else:
        from support.abilities import current_run

        run = current_run()
        title(f"tests as this user, the {run!r} run only; root runs all three")
        outcomes[run] = run_here(run, arguments)

    title(f"{time.monotonic() - started:.0f} s; {'; '.join(f'{run}: {o}' for run, o in outcomes.items())}")
    total = sum(outcomes.values(), Outcome())
    print(total, flush=True)
    return 1 if total.failed else 0


if __name__ == "__main__":
    only_users = sys.argv[1:2] == [FOR_USERS]
    sys.exit(run_as_users(sys.argv[2:]) if only_users else main(sys.argv[1:]))
