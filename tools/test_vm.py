"""The tests of limits on a machine with cgroup v2 under systemd: a Debian virtual machine, by qemu.

Root only, since the machine's disk is made by mmdebstrap. Arguments go to pytest in the machine, which else runs TESTS;
`--kvm` has the processor run it instead of software. Where it did not come up, build/vm/console.log tells.
The last result is written to docs/test-vm.md.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import debian
import suite_users

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path("/var/cache/nbhull-vm")
SHARE = CACHE / "share"
"""the second disk's content, mounted at the same path in the machine, since the environment in it is bound to it"""
BUILD = ROOT / "build/vm"
DOCUMENT = ROOT / "docs/test-vm.md"
PACKAGES = {"mmdebstrap": "mmdebstrap", "qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs"}
INCLUDED = (
    "linux-image-cloud-amd64 systemd-sysv dbus dbus-user-session libpam-systemd python3 python3-venv uidmap iproute2 "
    "procps util-linux udev e2fsprogs quota kmod"
).split()
USER = "tester"
TESTS = [
    "tests/runtime/test_limits.py",
    "tests/doctor/test_works.py",
    "tests/runtime/test_project_quotas.py",
    "-k",
    "project_quotas or counted_and_outlive or cannot_be_left or programs_see_as_many or run_says "
    "or swap_are_set or limits_can_be_set",
]
"""those of limits that make containers, and of project quotas; software emulation has no time for all"""
PATIENCE = 900
"""seconds for the whole machine's life; software emulation is some thirty times slower than the processor"""


def make_base() -> Path:
    """The machine's own disk, with its kernel beside it; made once."""
    guest = (ROOT / "tools/vm/boot.sh").read_text()
    key = hashlib.sha256("\n".join([*INCLUDED, guest, str(SHARE)]).encode()).hexdigest()[:12]
    folder = CACHE / f"base-{key}"
    if folder.exists():
        return folder
    print("making the machine's disk", flush=True)
    partial = CACHE / "partial"
    for old in (partial, *CACHE.glob("base-*")):
        shutil.rmtree(old, ignore_errors=True)
    root = partial / "root"
    root.mkdir(parents=True)
    suite = next(
        line.partition("=")[2].strip()
        for line in Path("/etc/os-release").read_text().splitlines()
        if line.startswith("VERSION_CODENAME=")
    )
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(INCLUDED)}", suite, root], check=True
    )
    subprocess.run(["chroot", root, "useradd", "-m", "-s", "/bin/sh", USER], check=True)
    (root / "var/lib/systemd/linger").mkdir(parents=True, exist_ok=True)
    (root / f"var/lib/systemd/linger/{USER}").touch()  # its systemd runs from the boot on
    shutil.copy(ROOT / "tools/vm/boot.sh", root / "usr/local/sbin/nbhull-boot")
    (root / "usr/local/sbin/nbhull-boot").chmod(0o755)
    unit = root / "etc/systemd/system/nbhull-test.service"
    unit.write_text(
        "[Unit]\nAfter=multi-user.target\n[Service]\nType=simple\nExecStart=/usr/local/sbin/nbhull-boot\n"
    )
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    wanted.mkdir(exist_ok=True)
    (wanted / unit.name).symlink_to(f"/etc/systemd/system/{unit.name}")
    (root / SHARE.relative_to("/")).mkdir(parents=True)
    for name, image in (("vmlinuz", "vmlinuz"), ("initrd.img", "initrd")):
        shutil.copy(root / name, partial / image)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, partial / "disk", "3G"], check=True)
    # one with project quotas, so that they can be tried
    quotas = ["-O", "quota,project", "-E", "quotatype=prjquota"]
    subprocess.run(["mke2fs", "-q", "-t", "ext4", *quotas, partial / "quotas", "1G"], check=True)
    shutil.rmtree(root)
    partial.rename(folder)
    return folder


def make_share(arguments: list[str]) -> Path:
    """The second disk: the source tree, a virtual environment with what the tests need, and what to do."""
    wheelhouse, wheel = suite_users.wheels(), suite_users.own_wheel()
    made_from = SHARE / "made-from"
    pip: list[str | Path] = [SHARE / "venv/bin/python", "-m", "pip", "--disable-pip-version-check", "-qq"]
    pip += ["install", "--no-index"]
    if not made_from.exists() or made_from.read_text() != wheelhouse.name:
        shutil.rmtree(SHARE, ignore_errors=True)
        SHARE.mkdir(parents=True)
        subprocess.run([suite_users.SYSTEM_PYTHON, "-m", "venv", SHARE / "venv"], check=True)
        subprocess.run([*pip, "--find-links", wheelhouse, *suite_users.requirements()], check=True)
        made_from.write_text(wheelhouse.name)
    subprocess.run([*pip, "--no-deps", "--force-reinstall", wheel], check=True)
    shutil.rmtree(SHARE / "tree", ignore_errors=True)
    for name in ("tests", "tools", "pyproject.toml", "runtime", "kernel", "magics", "src"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, SHARE / "tree" / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, SHARE / "tree" / name)
    (SHARE / "arguments").write_text(shlex.join(arguments or TESTS))
    shutil.copy(ROOT / "tools/vm/run.sh", SHARE / "run.sh")
    disk = BUILD / "share.ext4"
    disk.unlink(missing_ok=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", SHARE, disk, "2G"], check=True)
    return disk


def boot(base: Path, share: Path, accelerate: bool) -> str:
    """Run the machine until it is off; gives what it wrote as its result."""
    result = BUILD / "result.txt"
    result.unlink(missing_ok=True)
    command: list[str | Path] = [
        "qemu-system-x86_64", "-nodefaults", "-display", "none", "-no-reboot", "-m", "2048", "-smp", "2", "-snapshot",
        "-accel", "kvm" if accelerate else "tcg,thread=multi",
        "-cpu", "host" if accelerate else "max",
        "-kernel", base / "vmlinuz", "-initrd", base / "initrd",
        "-append", "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=no panic=-1",
        *(word for disk in (base / "disk", share, base / "quotas") for word in
          ("-drive", f"file={disk},if=virtio,format=raw")),
        "-serial", f"file:{BUILD / 'console.log'}", "-serial", f"file:{result}",
    ]  # fmt: skip
    try:
        subprocess.run(command, check=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        print(f"the machine was not done within {PATIENCE} s", flush=True)
    return result.read_text(errors="replace").replace("\r", "") if result.exists() else ""


def main(arguments: list[str]) -> int:
    """Boot, test, tell."""
    if missing := sorted(package for program, package in PACKAGES.items() if shutil.which(program) is None):
        debian.install(missing)
    accelerate = "--kvm" in arguments
    arguments = [argument for argument in arguments if argument != "--kvm"]
    BUILD.mkdir(parents=True, exist_ok=True)
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    base, share = make_base(), make_share(arguments)
    began = time.monotonic()
    text = boot(base, share, accelerate)
    took = time.monotonic() - began
    print(text)
    lines = [json.loads(line.removeprefix("RESULT ")) for line in text.splitlines() if line.startswith("RESULT ")]
    passed = bool(lines) and all(line["status"] == 0 for line in lines) and text.rstrip().endswith("DONE")
    if not arguments:
        document(text, lines, took, accelerate)
    print(f"{took:.0f} s; {'passed' if passed else 'FAILED: see ' + str(BUILD / 'console.log')}")
    return 0 if passed else 1


def document(text: str, lines: list[dict[str, object]], took: float, accelerate: bool) -> None:
    """Write down what was found."""
    rows = "\n".join(f"| {line['who']} | {line['where']} | {line['summary']} |" for line in lines)
    doctors = "\n".join(line.removeprefix("DOCTOR ") for line in text.splitlines() if line.startswith("DOCTOR "))
    facts = "; ".join(line.removeprefix("FACT ") for line in text.splitlines() if line.startswith("FACT "))
    DOCUMENT.write_text(
        "# cgroup v2 under systemd, and project quotas\n\n"
        "`make test-vm` boots Debian's own kernel and systemd under qemu, with a disk that has project quotas, and "
        "runs the tests of limits in it. "
        "This is its last result.\n\n"
        f"{facts}; {'kvm' if accelerate else 'software emulation'}, {took:.0f} s.\n\n"
        f"| who | where | outcome |\n|---|---|---|\n{rows}\n\n"
        f"What `nbhull doctor` says there of cgroups, and of a store on either disk:\n\n```\n{doctors}\n```\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
