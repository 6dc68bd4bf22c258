"""Profiles and the filters made of them: what they decide, beside what libseccomp's filters decide."""

from __future__ import annotations

import errno
import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nbhull.runtime import confinement, seccomp
from nbhull.runtime.confinement import Confinement
from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.linux.process import CAPABILITIES, DEFAULT_CAPABILITIES
from nbhull.runtime.seccomp import default, profile, syscalls
from nbhull.runtime.seccomp.compiler import compile_profile
from nbhull.runtime.seccomp.profile import ALLOW, ERRNO, KILL_PROCESS, LOG
from support.bpf import decide

ARCHITECTURES = ("x86_64", "aarch64")
ERROR = {name: ERRNO | getattr(errno, name) for name in ("EPERM", "ENOSYS", "EINVAL")}
I386, ARM = 0x40000003, 0x40000028
X32 = 0x40000000


class Filter:
    """A compiled filter that can be asked by name."""

    def __init__(self, document: dict[str, Any], architecture: str, capabilities: frozenset[str]) -> None:
        self.program = compile_profile(profile.resolve(document, architecture, capabilities), architecture)
        self.audit = syscalls.AUDIT_ARCH[architecture]
        self.numbers = syscalls.numbers(architecture)

    def __call__(self, name: str | int, *arguments: int) -> int:
        number = name if isinstance(name, int) else self.numbers[name]
        return decide(self.program, self.audit, number, *arguments)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def usual(request: pytest.FixtureRequest) -> Filter:
    """The default profile for the default capabilities."""
    return Filter(default.document(), request.param, DEFAULT_CAPABILITIES)


def made(rules: list[dict[str, Any]], architecture: str = "x86_64", action: str = "SCMP_ACT_ERRNO") -> Filter:
    return Filter({"defaultAction": action, "syscalls": rules}, architecture, DEFAULT_CAPABILITIES)


def test_what_programs_need_is_allowed(usual: Filter) -> None:
    for name in ("read", "openat", "execve", "mmap", "futex", "epoll_pwait2", "ptrace", "getxattrat", "seccomp"):
        assert usual(name, 2**64 - 1, 2**64 - 1) == ALLOW


@pytest.mark.parametrize(
    "name",
    "acct add_key bpf clock_settime delete_module fanotify_init finit_module fsopen fsmount init_module io_uring_setup "
    "kexec_load keyctl lookup_dcookie mbind mount move_mount open_by_handle_at open_tree perf_event_open pivot_root "
    "pidfd_getfd quotactl reboot request_key setns settimeofday swapon syslog umount2 unshare userfaultfd "
    "vhangup".split(),
)
def test_what_docker_refuses_is_refused(usual: Filter, name: str) -> None:
    assert usual(name) == ERROR["EPERM"]


def test_arguments_are_judged_whole(usual: Filter) -> None:
    for family in (1, 2, 10, 16, 17):
        assert usual("socket", family) == ALLOW
    for family in (38, 40):  # AF_ALG, AF_VSOCK
        assert usual("socket", family) == ERROR["EPERM"]
    # The kernel takes 32 bits of it: a family must not hide below others.
    assert usual("socket", 1 << 32 | 40) == ERROR["EPERM"]
    assert usual("socket", 1 << 32 | 38) == ERROR["EPERM"]
    assert usual("personality", 0x20008) == ALLOW
    assert usual("personality", 0x0040000) == ERROR["EPERM"]


def test_new_namespaces_are_refused(usual: Filter) -> None:
    threads = 0x3D0F00  # what pthread_create(3) asks for
    assert usual("clone", threads) == usual("clone", 17) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert usual("clone", flag | 17) == ERROR["EPERM"]
        assert usual("clone", 1 << 32 | flag) == ERROR["EPERM"]
    assert usual("clone3") == ERROR["ENOSYS"]


def test_a_foreign_architecture_ends_the_process(usual: Filter) -> None:
    for foreign in (I386, ARM, *syscalls.AUDIT_ARCH.values()):
        if foreign != usual.audit:
            assert decide(usual.program, foreign, 0) == KILL_PROCESS


def test_unknown_numbers_are_not_implemented(usual: Filter) -> None:
    assert usual(468) == usual(9999) == usual(X32 | 1) == usual(0xFFFFFFFF) == ERROR["ENOSYS"]


def test_capabilities_open_what_they_are_for() -> None:
    for capability, names in default.WITH_CAPABILITY.items():
        opened = Filter(default.document(), "x86_64", DEFAULT_CAPABILITIES | {capability})
        assert {opened(name) for name in names.split()} == {ALLOW}, capability
    without = Filter(default.document(), "x86_64", frozenset())
    assert without("chroot") == ERROR["EPERM"]
    admin = Filter(default.document(), "x86_64", frozenset(CAPABILITIES))
    assert admin("clone", 0x10000000) == admin("clone3") == ALLOW
    assert admin("io_uring_setup") == ERROR["EPERM"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_name_of_the_default_profile_is_a_system_call(architecture: str) -> None:
    known = set(syscalls.numbers("x86_64")) | set(syscalls.numbers("aarch64"))
    named = {name for rule in default.document()["syscalls"] for name in rule["names"]}
    assert named <= known
    assert len(named & set(syscalls.numbers(architecture))) > 250


def test_the_tables_are_the_kernels() -> None:
    """Beside what the headers of this machine say."""
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("the kernel's headers for x86-64 are not installed")
    words = [line.split() for line in header.read_text().splitlines() if line.startswith("#define __NR_")]
    theirs = {name.removeprefix("__NR_"): int(number) for _, name, number in words}
    ours = syscalls.numbers("x86_64")
    assert {name: ours.get(name) for name in theirs} == theirs
    assert syscalls.numbers("aarch64")["openat2"] == ours["openat2"] == 437
    assert syscalls.numbers("aarch64")["clone"] == 220


def test_conditions_of_every_kind_and_size() -> None:
    chance = random.Random(0)
    values = [0, 1, 2, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, (1 << 63), (1 << 64) - 1]
    values += [chance.getrandbits(64) for _ in range(8)]
    means = {
        "EQ": lambda a, v: a == v, "NE": lambda a, v: a != v, "LT": lambda a, v: a < v, "LE": lambda a, v: a <= v,
        "GE": lambda a, v: a >= v, "GT": lambda a, v: a > v,
    }  # fmt: skip
    for operator, mean in means.items():
        for value in values:
            argument = {"index": 2, "value": value, "op": f"SCMP_CMP_{operator}"}
            judge = made([{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [argument]}])
            for given in values:
                assert (judge("read", 0, 0, given) == ALLOW) is mean(given, value), (operator, given, value)
    for mask in values:
        for wanted in values[:6]:
            argument = {"index": 5, "value": mask, "valueTwo": wanted, "op": "SCMP_CMP_MASKED_EQ"}
            judge = made([{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [argument]}])
            for given in values:
                assert (judge("read", 0, 0, 0, 0, 0, given) == ALLOW) is (given & mask == wanted)


def test_several_conditions_hold_together_and_several_rules_beside_each_other() -> None:
    both = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 5, "op": "SCMP_CMP_GT"}]
    same = [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]
    judge = made(
        [
            {"names": ["write"], "action": "SCMP_ACT_ALLOW", "args": both},
            {"names": ["write"], "action": "SCMP_ACT_LOG", "args": same},
        ]
    )
    assert judge("write", 1, 6) == ALLOW
    assert judge("write", 1, 5) == judge("write", 2, 6) == ERROR["EPERM"]
    assert judge("write", 7) == judge("write", 8) == LOG


def test_a_profile_that_allows_all_but_some() -> None:
    judge = made([{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22}], action="SCMP_ACT_ALLOW")
    assert judge("ptrace") == ERROR["EINVAL"]
    assert judge("read") == judge(9999) == ALLOW


def test_a_long_program_jumps_far() -> None:
    """More than a conditional jump can skip on either side of the tree."""
    arguments = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in range(60)]
    names = ["read", "lseek", "dup", "wait4", "umask", "sync", "splice", "openat2"]
    judge = made([{"names": [name], "action": "SCMP_ACT_ALLOW", "args": arguments} for name in names])
    assert len(judge.program) // 8 > 4 * 256
    for name in names:
        assert judge(name, 59) == ALLOW
        assert judge(name, 60) == ERROR["EPERM"]
    assert judge("write", 5) == ERROR["EPERM"]


BAD = [
    ("[]", "no JSON object"),
    ("{", "not valid JSON"),
    ('{"defaultAction": "SCMP_ACT_NO"}', "defaultAction is 'SCMP_ACT_NO'"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "defaultActoin": 1}', "'defaultActoin' is not known"),
    ('{"defaultAction": "SCMP_ACT_NOTIFY"}', "no agent|SCMP_ACT_NOTIFY"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_LOG"}]}', "names no system"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "read", "names": ["x"]}]}', "both 'name' and 'names'"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mout"], "action": "SCMP_ACT_ERRNO"}]}', "'mout'"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO", '
     '"errnoRet": 5000}]}', "5000"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", '
     '"args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]}', "6"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", '
     '"args": [{"index": 1, "op": "SCMP_CMP_IS"}]}]}', "operator 'IS'"),
    ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", '
     '"includes": {"caps": ["CAP_NONE"]}}]}', "CAP_NONE"),
    ('{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG"}, '
     '{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}', "contradict"),
    ('{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["A"], "archMap": [{}]}', "both 'architectures'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_wrong_profile_is_told_by_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        seccomp.compiled(text, DEFAULT_CAPABILITIES)


def test_the_default_profile_written_out_is_the_default_profile() -> None:
    text = json.dumps(default.document())
    assert seccomp.compiled(text, DEFAULT_CAPABILITIES) == seccomp.compiled("", DEFAULT_CAPABILITIES)


def test_filters_are_kept_and_made_anew_when_their_makers_change(tmp_path: Path) -> None:
    assert seccomp.digest() == confinement.PROFILE_DIGEST, "put this in runtime/confinement.py"
    names = confinement.capabilities(Confinement())
    program = confinement.seccomp_filter(Confinement(), names, str(tmp_path))
    (kept,) = (tmp_path / "seccomp").iterdir()
    kept.write_bytes(b"")  # a crash that lost its bytes must not turn the filter off
    assert confinement.seccomp_filter(Confinement(), names, str(tmp_path)) == program
    kept.write_bytes(b"kept")
    assert confinement.seccomp_filter(Confinement(), names, str(tmp_path)) == b"kept"
    assert confinement.seccomp_filter(Confinement(seccomp="unconfined"), names, str(tmp_path)) == b""
    other = confinement.seccomp_filter(Confinement(), names | {"SYS_ADMIN"}, str(tmp_path))
    assert other not in (b"kept", program)
    assert len(list((tmp_path / "seccomp").iterdir())) == 2


LIBSECCOMP = """
import json, sys, seccomp
document, out = json.load(sys.stdin), sys.argv[1]
action = {"SCMP_ACT_ALLOW": seccomp.ALLOW}
judge = seccomp.SyscallFilter(seccomp.ERRNO(document["defaultErrnoRet"]))
compare = {name: getattr(seccomp, name) for name in ("EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ")}
for rule in document["syscalls"]:
    value = action.get(rule["action"]) or seccomp.ERRNO(rule.get("errnoRet", 1))
    for name in rule["names"]:
        conditions = [
            seccomp.Arg(a["index"], compare[a["op"][9:]], a["value"], a.get("valueTwo", 0))
            for a in rule.get("args", [])
        ]
        try:
            judge.add_rule(value, name, *conditions)
        except (RuntimeError, ValueError, OSError):
            print("unknown", name)
judge.export_bpf(open(out, "wb"))
"""


@pytest.mark.requires("libseccomp")
def test_libseccomp_decides_the_same(tmp_path: Path) -> None:
    """Docker's own filters are made by libseccomp: every system call, with arguments of all kinds."""
    document = default.document()
    held = [r for r in document["syscalls"] if profile.applies(r, "rule", "x86_64", DEFAULT_CAPABILITIES)]
    document["syscalls"] = [{k: v for k, v in rule.items() if k not in ("includes", "excludes")} for rule in held]
    done = subprocess.run(
        ["/usr/bin/python3", "-c", LIBSECCOMP, str(tmp_path / "theirs")],
        input=json.dumps(document), text=True, capture_output=True, check=True,
    )  # fmt: skip
    unknown = {line.split()[1] for line in done.stdout.splitlines()}  # calls newer than it
    theirs, ours = (tmp_path / "theirs").read_bytes(), Filter(document, "x86_64", DEFAULT_CAPABILITIES)
    chance = random.Random(1)
    words = [0, 1, 8, 12, 16, 17, 38, 40, 0x20000, 0x20008, 0x3D0F00, 0x10000011, 0xFFFFFFFF, 1 << 32, 1 << 32 | 40]
    compared = 0
    for name, number in ours.numbers.items():
        if name in unknown or number > 450:
            continue
        for _ in range(20):
            given = [chance.choice(words) for _ in range(6)]
            assert decide(theirs, ours.audit, number, *given) == ours(number, *given), (name, given)
            compared += 1
    assert compared > 5000
