"""A start that cannot succeed says why, at once, and leaves nothing behind."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager

from nbhull.kernel.failure import KernelFailed
from support.jupyter import Place, Start, container_entries, execute, install_spec, make_image, value

names = iter(range(1000))


def failure(place: Place, *, cwd: str | None = None, env: dict[str, str] | None = None, **config: Any) -> str:
    """What a start with this config fails with. Nothing may be left of it."""
    containers = {container.id for container in place.engine.containers()}
    entries = container_entries()
    spec = install_spec(f"bad-{next(names)}", place.prefix, **config)
    manager = KernelManager(kernel_name=spec)
    kwargs: dict[str, Any] = {"cwd": cwd} if cwd else {}
    if env is not None:
        kwargs["env"] = {**os.environ, **env}
    with pytest.raises(KernelFailed) as caught:
        manager.start_kernel(**kwargs)
    manager.cleanup_resources()
    assert {container.id for container in place.engine.containers()} == containers
    assert container_entries() - entries == set()
    assert list(Path(os.environ["JUPYTER_RUNTIME_DIR"]).glob("*.log")) == []
    assert isinstance(caught.value, RuntimeError)
    text = str(caught.value)
    assert "\n" not in text
    assert ". " in text, "there is no hint"
    return text


CASES: list[tuple[dict[str, Any], str]] = [
    ({"image": "no-such-image"}, "no image 'no-such-image'"),
    ({"image": "../../etc"}, "sets image wrongly"),
    ({"memory": "12 elephants"}, "'12 elephants' is not a size"),
    ({"memory": -1}, "sets memory wrongly"),
    ({"cpus": "many"}, "sets cpus wrongly"),
    ({"pids": 0}, "sets pids wrongly"),
    ({"network": "bridge"}, "sets network wrongly"),
    ({"mounts": "/data"}, "sets mounts wrongly"),
    ({"mounts": ["data"]}, "is not an absolute path"),
    ({"mounts": ["/no/such/folder"]}, "/no/such/folder"),
    ({"mounts": [{"source": "/etc", "target": "/proc/1"}]}, "/proc/1"),
    ({"environment": {"A B": "1"}}, "is not a variable's name"),
    ({"control": "host"}, "sets control wrongly"),
    ({"memroy": "1g"}, "unknown container setting 'memroy'"),
    ({"kernel": "no-such-kernel"}, "no kernelspec 'no-such-kernel'"),
    ({"prefix": "/no/such/prefix"}, "/no/such/prefix"),
]


@pytest.mark.nosubuid
@pytest.mark.parametrize(("config", "reason"), CASES, ids=[reason for _, reason in CASES])
def test_kernelspec(place: Place, folder: Path, config: dict[str, Any], reason: str) -> None:
    assert reason in failure(place, **config)


def test_a_folder_that_is_not_there(place: Place, folder: Path) -> None:
    assert "does not exist" in failure(place, cwd=str(folder / "gone"))


def test_a_python_without_ipykernel(place: Place, folder: Path) -> None:
    image = make_image(
        place, "no-ipykernel", "rm -rf $(python -c 'import ipykernel, os; print(os.path.dirname(ipykernel.__file__))')"
    )
    text = failure(place, image=image)
    assert "has no ipykernel" in text
    assert "pip install ipykernel" in text


def test_a_python_that_cannot_start(place: Place, folder: Path) -> None:
    image = make_image(
        place, "broken-traitlets", "echo 1/0 > $(python -c 'import traitlets; print(traitlets.__file__)')"
    )
    assert "ZeroDivisionError" in failure(place, image=image)


def test_a_malformed_kernelspec_in_the_image(place: Place, folder: Path) -> None:
    image = make_image(
        place,
        "bad-spec",
        "echo '[' > $(python -c 'import sys; print(sys.prefix)')/share/jupyter/kernels/python3/kernel.json",
    )
    assert "is not valid JSON" in failure(place, image=image)


# -- notebooks -----------------------------------------------------------------------------------


def notebook(folder: Path, metadata: Any) -> dict[str, str]:
    """The environment that jupyter_server gives the kernel of a notebook with this metadata."""
    path = folder / "work.ipynb"
    path.write_text(json.dumps({"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return {"JPY_SESSION_NAME": str(path)}


DENIED: list[tuple[Any, str]] = [
    ({"mounts": ["/"]}, "container.mounts"),
    ({"environment": {"A": "1"}}, "container.environment"),
    ({"prefix": "/"}, "container.prefix"),
    ({"control": "self"}, "container.control"),
    ({"network": "host"}, "container.network"),
    ({"privileged": True}, "only a kernelspec may set"),
    ({"devices": ["/dev/sda"]}, "container.devices"),
    ({"security_opt": ["seccomp=unconfined"]}, "container.security_opt"),
    ({"cap_add": ["SYS_ADMIN"]}, "container.cap_add"),
    ({"tmpfs": ["/etc"]}, "container.tmpfs"),
    ({"image": "/etc"}, "image '/etc' is not a name"),
    ({"image": "../../etc"}, "is not a name"),
    ({"image": "\x1b]0;owned\x07"}, "image '\\x1b]0;owned\\x07' is not a name"),
    ({"runtime": "other"}, "unknown container setting 'runtime'"),
    ({"image": ["host"]}, "sets image wrongly"),
    ({"memory": "12 elephants"}, "is not a size"),
    ({"cpus": float("inf")}, "sets cpus wrongly"),
    ("host", "not a table"),
]


@pytest.mark.parametrize(("asked", "reason"), DENIED, ids=[reason for _, reason in DENIED])
def test_notebook(place: Place, folder: Path, asked: Any, reason: str) -> None:
    assert reason in failure(place, env=notebook(folder, {"container": asked}), network="none")


def test_hostile_notebooks(place: Place, folder: Path) -> None:
    environment = notebook(folder, {})
    path = Path(environment["JPY_SESSION_NAME"])
    for text in (
        "[" * 200_000,
        "{",
        "[]",
        '{"metadata": 1}',
        '{"metadata": {"container": {"pids": ' + "9" * 9999 + "}}}",
    ):
        path.write_text(text)
        assert failure(place, env=environment)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert execute_with(place, environment) == "ok"  # no file, no settings


def execute_with(place: Place, environment: dict[str, str]) -> str:
    """The status of a cell of a kernel that is started with this environment."""
    manager = KernelManager(kernel_name="nbhull")
    manager.start_kernel(env={**os.environ, **environment})
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        return execute(client, "1").status
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy(linger=0)


@pytest.mark.requires("cgroup-memory", "cgroup-pids", "cgroup-cpu")
def test_a_notebook_tightens(place: Place, folder: Path, start: Start) -> None:
    spec = install_spec("limited", place.prefix, memory="2g", pids=500)
    asked = {"memory": "1g", "pids": 1000, "network": "none", "cpus": 1}
    manager, client = start(spec, env={**os.environ, **notebook(folder, {"container": asked})})
    made = manager.provisioner.contained.container.spec
    assert (made.limits.memory, made.limits.pids, made.limits.cpus, made.network) == (1 << 30, 500, 1.0, "none")
    assert "asks for pids 1000" in execute(client, "1").errors
    assert value(client, "open('/proc/net/dev').read().count(':')") == "1"  # the loopback device alone


def test_a_notebook_chooses_its_image(place: Place, folder: Path, start: Start) -> None:
    image = make_image(place, "with-a-file", "echo hello > /root/greeting")
    _, client = start(env={**os.environ, **notebook(folder, {"container": {"image": image}})})
    assert value(client, "open('/root/greeting').read()") == "hello"


def test_the_notebook_of_a_program_that_runs_in_a_kernel_is_not_taken(
    place: Place, folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "JPY_SESSION_NAME", notebook(folder, {"container": {"image": "no-such-image"}})["JPY_SESSION_NAME"]
    )
    _, client = start()
    assert value(client, "1") == "1"
