"""Fuzzing by coverage (atheris): each target for some seconds, in a process of its own with bounded memory.

`python tools/fuzz.py [SECONDS [TARGET…]]`. What it learns stays in build/fuzz/TARGET, so that the next run goes on from
there; exit status 1 if a target failed, with the input in build/fuzz/TARGET/crash-….
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
CORPUS = ROOT / "build/fuzz"
SECONDS = 60
MEMORY = 1024
"""MiB that a target may take, Python and all that it has imported among them"""
SLOWEST = 10
"""seconds that one input may take"""


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target, in this process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["nbhull"]):
        from support import fuzzing
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(fuzzing.TARGETS[name][1]):
        (folder / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY}", f"-timeout={SLOWEST}", "-print_final_stats=1"]
    options += [f"-artifact_prefix={folder}/", "-verbosity=0", "-max_len=8192"]
    atheris.Setup([sys.argv[0], *options, str(folder)], lambda data: fuzzing.attempt(name, data))
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    """All targets, or those named; the exit status."""
    if arguments[:1] == ["--one"]:
        fuzz(arguments[1], int(arguments[2]))
    from support import fuzzing

    seconds = int(arguments[0]) if arguments else SECONDS
    failed = []
    for name in arguments[1:] or list(fuzzing.TARGETS):
        done = subprocess.run(
            [sys.executable, __file__, "--one", name, str(seconds)], capture_output=True, text=True, check=False
        )
        runs = [line.rpartition(" ")[2] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        outcome = "failed" if done.returncode else "nothing found"
        print(f"{name}: {runs[0] if runs else '?'} inputs, {outcome}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout[-4000:] + done.stderr[-4000:], flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
