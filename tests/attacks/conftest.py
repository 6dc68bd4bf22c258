"""Containers to attack from: one for each set of settings, in which all attempts of support.inside are made at once,
and one with a control socket."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from nbhull.kernel.config import KernelConfig
from nbhull.kernel.contained import ContainedKernel
from nbhull.kernel.control import ControlService
from nbhull.kernel.folder import WorkingFolder
from nbhull.runtime.engine import Engine
from nbhull.runtime.model import ContainerSpec
from support.attacks import CONFIGURATIONS, Outside, Tried, attack
from support.boxes import Box


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    found = Outside(tmp_path_factory.mktemp("outside"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def tried(shared_engine: Engine, outside: Outside) -> Tried:
    """All attempts, made once for each configuration and user."""
    results: dict[tuple[str, str], dict[str, Any]] = {}

    def once(configuration: str = "usual", user: str = "root") -> dict[str, Any]:
        if (configuration, user) not in results:
            box = Box(shared_engine, ContainerSpec(**CONFIGURATIONS[configuration]))
            try:
                results[configuration, user] = attack(shared_engine, box.id, outside, user=user)
            finally:
                shared_engine.remove(box.id, force=True)
        return results[configuration, user]

    return once


@pytest.fixture(scope="module")
def served(shared_engine: Engine) -> Iterator[Box]:
    """A container with a control socket, as a kernel's has one."""
    box = Box(shared_engine, ContainerSpec())
    folder = WorkingFolder("/", None)
    kernel = ContainedKernel(shared_engine, KernelConfig(), folder, (), "attacked", logging.getLogger("nbhull"))
    kernel.container = box.container
    service = ControlService(kernel)
    service.listen()
    yield box
    service.close()
    shared_engine.remove(box.id, force=True)
