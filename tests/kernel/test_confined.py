"""Kernels whose kernelspec or notebook confines them more than usual."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nbhull.runtime import cli
from support.jupyter import Place, Start, execute, install_spec, value

STATUS = "dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines() if line.startswith('Cap'))"


def test_a_kernel_with_nothing_to_spare(place: Place, start: Start, folder: Path) -> None:
    """No capability, and nothing but the notebook's own folder and memory to write to."""
    spec = install_spec(
        "tight", place.prefix, cap_drop=["ALL"], read_only=True, tmpfs=["/tmp", "/root:size=8m"], ulimits=["core=0"]
    )
    _, client = start(spec)
    assert value(client, f"set({STATUS}.values())") == f"{{{'0' * 16!r}}}"
    assert execute(client, "open('/etc/new', 'w')").ename == "OSError"
    assert value(client, "open('/tmp/new', 'w').write('x'), open('mine', 'w').write('x')") == "1 1"
    assert (folder / "mine").exists()


def test_a_notebook_confines_itself(place: Place, start: Start, folder: Path) -> None:
    path = folder / "work.ipynb"
    asked = {"cap_drop": ["net_raw", "CAP_MKNOD"], "read_only": True}
    document = {"cells": [], "metadata": {"container": asked}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(document))
    _, client = start(env={"JPY_SESSION_NAME": str(path)})
    raw, node = 1 << 13, 1 << 27
    assert value(client, f"int({STATUS}['CapBnd'], 16) & {raw | node}") == "0"
    assert execute(client, "open('/srv/new', 'w')").ename == "OSError"


def test_what_kernel_install_is_told_reaches_the_kernel(
    place: Place, start: Start, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "kernel", "install", "--prefix", str(place.prefix), "--name", "told", "--cap-drop", "ALL", "--cap-add", "chown",
        "--read-only", "--tmpfs", "/scratch:size=1m", "--device", "/dev/full:/dev/mine", "--ulimit", "nofile=300:400",
        "--security-opt", "systempaths=unconfined", "--group-add", "0",
    ]  # fmt: skip
    assert cli.main(words) == 0
    capsys.readouterr()
    _, client = start("told")
    assert value(client, f"{STATUS}['CapEff']") == f"{1:016x}"
    assert execute(client, "open('/srv/new', 'w')").ename == "OSError"
    assert value(client, "open('/scratch/new', 'w').write('x'), len(open('/dev/mine', 'rb').read(3))") == "1 3"
    assert value(client, "*__import__('resource').getrlimit(__import__('resource').RLIMIT_NOFILE),") == "300 400"
    assert value(client, "__import__('os').statvfs('/proc/sys').f_flag & 1") == "0"


def test_what_could_not_be_started_is_not_installed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    install = ["kernel", "install", "--prefix", str(place.prefix), "--name", "wrong"]
    for option, text in (("--cap-add", "SYS_EVERYTHING"), ("--device", "here"), ("--ulimit", "x=1"), ("--gpus", "no")):
        assert cli.main([*install, option, text]) != 0
        assert "wrongly" in capsys.readouterr().err, text
    assert not (place.prefix / "share/jupyter/kernels/wrong").exists()
