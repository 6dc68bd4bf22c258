"""What the benchmarks are published as: results.json and the README's table."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
RUNS = {"root": "root", "user": "an ordinary user"}


def machine() -> dict[str, Any]:
    """The machine that measured, as far as it matters to the numbers."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(":")[2].strip() for line in cpus if line.startswith("model name")}
    system = platform.freedesktop_os_release()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": ", ".join(sorted(models)) or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30), 1),
        "linux": platform.release(),
        "distribution": system.get("PRETTY_NAME", ""),
    }


def software() -> dict[str, str]:
    """The versions that matter to the numbers; each run may have a Python of its own."""
    names = ("nbhull", "ipykernel", "jupyter_client")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def shown(value: float, unit: str) -> str:
    """`4.31 ms` below ten, `43.1 ms` below a hundred, `431 ms` above; other units likewise."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f} {unit}"


def target(result: dict[str, Any]) -> str:
    """What was aimed at, and whether it was reached."""
    if result["met"] is None:
        return "–"
    aims = []
    if result["target_ms"] is not None:
        aims.append(f"≤ {result['target_ms']:g} ms")
    if result["target_mb"] is not None:
        aims.append(f"≤ {result['target_mb']:g} MB")
    if result["target_ratio"] is not None:
        aims.append(f"≤ {result['target_ratio']:.2f}")
    return f"{' and '.join(aims)}: {'met' if result['met'] else '**missed**'}"


def rows(result: dict[str, Any], run: str) -> list[str]:
    """The table's rows of one benchmark: one for each variant compared, the target beside the first."""
    subject, *_ = result["median"]
    own = shown(result["median"][subject], result["unit"])
    name = f"{result['name']} ({RUNS[run]})"
    if not result["against"]:
        return [f"| {name} | {own} | – | – | {target(result)} |"]
    lines = []
    for number, other in enumerate(result["against"]):
        low, high = other["interval"]
        peer = f"{other['variant']} {shown(result['median'][other['variant']], result['unit'])}"
        comparison = f"{other['ratio']:.3f} ({low:.3f} to {high:.3f})"
        head = f"| {name} | {own}" if number == 0 else "| | "
        lines.append(f"{head} | {peer} | {comparison} | {target(result) if number == 0 else ''} |")
    return lines


def table(document: dict[str, Any]) -> str:
    """The benchmarks as Markdown."""
    host = document["machine"]
    lines = [
        "| benchmark | nbhull | other | ratio (95 % interval) | target |",
        "|---|---|---|---|---|",
    ]
    for run, part in document["runs"].items():
        for result in part["results"]:
            lines += rows(result, run)
    unavailable = [
        f"{name} as {RUNS[run]}: {why}"
        for run, part in document["runs"].items()
        for result in part["results"]
        for name, why in result["unavailable"].items()
    ]
    versions = "; ".join(
        f"{RUNS[run]}: {', '.join(f'{name} {version}' for name, version in part['software'].items())}"
        for run, part in document["runs"].items()
    )
    lines += [
        "",
        f"Medians of alternating rounds in one run on {document['date']}; the ratio is nbhull's median over "
        f"the other's. {host['processor']}, {host['cores']} cores, {host['memory_gib']} GiB, "
        f"{host['distribution']}, Linux {host['linux']} ({versions}).",
    ]
    if unavailable:
        lines.append(f"Could not run here: {'; '.join(unavailable)}.")
    return "\n".join(lines)


def publish(readme: Path, document: dict[str, Any]) -> None:
    """Put the table between the README's markers; raises ValueError if they are not there."""
    head, begin, rest = readme.read_text().partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} has no {BEGIN} … {END}")
    readme.write_text(f"{head}{BEGIN}\n{table(document)}\n{END}{tail}")
