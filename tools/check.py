"""All linters and type checks, one after the other; exit status 1 if any of them complains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

CHECKS = {
    "ruff": ["ruff", "check", "--quiet", "--output-format=concise", "."],
    "mypy, the package": ["mypy", "--no-error-summary"],
    "mypy, tools and benchmarks": ["mypy", "--no-error-summary", "tools", "benchmarks", "tests/support"],
    "mypy, tests": ["mypy", "--no-error-summary", "--allow-untyped-defs", "--allow-incomplete-defs",
                    "--allow-untyped-calls", "--allow-untyped-decorators",
                    # A test that reaches into what may be None fails all the same.
                    "--disable-error-code=union-attr", "tests"],
}


def failing_checks() -> list[str]:
    """Run every check, its complaints on standard output; the names of those that failed."""
    failed = []
    for name, command in CHECKS.items():
        complete = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, check=False)
        print(f"{name}: {'ok' if complete.returncode == 0 else 'FAILED'}", flush=True)
        if complete.returncode:
            failed.append(name)
    return failed


if __name__ == "__main__":
    sys.exit(1 if failing_checks() else 0)
