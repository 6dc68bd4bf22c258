"""Attacks through the kernel's own files: /proc, /sys, /dev, cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.launcher import rootfs
from support.attacks import Tried

pytestmark = pytest.mark.nosubuid

MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware",
    "/sys/devices/virtual/powercap", "/sys/devices/system/cpu/cpu0/thermal_throttle", "/sys/fs/selinux", "/sys/fs/bpf",
    "/sys/kernel/debug", "/sys/kernel/security", "/sys/kernel/tracing",
]  # fmt: skip
SHOWN_WITHOUT = ("/proc/keys", "/proc/interrupts", "/sys/firmware")
"""what a container sees where nothing is masked"""
TUNABLES = ("/proc/sys/kernel/msgmax", "/proc/sys/fs/mqueue/msg_max", "/proc/sys/kernel/ns_last_pid")
"""what root of a user namespace may write where nothing is read-only"""


@pytest.mark.parametrize("path", MASKED)
def test_a_masked_path_tells_nothing(tried: Tried, path: str) -> None:
    for configuration in ("usual", "unfiltered", "capable", "alone"):
        assert tried(configuration)[f"read {path}"] in ("ENODATA", "ENOENT", "EACCES")


@pytest.mark.parametrize("path", SHOWN_WITHOUT)
def test_it_is_the_mask_that_hides(tried: Tried, path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"this machine has no {path}")
    assert tried()[f"read {path}"] == "ENODATA"
    assert tried("unmasked")[f"read {path}"].startswith("ok")


@pytest.mark.parametrize("path", TUNABLES)
def test_the_kernels_settings_are_read_only(tried: Tried, path: str) -> None:
    assert tried()[f"write {path}"] in ("EROFS", "EACCES")
    opened = tried("unmasked")[f"write {path}"]
    assert opened.startswith("ok") or path.endswith("ns_last_pid")
    if opened.startswith("ok"):
        assert tried()[f"write {path}"] == "EROFS"


def test_the_networks_settings_are_read_only(tried: Tried) -> None:
    path = "write /proc/sys/net/ipv4/ip_forward"
    assert tried("alone")[path] in ("EROFS", "EACCES")
    assert tried("alone and capable")[path] == "EROFS"
    assert tried("privileged")[path].startswith("ok")


@pytest.mark.parametrize(
    "path",
    ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/panic_on_oom",
     "/proc/irq/default_smp_affinity", "/proc/sys/fs/binfmt_misc/register", "/sys/power/state",
     "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/uevent_helper", "/proc/bus/pci/00/00.0"],
)  # fmt: skip
def test_the_host_cannot_be_changed(tried: Tried, path: str) -> None:
    """Masked or not, privileged or not: these are the host's root's."""
    for configuration in ("usual", "unmasked", "privileged"):
        assert tried(configuration)[f"write {path}"] in ("EROFS", "EACCES", "EPERM", "ENOENT")


def test_no_file_of_the_kernels_can_be_written(tried: Tried) -> None:
    """`find -writable` over /proc/sys, /proc/irq, /proc/fs, /proc/bus and /sys."""
    assert tried()["state"]["writable"] == []
    assert tried("alone")["state"]["writable"] == []
    assert tried("unmasked")["state"]["writable"] != []


@pytest.mark.parametrize("attempt", ["write_a_cgroup_file", "make_a_cgroup"])
def test_cgroups_are_not_the_containers_to_change(tried: Tried, attempt: str) -> None:
    """release_agent runs a program as the host's root; limits are the engine's."""
    for configuration in ("usual", "capable", "unmasked", "alone"):
        assert tried(configuration)[attempt] in ("EROFS", "EACCES", "ENOENT", "EPERM")


@pytest.mark.parametrize("configuration", ["usual", "alone", "privileged"])
def test_cgroups_of_others_are_not_seen(tried: Tried, configuration: str) -> None:
    """The container's own alone where there is one hierarchy, and none elsewhere."""
    mounts = [path for path, *_ in tried(configuration)["state"]["mounts"] if path.startswith("/sys/fs/cgroup")]
    assert tried(configuration)["list_cgroups"] in ("ENODATA", "ok []")
    assert mounts[-1] == "/sys/fs/cgroup"


@pytest.mark.parametrize("attempt", ["open_the_kernels_log", "open_memory", "open_a_disk"])
def test_devices_of_the_host_are_not_there(tried: Tried, attempt: str) -> None:
    for configuration in ("usual", "privileged"):
        assert tried(configuration)[attempt] == "ENOENT"


def test_every_mount_is_safe(tried: Tried) -> None:
    """No mount but /dev's brings devices; /proc and /sys bring no programs; /sys is read-only, its inner mounts too."""
    mounts = {path: set(flags) for path, *flags in tried()["state"]["mounts"]}
    for path, flags in mounts.items():
        if path.startswith(("/proc", "/sys")):
            assert {"nosuid", "nodev", "noexec"} <= flags or {"nosuid", "ro"} <= flags or path in NULL_MASKS, path
        if path == "/sys" or path.startswith("/sys/"):
            assert "ro" in flags, path
        if path.startswith(("/usr", "/run")):
            assert {"nosuid", "nodev"} <= flags, path


NULL_MASKS = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts", "/proc/sched_debug")
"""files that the null device lies over, whose mount must let the device be one"""


def test_a_null_device_that_is_none_is_refused(tmp_path: Path) -> None:
    """CVE-2025-31133: whatever lies over a masked file must be the null device itself."""
    fake = tmp_path / "null"
    fake.write_text("not null")
    for path, name in ((str(fake), "null"), ("/dev/zero", "null"), ("/dev/null", "zero")):
        fd = os.open(path, os.O_PATH)
        with pytest.raises(InvalidInput, match=f"/dev/{name} is not that device"):
            rootfs.check_device(fd, name)
        os.close(fd)
    fd = os.open("/dev/null", os.O_PATH)
    rootfs.check_device(fd, "null")
    os.close(fd)


def test_throttle_counts_of_every_processor_are_found(tmp_path: Path) -> None:
    """Virtual machines have none, so on a tree of the same form."""
    for name in ("cpu0/thermal_throttle", "cpu11/thermal_throttle", "cpufreq", "cpu"):
        (tmp_path / "devices/system/cpu" / name).mkdir(parents=True)
    fd = os.open(tmp_path, os.O_RDONLY)
    found = rootfs.throttles(fd)
    os.close(fd)
    assert sorted(found) == [f"devices/system/cpu/cpu{n}/thermal_throttle" for n in (0, 11)]
