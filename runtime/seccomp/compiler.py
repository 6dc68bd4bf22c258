"""From a profile to a BPF program: a balanced search tree over the numbers of system calls.

Of those calls that are allowed or refused whatever their arguments are, the kernel notes the allowed ones when a
filter is loaded and never runs the filter for them (Linux 5.11, seccomp_cache_prepare); the tree keeps the
rest cheap. Instructions as in bpf_common.h, data as in struct seccomp_data.
"""

from __future__ import annotations

import errno
import struct

from nbhull.runtime.seccomp.profile import ERRNO, KILL_PROCESS, PERMISSIVE, Condition, Profile, Rule, invalid
from nbhull.runtime.seccomp.syscalls import AUDIT_ARCH, numbers

LD_ABS, ALU_AND, RET = 0x20, 0x54, 0x06
JA, JEQ, JGT, JGE = 0x05, 0x15, 0x25, 0x35
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16
"""offsets in struct seccomp_data"""
FARTHEST = 255
"""instructions that a conditional jump can skip"""
LONGEST = 4096
"""instructions (BPF_MAXINSNS)"""

Instruction = tuple[int, int, int, int]
"""code, jump if true, jump if false, constant"""
Code = list[Instruction]


def compile_profile(profile: Profile, architecture: str) -> bytes:
    """The program, as an array of struct sock_filter.

    Calls of a foreign architecture end the process: they would be read by the wrong table. Numbers above all that the
    profile knows are not implemented, so that programs take the older call (as runc does it), unless all
    that is not named is allowed. Raises InvalidInput for rules that contradict each other, or are too many."""
    table = numbers(architecture)
    chains = by_number(profile, table)
    unknown = profile.default if profile.default in PERMISSIVE else ERRNO | errno.ENOSYS
    ranges = merged(chains, [(RET, 0, 0, profile.default)], [(RET, 0, 0, unknown)])
    program = [
        (LD_ABS, 0, 0, ARCHITECTURE),
        (JEQ, 1, 0, AUDIT_ARCH[architecture]),
        (RET, 0, 0, KILL_PROCESS),
        (LD_ABS, 0, 0, NUMBER),
        *tree(ranges),
    ]
    if len(program) > LONGEST:
        raise invalid(f"it makes {len(program)} instructions, the kernel takes {LONGEST}", "give it fewer rules")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def by_number(profile: Profile, table: dict[str, int]) -> dict[int, Code]:
    """For each system call that a rule names, the code that decides it."""
    settled: dict[str, int] = {}
    conditional: dict[str, list[Rule]] = {}
    for rule in profile.rules:
        for name in rule.names:
            if name not in table:
                continue  # of another architecture
            if rule.conditions:
                conditional.setdefault(name, []).append(rule)
            elif settled.setdefault(name, rule.action) != rule.action:
                raise invalid(f"its rules for {name} contradict each other", "keep one of them")
    chains = {}
    for name in settled.keys() | conditional.keys():
        if name in settled:
            chains[table[name]] = [(RET, 0, 0, settled[name])]
        else:
            code = [instruction for rule in conditional[name] for instruction in guarded(rule)]
            chains[table[name]] = [*code, (RET, 0, 0, profile.default)]
    return chains


def guarded(rule: Rule) -> Code:
    """Return the rule's action if all of its conditions hold, else go on behind this code."""
    code: Code = [(RET, 0, 0, rule.action)]
    for condition in reversed(rule.conditions):
        code = test(condition, len(code)) + code
    return code


def test(condition: Condition, otherwise: int) -> Code:
    """Go on behind this code if the condition holds, else skip `otherwise` instructions more."""
    low, high = ARGUMENTS + 8 * condition.index, ARGUMENTS + 8 * condition.index + 4
    value, second = condition.value, condition.second
    if condition.operator == "MASKED_EQ":
        return [
            (LD_ABS, 0, 0, high),
            (ALU_AND, 0, 0, value >> 32),
            (JEQ, 0, otherwise + 3, second >> 32),
            (LD_ABS, 0, 0, low),
            (ALU_AND, 0, 0, value & 0xFFFFFFFF),
            (JEQ, 0, otherwise, second & 0xFFFFFFFF),
        ]
    # In two words, as the machine that runs this has no wider ones: the higher decides, unless it is equal.
    words = value >> 32, value & 0xFFFFFFFF
    loads = (LD_ABS, 0, 0, high), (LD_ABS, 0, 0, low)
    if condition.operator in ("EQ", "NE"):
        equal, differs = (0, otherwise) if condition.operator == "EQ" else (otherwise, 0)
        after_high = otherwise + 2 if condition.operator == "EQ" else 2
        return [loads[0], (JEQ, 0, after_high, words[0]), loads[1], (JEQ, equal, differs, words[1])]
    greater, smaller = (0, otherwise) if condition.operator in ("GT", "GE") else (otherwise, 0)
    last = JGE if condition.operator in ("GE", "LT") else JGT
    return [
        loads[0],
        (JGT, greater + 3, 0, words[0]),
        (JEQ, 0, smaller + 2, words[0]),
        loads[1],
        (last, greater, smaller, words[1]),
    ]


def merged(chains: dict[int, Code], default: Code, unknown: Code) -> list[tuple[int, Code]]:
    """The first number and the code of each range of numbers with the same code, from 0 on without a gap."""
    ranges: list[tuple[int, Code]] = []
    last = max(chains, default=-1)
    for number in range(last + 2):
        code = chains.get(number, default) if number <= last else unknown
        if not ranges or ranges[-1][1] != code:
            ranges.append((number, code))
    return ranges


def tree(ranges: list[tuple[int, Code]]) -> Code:
    """Decide the number, which is loaded, among the ranges."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    below, above = tree(ranges[:middle]), tree(ranges[middle:])
    if len(below) <= FARTHEST:
        return [(JGE, len(below), 0, ranges[middle][0]), *below, *above]
    return [(JGE, 0, 1, ranges[middle][0]), (JA, 0, 0, len(below)), *below, *above]
