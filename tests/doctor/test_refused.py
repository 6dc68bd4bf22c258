"""Each refusal of a machine, brought about for real in a private mount namespace, and the line that mends it.

Root prepares the machine by a shell script, then doctor runs as `nobody`, or as root.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import nbhull
from support.abilities import cgroup_version

pytestmark = pytest.mark.requires("root", "unshare")

NOBODY = 65534
IMPORTED_FROM = Path(nbhull.__file__).parents[1]
PREPARE = f"""
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir -m 0777 /mnt/code /mnt/store /mnt/run
mount --bind {shlex.quote(str(IMPORTED_FROM.parent))} /mnt/code
echo plain > /mnt/plain
mkdir /mnt/dev
mknod -m 0666 /mnt/dev/tun c 10 200
printf 'nobody:3000000:65536\\n' > /mnt/ids
"""
GIVE_IDS = "mount --bind /mnt/ids /etc/subuid; mount --bind /mnt/ids /etc/subgid"
HIDE_SYSCTLS = "mount -t tmpfs tmpfs /proc/sys/kernel"
JAIL = """
mkdir -p /mnt/jail/mnt
for folder in usr proc sys dev etc tmp run; do mkdir /mnt/jail/$folder; mount --rbind /$folder /mnt/jail/$folder; done
for folder in bin lib lib64 sbin; do if [ -L /$folder ]; then cp -a /$folder /mnt/jail/; fi; done
for folder in code store run; do mkdir /mnt/jail/mnt/$folder; mount --bind /mnt/$folder /mnt/jail/mnt/$folder; done
"""
SHOW_LEFT = "for folder in /mnt/store/containers /mnt/run/nbhull; do [ ! -d $folder ] || find $folder -mindepth 1; done"
ANOTHER_STORE = "export NBHULL_HOME=/path/to/folder  # on a local ext4, xfs or btrfs file system that has room"
OVERLAY_STORE = """
mkdir -p /mnt/lower /mnt/on/upper /mnt/on/work
chmod 777 /mnt/on/upper
mount -t overlay -o lowerdir=/mnt/lower,upperdir=/mnt/on/upper,workdir=/mnt/on/work overlay /mnt/store
"""
SANDBOX = (
    "allow user namespaces in the sandbox that this runs in, such as "
    "`docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined ...`"
)


class Seen(NamedTuple):
    """What doctor printed."""

    status: int
    findings: dict[str, dict[str, Any]]


def command_line(verb: str, *, root: bool, python: str, wrap: str, deny: tuple[str, ...], env: dict[str, str]) -> str:
    """The shell line that runs a verb of nbhull's as doctor's patient, inside of what was prepared."""
    variables = {
        "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/mnt/store", "NBHULL_HOME": "/mnt/store",
        "XDG_RUNTIME_DIR": "/mnt/run", "PYTHONPATH": f"/mnt/code/{IMPORTED_FROM.name}", **env,
    }  # fmt: skip
    words = ["env", "-i", *(f"{key}={value}" for key, value in variables.items())]
    if deny:
        words += [python, "/mnt/deny.py", *deny, "--"]
    words += [python, "-m", "nbhull.runtime.cli", *shlex.split(verb)]
    user = "" if root else f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "
    return f"{user}{wrap} {shlex.join(words)}"


def run(
    verb: str,
    prepare: str = "",
    *,
    root: bool = False,
    python: str = "",
    wrap: str = "",
    deny: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a verb on a machine that `prepare` has changed, wrapped in a command that refuses more."""
    deny_script = shlex.quote(str(Path(__file__).with_name("deny.py")))
    python = python or (sys.executable if root else "/usr/bin/python3")
    line = command_line(verb, root=root, python=python, wrap=wrap, deny=deny, env=env or {})
    # what is left in the store and among the sockets is printed behind what the verb prints
    ending = f"status=$?\n{SHOW_LEFT}\nexit $status"
    script = f"set -e\n{PREPARE}\ncp {deny_script} /mnt/deny.py\n{prepare}\nset +e\n{line}\n{ending}"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def examine(prepare: str = "", **options: Any) -> Seen:
    """Run doctor so."""
    done = run("doctor --json", prepare, **options)
    assert not done.stderr, done.stderr
    return Seen(done.returncode, {finding["name"]: finding for finding in json.loads(done.stdout)})


def expect(seen: Seen, name: str, works: str, mend: str) -> None:
    """One finding, and the exit status that it alone brings about."""
    found = seen.findings[name]
    assert (found["works"], found["mend"]) == (works, mend), found
    if works == "no":
        assert seen.status == 1


def test_the_prepared_machine_itself_refuses_nothing() -> None:
    seen = examine(f"{GIVE_IDS}; mount --bind /mnt/dev/tun /dev/net/tun")
    assert seen.status == 0
    working = {name for name, finding in seen.findings.items() if finding["works"] == "yes"}
    assert working >= {
        "linux", "user namespaces", "user ids", "store", "overlay", "idmapped mounts", "seccomp", "runtime folder",
    }  # fmt: skip


# -- user namespaces ---------------------------------------------------------------------------

NO_NAMESPACES = "unshare --user --map-root-user sh -c 'echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"' sh"
MORE_NAMESPACES = "echo user.max_user_namespaces=28633 | tee /etc/sysctl.d/99-nbhull.conf && sysctl --system"


def test_no_user_namespaces_left() -> None:
    seen = examine(wrap=NO_NAMESPACES)
    expect(seen, "user namespaces", "no", MORE_NAMESPACES)
    assert "No space left" in seen.findings["user namespaces"]["seen"]


@pytest.mark.parametrize(
    "machine",
    [
        {"wrap": NO_NAMESPACES},
        {"prepare": GIVE_IDS, "wrap": "--no-new-privs"},
        {"prepare": OVERLAY_STORE},
        {"deny": ("unshare:EPERM",)},
        {"deny": ("fsopen:ENOSYS",)},
    ],
)
def test_a_failed_start_carries_doctors_line_and_leaves_nothing(machine: dict[str, Any]) -> None:
    seen = examine(**machine)
    mends = {finding["mend"] for finding in seen.findings.values() if finding["works"] == "no"}
    done = run(
        "run --rm host true", machine.get("prepare", "") + "\n", **{k: v for k, v in machine.items() if k != "prepare"}
    )
    assert done.returncode == 125
    message, hint = done.stderr.splitlines()
    assert message.startswith("nbhull: ")
    assert done.stdout == ""
    assert hint.removeprefix("  hint: ") in mends


def test_chroot_forbids_user_namespaces() -> None:
    enter = f"chroot --userspec={NOBODY}:{NOBODY} /mnt/jail"
    seen = examine(JAIL, root=True, python="/usr/bin/python3", wrap=enter)
    expect(seen, "user namespaces", "no", "start nbhull outside of the chroot: Linux refuses user namespaces in one")


def test_debians_setting_forbids_user_namespaces() -> None:
    setting = f"{HIDE_SYSCTLS}; echo 0 > /proc/sys/kernel/unprivileged_userns_clone"
    expect(
        examine(setting, deny=("unshare:EPERM",)), "user namespaces", "no",
        "echo kernel.unprivileged_userns_clone=1 | sudo tee /etc/sysctl.d/99-nbhull.conf && sudo sysctl --system",
    )  # fmt: skip


@pytest.mark.parametrize("deny", ["unshare:EPERM", "mount:EACCES", "fsopen:EPERM"])
def test_ubuntus_apparmor_forbids_user_namespaces_or_what_is_done_in_them(deny: str) -> None:
    setting = f"{HIDE_SYSCTLS}; echo 1 > /proc/sys/kernel/apparmor_restrict_unprivileged_userns"
    mend = examine(setting, deny=(deny,)).findings["user namespaces"]["mend"]
    profile, load = mend.split(" && ")
    assert load == "sudo apparmor_parser -r /etc/apparmor.d/nbhull"
    written = subprocess.run(
        ["sh", "-c", profile.replace("sudo tee /etc/apparmor.d/nbhull", "cat")],
        capture_output=True,
        text=True,
        check=True,
    )
    python = os.path.realpath("/usr/bin/python3")
    assert written.stdout == (
        f'abi <abi/4.0>,\ninclude <tunables/global>\nprofile nbhull "{python}" flags=(unconfined) {{ userns, }}\n'
    )


def test_a_sandbox_forbids_user_namespaces() -> None:
    expect(examine(deny=("unshare:EPERM",)), "user namespaces", "no", SANDBOX)


def test_a_linux_without_user_namespaces() -> None:
    mend = "use a Linux kernel that is built with CONFIG_USER_NS=y"
    expect(examine(deny=("unshare:EINVAL",)), "user namespaces", "no", mend)


def test_an_old_linux() -> None:
    expect(examine(wrap="setarch --uname-2.6"), "linux", "no", "boot Linux 5.11 or later")


# -- ids ---------------------------------------------------------------------------------------


def test_no_range_of_ids() -> None:
    prepare = ": > /mnt/ids; " + GIVE_IDS
    mend = "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 nobody"
    expect(examine(prepare), "user ids", "partly", mend)


def test_the_next_free_range_is_proposed() -> None:
    prepare = "printf 'somebody:100000:65536\\nnobody:165536:10\\n' > /mnt/ids; " + GIVE_IDS
    mend = "sudo usermod --add-subuids 165546-231081 --add-subgids 165546-231081 nobody"
    expect(examine(prepare), "user ids", "partly", mend)


@pytest.mark.parametrize(
    ("release", "mend"),
    [
        ("ID=debian", "sudo apt-get install -y uidmap"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'", "sudo apt-get install -y uidmap"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "sudo dnf install -y shadow-utils"),
        ("ID=arch", "sudo pacman -S --noconfirm shadow"),
        ("ID=opensuse-leap\nID_LIKE='suse opensuse'", "sudo zypper install -y shadow"),
        ("ID=alpine", "sudo apk add shadow-subids"),
        ("ID=plan9", "install newuidmap with the system's package manager"),
    ],
)
def test_no_newuidmap(release: str, mend: str) -> None:
    prepare = f"printf '%s\\n' {shlex.quote(release)} > /mnt/release; mount --bind /mnt/release /etc/os-release; "
    prepare += "mount --bind /mnt/plain /usr/bin/newuidmap; " + GIVE_IDS
    expect(examine(prepare), "user ids", "partly", mend)


def test_newuidmap_without_abilities() -> None:
    prepare = GIVE_IDS + "; for tool in newuidmap newgidmap; do cp /usr/bin/$tool /mnt/; done; "
    prepare += "mount --bind /mnt/newuidmap /usr/bin/newuidmap; mount --bind /mnt/newgidmap /usr/bin/newgidmap"
    expect(examine(prepare), "user ids", "no", "sudo chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap")


def test_no_new_privileges_keep_newuidmap_from_working() -> None:
    mend = (
        "start nbhull without no_new_privs, which keeps newuidmap from working "
        "(systemd: NoNewPrivileges=no; Docker: no --security-opt no-new-privileges)"
    )
    seen = examine(GIVE_IDS, wrap="--no-new-privs")
    expect(seen, "user ids", "no", mend)
    assert "newuidmap: write to uid_map failed: Operation not permitted" in seen.findings["user ids"]["seen"]


# -- the store ---------------------------------------------------------------------------------


def test_a_store_on_an_overlay_as_in_other_containers() -> None:
    expect(examine(OVERLAY_STORE), "overlay", "no", ANOTHER_STORE)


def test_a_store_on_a_file_system_without_idmapped_mounts() -> None:
    seen = examine("mount -t ramfs ramfs /mnt/store", root=True)
    expect(seen, "idmapped mounts", "no", ANOTHER_STORE)
    assert seen.findings["store"]["seen"].startswith("/mnt/store on ramfs, ")


def test_a_linux_without_overlays() -> None:
    mend = "sudo modprobe overlay && echo overlay | sudo tee /etc/modules-load.d/overlay.conf"
    expect(examine(deny=("fsopen:ENODEV",)), "overlay", "no", mend)


@pytest.mark.parametrize(
    ("options", "works"),
    [("size=512k", "no"), ("size=100m", "partly"), ("nr_inodes=50", "no"), ("nr_inodes=5k", "partly")],
)
def test_a_full_store(options: str, works: str) -> None:
    expect(examine(f"mount -t tmpfs -o mode=0777,{options} tmpfs /mnt/store"), "store", works, ANOTHER_STORE)


def test_a_read_only_store() -> None:
    seen = examine("mount -t tmpfs tmpfs /mnt/store; mkdir /mnt/store/place; mount -o remount,ro /mnt/store",
                   env={"NBHULL_HOME": "/mnt/store/place/store"})  # fmt: skip
    expect(seen, "store", "no", ANOTHER_STORE)
    assert seen.findings["store"]["seen"] == "/mnt/store/place/store: Read-only file system"


# -- limits and networks -----------------------------------------------------------------------


@pytest.mark.skipif(cgroup_version("memory") != 1, reason="needs cgroup v1, which only root may use")
def test_limits_for_a_user_on_cgroup_v1() -> None:
    expect(
        examine(), "cgroups", "partly",
        "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&systemd.unified_cgroup_hierarchy=1 /' /etc/default/grub && "
        "sudo update-grub && sudo reboot",
    )  # fmt: skip


def test_limits_without_delegation_on_cgroup_v2() -> None:
    seen = examine("umount -l -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup")  # fmt: skip
    expect(
        seen, "cgroups", "partly",
        "sudo mkdir -p /etc/systemd/system/user@.service.d && "
        "printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' | "
        "sudo tee /etc/systemd/system/user@.service.d/delegate.conf && "
        "sudo systemctl daemon-reload  # then log in again",
    )  # fmt: skip


def test_no_cgroups_at_all() -> None:
    seen = examine("umount -l -R /sys/fs/cgroup", root=True)
    expect(seen, "cgroups", "partly", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")


def test_the_tun_device_belongs_to_root_alone() -> None:
    seen = examine("chmod 0600 /mnt/dev/tun; mount --bind /mnt/dev/tun /dev/net/tun")
    expect(seen, "network", "partly", "sudo chmod 0666 /dev/net/tun")


def test_no_tun_device() -> None:
    seen = examine("mount -t tmpfs tmpfs /dev/net")
    expect(seen, "network", "partly", "sudo modprobe tun && echo tun | sudo tee /etc/modules-load.d/tun.conf")


def test_no_network_helper() -> None:
    prepare = "cd /usr/bin; for tool in pasta slirp4netns; do [ ! -e $tool ] || mount --bind /mnt/plain $tool; done"
    expect(examine(prepare), "network", "partly", "sudo apt-get install -y passt")


# -- the rest ----------------------------------------------------------------------------------


def test_no_seccomp_filters() -> None:
    mend = "use a Linux kernel that is built with CONFIG_SECCOMP_FILTER=y"
    expect(examine(deny=("prctl(22):EINVAL",)), "seccomp", "no", mend)


def test_no_runtime_folder() -> None:
    seen = examine(env={"XDG_RUNTIME_DIR": "/mnt/missing"})
    expect(seen, "runtime folder", "no", "set XDG_RUNTIME_DIR to a folder of your own")


def test_the_runtime_folder_is_somebody_elses() -> None:
    seen = examine("mkdir -m 0777 /mnt/run/nbhull")
    assert seen.findings["runtime folder"]["works"] == "no"
    assert seen.findings["runtime folder"]["mend"].startswith("remove it, or run: chmod 700 /mnt/run/nbhull;")


def test_the_runtime_folders_path_is_too_long_for_sockets() -> None:
    folder = "/mnt/run/" + "x" * 60
    seen = examine(f"mkdir -m 0777 {folder}", env={"XDG_RUNTIME_DIR": folder})
    expect(seen, "runtime folder", "no", "export XDG_RUNTIME_DIR=/run/user/$(id -u)")


def test_a_python_without_ipykernel(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    code = "from nbhull.runtime.doctor.places import probe_python; print(*probe_python()[1:], sep='|')"
    command = [str(tmp_path / "bare/bin/python"), "-c", code]
    env = {"PYTHONPATH": str(IMPORTED_FROM)}
    seen = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    works, _, mend = seen.stdout.strip().split("|")
    assert (works, mend) == ("partly", f"{tmp_path}/bare/bin/python -m pip install ipykernel")
