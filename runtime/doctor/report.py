"""All probes, in the order in which a container's start meets them."""

from __future__ import annotations

from collections.abc import Callable

from nbhull.runtime.doctor import namespaces, places, resources, storage
from nbhull.runtime.doctor.findings import Finding, Report

PROBES: tuple[Callable[[], Finding], ...] = (
    namespaces.probe_linux,
    namespaces.probe_user_namespaces,
    namespaces.probe_ids,
    storage.probe_store,
    storage.probe_overlay,
    storage.probe_idmapped_mounts,
    storage.probe_quotas,
    resources.probe_cgroups,
    namespaces.probe_seccomp,
    resources.probe_network,
    places.probe_policy,
    places.probe_runtime_folder,
    places.probe_python,
)


def examine() -> Report:
    """Try everything; nothing is left behind. For a single-threaded process: probes fork."""
    return Report([probe() for probe in PROBES])
