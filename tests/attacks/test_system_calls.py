"""Attacks that the filter of system calls stops, and the capabilities that are left."""

from __future__ import annotations

import platform

import pytest

from nbhull.runtime.linux.process import CAPABILITIES, DEFAULT_CAPABILITIES, capability_mask
from support.attacks import MARKED, Tried

pytestmark = pytest.mark.nosubuid

FILTERED = [
    *(
        f"call {name}"
        for name in "acct add_key bpf clock_settime delete_module fanotify_init finit_module fsmount fsopen fspick "
        "get_mempolicy init_module io_uring_setup kcmp kexec_load keyctl lookup_dcookie mbind mount mount_setattr "
        "move_mount move_pages open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root process_madvise "
        "quotactl reboot request_key set_mempolicy setdomainname sethostname setns settimeofday swapoff swapon syslog "
        "umount2 unshare userfaultfd vhangup".split()
    ),
    "clone_new_user_namespace",
    "clone_new_namespace_behind_high_bits",
    "unshare_user_namespace",
    "user_namespace_then_mount",
    "socket_of_the_kernels_ciphers",
    "socket_of_the_kernels_ciphers_behind_high_bits",
    "socket_to_the_hypervisor",
    "personality_without_randomization",
    "keys_of_who_started_us",
]

UNFILTERED = {
    "call add_key", "call io_uring_setup", "call keyctl", "call get_mempolicy", "call userfaultfd",
    "clone_new_user_namespace", "unshare_user_namespace", "user_namespace_then_mount", "socket_to_the_hypervisor",
    "personality_without_randomization",
}  # fmt: skip
"""of these, what an ordinary container can do without the filter"""

CAPABLE = {"call mount", "call fsopen", "call open_tree", "call unshare", "call sethostname", "call setdomainname"}
"""what all capabilities open, by the kernel's own check and the profile's rules for them"""


@pytest.mark.parametrize("attempt", FILTERED)
def test_the_filter_refuses(tried: Tried, attempt: str) -> None:
    assert tried()[attempt] == "EPERM"
    assert tried("marked")[attempt] == MARKED, "something else than the filter stops it"


@pytest.mark.parametrize("attempt", sorted(UNFILTERED))
def test_nothing_but_the_filter_refuses(tried: Tried, attempt: str) -> None:
    if attempt == "socket_to_the_hypervisor" and tried("unfiltered")[attempt] == "EAFNOSUPPORT":
        pytest.skip("this kernel has no AF_VSOCK")
    assert tried("unfiltered")[attempt].startswith("ok")


@pytest.mark.parametrize("attempt", sorted(CAPABLE))
def test_capabilities_open_what_they_are_for(tried: Tried, attempt: str) -> None:
    assert tried("unfiltered")[attempt] == "EPERM"
    assert tried("capable")[attempt].startswith("ok")


def test_flags_in_memory_cannot_be_hidden(tried: Tried) -> None:
    assert tried()["call clone3"] == "ENOSYS"
    assert tried("unfiltered")["call clone3"] == "EINVAL"


def test_calls_of_another_architecture_end_the_process(tried: Tried) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("an x86-64's second table")
    assert tried()["call_of_32_bit_x86"] == "signal SIGSYS"
    assert tried("unfiltered")["call_of_32_bit_x86"].startswith(("ok", "signal SIGSEGV"))
    assert tried()["call_of_x32"] == "ENOSYS"


def test_a_call_that_the_profile_does_not_know_is_not_there(tried: Tried) -> None:
    assert tried()["call_newer_than_the_profile"] == "ENOSYS"


@pytest.mark.requires("subuid")
@pytest.mark.parametrize("attempt", FILTERED)
def test_the_filter_refuses_a_user_of_the_container_too(tried: Tried, attempt: str) -> None:
    assert tried(user="daemon")[attempt] == "EPERM"


@pytest.mark.parametrize("configuration", ["usual", "unfiltered", "unmasked", "alone"])
def test_the_capability_sets(tried: Tried, configuration: str) -> None:
    state = tried(configuration)["state"]
    usual = f"{capability_mask(DEFAULT_CAPABILITIES):016x}"
    assert [state[f"Cap{kind}"] for kind in ("Bnd", "Prm", "Eff")] == [usual] * 3
    assert [state[f"Cap{kind}"] for kind in ("Inh", "Amb")] == ["0" * 16] * 2
    assert len(DEFAULT_CAPABILITIES) == 14
    assert state["NoNewPrivs"] == "1"
    assert state["Seccomp"] == ("0" if configuration == "unfiltered" else "2")


def test_the_capability_sets_are_what_the_settings_say(tried: Tried) -> None:
    everything = f"{capability_mask(frozenset(CAPABILITIES)):016x}"
    for configuration in ("capable", "privileged"):
        state = tried(configuration)["state"]
        assert state["CapEff"] == state["CapBnd"] == everything
        assert state["CapInh"] == state["CapAmb"] == "0" * 16
        assert state["NoNewPrivs"] == "1"


@pytest.mark.requires("subuid")
@pytest.mark.parametrize("configuration", ["usual", "capable"])
def test_a_user_of_the_container_has_none(tried: Tried, configuration: str) -> None:
    state = tried(configuration, "daemon")["state"]
    assert {state[f"Cap{kind}"] for kind in ("Prm", "Eff", "Inh", "Amb")} == {"0" * 16}


@pytest.mark.parametrize(
    "attempt",
    ["raise_the_priority", "raise_a_hard_limit", "make_the_node_of_a_disk", "make_the_node_of_memory",
     "immutable_file", "lock_all_memory_beyond_the_limit", "take_inheritable_capabilities",
     "read_a_file_of_another_owner", "call clock_settime", "call settimeofday", "call syslog", "call swapon",
     "call acct"],
)  # fmt: skip
def test_the_user_namespace_keeps_what_is_the_hosts(tried: Tried, attempt: str) -> None:
    """Even from a privileged container: its capabilities are none over the host."""
    for configuration in ("usual", "capable", "privileged"):
        assert not tried(configuration)[attempt].startswith("ok")


def test_the_hosts_network_is_not_a_containers_to_listen_to(tried: Tried) -> None:
    for attempt in ("packet_socket", "raw_socket"):
        assert tried("usual")[attempt] == tried("capable")[attempt] == "EPERM"
        assert tried("alone")[attempt].startswith("ok")
