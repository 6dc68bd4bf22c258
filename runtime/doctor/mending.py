"""The line that mends a refused step: what doctor prints, and what a failed start carries as its hint."""

from __future__ import annotations

import errno as errors
import os
import pwd
import sys

from nbhull.runtime.usermap import WIDTH, read_ranges, which

SANDBOX = (
    "allow user namespaces in the sandbox that this runs in, such as "
    "`docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ...`"
)
PACKAGES = {
    "debian": (
        "apt-get install -y",
        {"newuidmap": "uidmap", "pasta": "passt", "slirp4netns": "slirp4netns", "ipykernel": "python3-ipykernel"},
    ),
    "fedora": (
        "dnf install -y",
        {"newuidmap": "shadow-utils", "pasta": "passt", "slirp4netns": "slirp4netns", "ipykernel": "python3-ipykernel"},
    ),
    "arch": (
        "pacman -S --noconfirm",
        {"newuidmap": "shadow", "pasta": "passt", "slirp4netns": "slirp4netns", "ipykernel": "python-ipykernel"},
    ),
    "suse": (
        "zypper install -y",
        {"newuidmap": "shadow", "pasta": "passt", "slirp4netns": "slirp4netns", "ipykernel": "python3-ipykernel"},
    ),
    "alpine": (
        "apk add",
        {"newuidmap": "shadow-subids", "pasta": "passt", "slirp4netns": "slirp4netns", "ipykernel": "py3-ipykernel"},
    ),
}
"""by family of distributions: how a package is installed, and which package has a program"""


def explain(call: str, errno: int, subject: str = "") -> str:
    """The line that mends a failed step, from the name of its system call or program (`unshare`, `mount`,
    `fsconfig`, `mount_setattr`, `newuidmap`, …), its errno, and what it acted on, as SyscallFailed has
    them. Empty where nothing is known."""
    about_overlay = "overlay" in subject
    if call == "unshare" or call.startswith("clone"):
        return user_namespaces(errno) if "CLONE_NEWUSER" in subject or not subject else capabilities(errno)
    if call in ("newuidmap", "newgidmap"):
        return subordinate_ids()
    if (
        call in ("mount", "fsopen", "fsconfig", "fsmount")
        and about_overlay
        and errno not in (errors.EPERM, errors.EACCES)
    ):
        return overlay(errno)
    if call == "entering a cgroup with realtime scheduling":
        return "start it with ordinary scheduling: chrt -o 0 COMMAND (new cgroups have no cpu.rt_runtime_us)"
    if call == "mount_setattr" and errno in (errors.EINVAL, errors.EOPNOTSUPP, errors.EPERM):
        return another_store()
    if call in ("seccomp", "prctl(PR_SET_SECCOMP)") and errno in (errors.EINVAL, errors.ENOSYS):
        return "use a Linux kernel that is built with CONFIG_SECCOMP_FILTER=y"
    if errno in (errors.EPERM, errors.EACCES):
        return capabilities(errno)
    if errno == errors.ENOSYS:
        return linux("5.11")
    if errno in (errors.ENOSPC, errors.EDQUOT) and call in ("mkdir", "open", "write"):
        return another_store()
    return ""


def user_namespaces(errno: int) -> str:
    """Why unshare(CLONE_NEWUSER) fails, most likely cause first."""
    if errno == errors.ENOSPC:
        return persistent_sysctl("user.max_user_namespaces", "28633")
    if errno in (errors.EINVAL, errors.ENOSYS):
        return "use a Linux kernel that is built with CONFIG_USER_NS=y"
    if errno == errors.EUSERS:
        return "start nbhull in fewer nested user namespaces (Linux allows 32)"
    if errno != errors.EPERM:
        return ""
    if read_sysctl("kernel/unprivileged_userns_clone") == "0":
        return persistent_sysctl("kernel.unprivileged_userns_clone", "1")
    if is_chrooted():
        return "start nbhull outside of the chroot: Linux refuses user namespaces in one"
    return capabilities(errno)


def capabilities(errno: int) -> str:
    """Why a call that a namespace's own root may make is refused."""
    if read_sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return apparmor_profile()
    if is_sandboxed():
        return SANDBOX
    return ""


def apparmor_profile() -> str:
    """Lets the running Python make user namespaces (Ubuntu 23.10 and later restrict them)."""
    python = os.path.realpath(sys.executable)
    profile = (
        "abi <abi/4.0>,\\ninclude <tunables/global>\\n"
        f'profile nbhull "{python}" flags=(unconfined) {{ userns, }}\\n'
    )
    return (
        f"printf '{profile}' | {sudo()}tee /etc/apparmor.d/nbhull && "
        f"{sudo()}apparmor_parser -r /etc/apparmor.d/nbhull"
    )


def subordinate_ids() -> str:
    """What keeps newuidmap(1) and newgidmap(1) from giving this user a range; empty if nothing is seen."""
    tools = {tool: which(tool) for tool in ("newuidmap", "newgidmap")}
    if not all(tools.values()):
        return install("newuidmap")
    plain = [path for path in tools.values() if not is_privileged(path)]
    if plain:
        return f"{sudo()}chmod u+s {' '.join(plain)}"
    name, uid = user_name(), str(os.getuid())
    options = []
    for path, option in (("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")):
        ranges = read_ranges(path)
        if not any(owner in (name, uid) and count >= WIDTH - 1 for owner, _, count in ranges):
            start = max([100_000, *(begin + count for _, begin, count in ranges if begin + count < 1 << 30)])
            options.append(f"{option} {start}-{start + WIDTH - 1}")
    if options:
        return f"{sudo()}usermod {' '.join(options)} {name}"
    if status_field("NoNewPrivs") == "1":
        return (
            "start nbhull without no_new_privs, which keeps newuidmap from working "
            "(systemd: NoNewPrivileges=no; Docker: no --security-opt no-new-privileges)"
        )
    if is_sandboxed():
        return SANDBOX
    return ""


def overlay(errno: int) -> str:
    """Why an overlay cannot be made on the store's file system."""
    if errno == errors.ENODEV:
        return f"{sudo()}modprobe overlay && echo overlay | {sudo()}tee /etc/modules-load.d/overlay.conf"
    return another_store()


def another_store() -> str:
    """Puts the store onto a file system that does all."""
    return "export NBHULL_HOME=/path/to/folder  # on a local ext4, xfs or btrfs file system that has room"


def delegation() -> str:
    """Has systemd give the user's services their own cgroup controllers (cgroup v2)."""
    folder = "/etc/systemd/system/user@.service.d"
    return (
        f"{sudo()}mkdir -p {folder} && printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | "
        f"{sudo()}tee {folder}/delegate.conf && {sudo()}systemctl daemon-reload  # then log in again"
    )


def unified_cgroups() -> str:
    """Boots with cgroup v2 alone, which can be delegated to users; v1 cannot."""
    return (
        f"{sudo()}sed -i 's/^GRUB_CMDLINE_LINUX=\"/&systemd.unified_cgroup_hierarchy=1 /' "
        f"/etc/default/grub && "
        f"{sudo()}update-grub && {sudo()}reboot"
    )


def cgroup_controllers(cause: str) -> str:
    """What gives this user the cgroup controllers that are missing, by `cgroups.Hierarchies.cause`; empty where nothing
    is known."""
    if cause == "none":
        return f"{sudo()}mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    if cause == "v1":
        return unified_cgroups()
    if cause == "delegation":
        return delegation()
    if cause == "bus":
        return f"{sudo()}apt-get install -y dbus-user-session && {sudo()}loginctl enable-linger {user_name()}"
    if cause == "systemd":
        return "systemctl --user status  # the user's systemd must run; and: pip install jeepney"
    if cause == "kernel":
        options = "MEMCG", "CFS_BANDWIDTH", "CPUSETS", "CGROUP_PIDS", "BLK_CGROUP"
        return f"boot a Linux that is built with {', '.join(f'CONFIG_{option}=y' for option in options)}"
    return ""


def tun_device() -> str:
    """Makes /dev/net/tun what it is on every distribution: open to all, since only a network namespace's
    own root can do anything with it."""
    if os.path.exists("/dev/net/tun"):
        return f"{sudo()}chmod 0666 /dev/net/tun"
    return f"{sudo()}modprobe tun && echo tun | {sudo()}tee /etc/modules-load.d/tun.conf"


def linux(version: str) -> str:
    """Asks for a newer Linux."""
    return f"boot Linux {version} or later"


def install(program: str) -> str:
    """How this distribution installs `program`."""
    family = distribution_family()
    if family is None:
        return f"install {program} with the system's package manager"
    command, packages = PACKAGES[family]
    return f"{sudo()}{command} {packages[program]}"


def distribution_family() -> str | None:
    """A key of PACKAGES, from os-release(5); None for a distribution that is not known."""
    fields: dict[str, str] = {}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                fields = dict(
                    line.strip().replace('"', "").replace("'", "").partition("=")[::2] for line in file if "=" in line
                )
            break
    names = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    aliases = {"ubuntu": "debian", "rhel": "fedora", "centos": "fedora", "opensuse": "suse"}
    return next((aliases.get(name, name) for name in names if aliases.get(name, name) in PACKAGES), None)


def persistent_sysctl(name: str, value: str) -> str:
    """Sets a kernel setting now and at every boot."""
    return f"echo {name}={value} | {sudo()}tee /etc/sysctl.d/99-nbhull.conf && {sudo()}sysctl --system"


def read_sysctl(path: str) -> str:
    """A kernel setting by its path below /proc/sys; empty where this kernel has none."""
    try:
        with open(f"/proc/sys/{path}") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""


def is_privileged(path: str) -> bool:
    """Whether a program gains abilities when it is executed: set-user-id root, or file capabilities."""
    status = os.stat(path)
    return bool(status.st_mode & 0o4000 and status.st_uid == 0) or "security.capability" in os.listxattr(path)


def is_sandboxed() -> bool:
    """Whether a seccomp filter stands over this process, as in Docker and other sandboxes."""
    return status_field("Seccomp") == "2"


def is_chrooted() -> bool:
    """Whether our root is no mount point, which only chroot(2) brings about."""
    with open("/proc/self/mountinfo") as file:
        return not any(line.split(" ")[4] == "/" for line in file)


def status_field(name: str) -> str:
    """A field of /proc/self/status."""
    with open("/proc/self/status") as file:
        return next((line.split()[1] for line in file if line.startswith(f"{name}:")), "")


def user_name() -> str:
    """This user's name, or number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def sudo() -> str:
    """What stands before a command that needs the host's root."""
    return "" if os.geteuid() == 0 else "sudo "
