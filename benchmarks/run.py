"""Run the benchmarks: as whoever runs this, and by root as an ordinary user too.

    benchmarks/run.py                         all of them; writes results.json and the README's table
    benchmarks/run.py --quick                 a minute's worth, as this user only; prints and writes nothing
    benchmarks/run.py --only kernels memory   these alone; the others' results stay as they are
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bombs
import builds
import containers
import kernels
import memory
import panel
import registries
import report
import seccomp
import snapshots

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))

import debian  # noqa: E402
import suite_users  # noqa: E402

EVERY = {
    module.__name__: module
    for module in (containers, kernels, memory, panel, builds, seccomp, registries, snapshots, bombs)
}
RESULTS = ROOT / "benchmarks/results.json"


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """A store and a kernelspec for this run alone, found by all that it starts."""
    with tempfile.TemporaryDirectory(prefix="bench-store-", ignore_cleanup_errors=True) as folder:
        # Some environments forbid Python to keep compiled modules; an installed package has them.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["NBHULL_HOME"] = f"{folder}/store"
        os.environ["JUPYTER_PATH"] = f"{folder}/share/jupyter"
        subprocess.run(
            [containers.NBHULL, "kernel", "install", "--prefix", folder],
            check=True, stdout=subprocess.DEVNULL,
        )
        yield


def run_here(quick: bool, only: Sequence[str]) -> dict[str, Any]:
    """All benchmarks as this user, or those that are named."""
    results = []
    with surroundings():
        modules = [EVERY[name] for name in only or EVERY]
        for result in itertools.chain.from_iterable(module.benchmarks(quick) for module in modules):
            data = result.to_dict()
            results.append(data)
            print("\n".join(report.rows(data, "user" if os.getuid() else "root")), flush=True)
    return {"software": report.software(), "results": results}


def run_as_user(only: Sequence[str]) -> dict[str, Any]:
    """All benchmarks as an ordinary user, in its own copy of the tree; needs root."""
    user = suite_users.prepare(suite_users.NAME, subordinate_ids=True)
    user.install(suite_users.wheels(), suite_users.own_wheel())
    part = user.home / "benchmarks.json"
    with suite_users.session(user), suite_users.delegated_cgroup(user) as enter:
        subprocess.run(
            [*enter, *user.command(user.python, user.tree / "benchmarks/run.py", "--part", part, "--only", *only)],
            cwd=user.tree, check=True,
        )
    measured: dict[str, Any] = json.loads(part.read_text())
    return measured


def keep_others(runs: dict[str, dict[str, Any]]) -> None:
    """Add what was published before and not measured now."""
    if not RESULTS.exists():
        return
    before = json.loads(RESULTS.read_text())["runs"]
    for who, run in runs.items():
        measured = {result["name"] for result in run["results"]}
        others = before.get(who, {"results": []})["results"]
        run["results"] = [result for result in others if result["name"] not in measured] + run["results"]


def main() -> None:
    """Measure and publish."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--quick", action="store_true", help="few rounds; publish nothing")
    parser.add_argument("--part", type=Path, help="write this user's part here; publish nothing")
    parser.add_argument("--only", nargs="*", choices=EVERY, default=[], help="these alone", metavar="NAME")
    options = parser.parse_args()
    peers = containers.PEERS | builds.PEERS | panel.PEERS
    if os.getuid() == 0 and (missing := [p for n, p in peers.items() if shutil.which(n) is None]):
        debian.install(missing)
    own = run_here(options.quick, options.only)
    if options.part:
        options.part.write_text(json.dumps(own))
    elif not options.quick:
        runs = {"root": own, "user": run_as_user(options.only)} if os.getuid() == 0 else {"user": own}
        keep_others(runs)
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        document = {"date": today, "machine": report.machine(), "runs": runs}
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")
        report.publish(ROOT / "README.md", document)
        print(f"published in {RESULTS.relative_to(ROOT)} and README.md")


if __name__ == "__main__":
    main()
