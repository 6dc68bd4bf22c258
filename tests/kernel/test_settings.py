"""Settings, notebooks, folders, variables and kernelspecs, as far as they need no container."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tornado.web import HTTPError

from nbhull.kernel import notebook, specs
from nbhull.kernel.command import runs_ipykernel
from nbhull.kernel.config import KernelConfig, from_kernelspec, narrow
from nbhull.kernel.environment import for_kernel
from nbhull.kernel.failure import KernelFailed
from nbhull.kernel.folder import certificate_mounts, why_withheld, working_folder
from nbhull.runtime.confinement import Confinement, Device, Tmpfs, Ulimit, capabilities
from nbhull.runtime.errors import Denied, InvalidInput, NotFound
from nbhull.runtime.limits import Limits
from nbhull.runtime.linux.mount import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID
from nbhull.runtime.model import Mount, Network

GIB = 1 << 30


def test_a_kernelspec_may_set_everything() -> None:
    config = from_kernelspec(
        {
            "image": "lab",
            "kernel": "ir",
            "memory": "2g",
            "cpus": "1.5",
            "pids": 100,
            "network": "none",
            "mounts": ["/data", "/a:/b:ro", {"source": "/c", "target": "/d", "read_only": True},
                       "results:/r:ro"],
            "environment": {"A": "1"},
            "prefix": "/opt/venv/",
            "control": "none",
            "dns": ["192.0.2.53"],
        }
    )
    mounts = (Mount("/data", "/data"), Mount("/a", "/b", True), Mount("/c", "/d", True), Mount("results", "/r", True))
    assert config == KernelConfig(
        "lab", "ir", 2 * GIB, 1.5, 100, "none", mounts, {"A": "1"}, "/opt/venv", "none", dns=("192.0.2.53",)
    )


def test_a_notebook_only_tightens() -> None:
    config = KernelConfig(memory=GIB, pids=100)
    narrowed, notices = narrow(config, {"image": "lab", "memory": "2g", "pids": 50, "cpus": 2, "network": "none"})
    assert narrowed == KernelConfig("lab", memory=GIB, pids=50, cpus=2.0, network="none")
    assert len(notices) == 1
    assert "memory 2g" in notices[0]


def test_a_notebook_may_say_what_holds_anyway() -> None:
    on_host = KernelConfig(network="host")
    assert narrow(on_host, {"network": "host"}) == (on_host, [])
    assert narrow(KernelConfig(), {"memory": None}) == (KernelConfig(), [])


@pytest.mark.parametrize(
    "key",
    ["mounts", "environment", "prefix", "control", "cap_add", "security_opt", "privileged", "tmpfs", "devices", "gpus",
     "group_add", "ulimits", "dns"],
)  # fmt: skip
def test_a_notebook_does_not_widen(key: str) -> None:
    with pytest.raises(Denied, match=key):
        narrow(KernelConfig(), {key: None})


def test_a_kernelspec_may_confine_and_open() -> None:
    config = from_kernelspec(
        {
            "cap_add": ["cap_net_admin"],
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges=false", "systempaths=unconfined", "seccomp=unconfined"],
            "read_only": True,
            "tmpfs": ["/scratch:size=1m,mode=700"],
            "devices": ["/dev/fuse:/dev/other:rm"],
            "gpus": "device=1",
            "group_add": [100],
            "ulimits": ["nofile=10:20"],
        }
    )
    safe = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
    assert config.confinement == Confinement(
        cap_add=("NET_ADMIN",),
        cap_drop=("ALL",),
        seccomp="unconfined",
        no_new_privileges=False,
        system_paths=False,
        read_only=True,
        tmpfs=(Tmpfs("/scratch", ("mode=700", "size=1048576"), safe),),
        devices=(Device("/dev/fuse", "/dev/other", "r"),),
        gpus="device=1",
        groups=("100",),
        ulimits=(Ulimit("nofile", 10, 20),),
    )
    assert KernelConfig().confinement == Confinement()


def test_a_notebook_may_confine_more() -> None:
    config = KernelConfig(cap_add=("NET_ADMIN",), cap_drop=("KILL",))
    narrowed, _ = narrow(config, {"cap_drop": ["net_raw"], "read_only": True})
    assert (narrowed.cap_drop, narrowed.read_only) == (("KILL", "NET_RAW"), True)
    before = capabilities(config.confinement)
    for dropped in (["ALL"], ["NET_ADMIN"], ["CHOWN", "ALL"], []):
        for spec in (config, KernelConfig(privileged=True), KernelConfig(cap_add=("ALL",)), KernelConfig()):
            before = capabilities(spec.confinement)
            after = capabilities(narrow(spec, {"cap_drop": dropped})[0].confinement)
            assert after <= before - set(dropped)


def test_a_notebook_does_not_open_what_is_read_only() -> None:
    with pytest.raises(Denied, match="read_only"):
        narrow(KernelConfig(read_only=True), {"read_only": False})


@pytest.mark.parametrize(
    ("allowed", "asked"), [("none", "host"), ("none", "nat"), ("nat", "host"), (None, "host")]
)
def test_a_notebook_does_not_get_a_wider_network(allowed: Network | None, asked: str) -> None:
    with pytest.raises(Denied, match="network"):
        narrow(KernelConfig(network=allowed), {"network": asked})


@pytest.mark.parametrize(
    ("allowed", "asked"), [("host", "nat"), ("host", "none"), ("nat", "none"), (None, "nat"), (None, "none")]
)
def test_a_notebook_gets_a_narrower_network(allowed: Network | None, asked: str) -> None:
    assert narrow(KernelConfig(network=allowed), {"network": asked})[0].network == asked


def test_finding_a_notebook(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "work.ipynb"
    path.parent.mkdir()
    path.write_text(json.dumps({"metadata": {"container": {"image": "lab"}}}))
    for name in (str(path), "work.ipynb", "deep/work.ipynb"):
        found = notebook.find(name, str(path.parent))
        assert found is not None
        assert Path(found) == path
    assert notebook.find("deep/other.ipynb", str(path.parent)) is None
    assert notebook.find("console-1-0f2a", str(path.parent)) is None
    assert notebook.container_settings(str(path)) == {"image": "lab"}


def test_an_empty_notebook_has_no_settings(tmp_path: Path) -> None:
    (tmp_path / "new.ipynb").touch()
    assert notebook.container_settings(str(tmp_path / "new.ipynb")) == {}


def test_a_notebook_that_is_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ipynb")
    with pytest.raises(InvalidInput, match="not a regular file"):
        notebook.container_settings(str(tmp_path / "pipe.ipynb"))


def test_a_notebook_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "MAX_SIZE", 100)
    (tmp_path / "large.ipynb").write_text('{"metadata": {}}' + " " * 100)
    with pytest.raises(InvalidInput, match="larger"):
        notebook.container_settings(str(tmp_path / "large.ipynb"))


def test_variables() -> None:
    server = {"TOKEN": "t", "LC_ALL": "C", "PATH": "/bin", "https_proxy": "p", "PIP_INDEX_URL": "i", "HOME": "/h"}
    given = {**server, "JPY_SESSION_NAME": "a.ipynb", "EXPERIMENT": "1", "PATH": "/other", "JPY_PARENT_PID": "3"}
    assert for_kernel(given, server, {"GREETING": "from ${TOKEN}"}) == {
        "LC_ALL": "C",
        "https_proxy": "p",
        "PIP_INDEX_URL": "i",
        "JPY_SESSION_NAME": "a.ipynb",
        "EXPERIMENT": "1",
        "GREETING": "from t",
    }


def test_folders_that_are_withheld(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "users/me"
    (home / ".ssh/old").mkdir(parents=True)
    (home / "work").mkdir()
    (tmp_path / "link").symlink_to(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NBHULL_HOME", str(tmp_path / "store"))
    (tmp_path / "store/containers").mkdir(parents=True)
    for withheld in ("users", "users/me", "link", "users/me/.ssh/old", "store/containers"):
        folder = working_folder(str(tmp_path / withheld))
        assert (folder.mount, folder.path) == (None, str(tmp_path / withheld))
        assert withheld in folder.notice
    for system in ("/", "/etc", "/usr/share", "/run"):
        assert why_withheld(system), system
    work = working_folder(str(tmp_path / "link/work"))
    assert work.mount == Mount(str(home / "work"), str(tmp_path / "link/work"))
    assert not work.notice


def test_certificates_outside_the_system_come_along(tmp_path: Path) -> None:
    bundle = tmp_path / "authorities.pem"
    bundle.touch()
    env = {"SSL_CERT_FILE": str(bundle), "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt", "CURL_CA_BUNDLE": "/gone"}
    assert certificate_mounts(env) == [Mount(str(bundle), str(bundle), read_only=True)]


@pytest.mark.parametrize(
    ("argv", "is_ipykernel"),
    [
        (["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], True),
        (["/opt/venv/bin/python3.12", "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "x"], True),
        (["python3", "-m", "bash_kernel", "-f", "x"], False),
        (["python3", "-m"], False),
        (["R", "--slave", "-m", "ipykernel_launcher"], False),
    ],
)
def test_which_commands_are_ipykernel(argv: list[str], is_ipykernel: bool) -> None:
    assert runs_ipykernel(argv) == is_ipykernel


def test_the_error_that_leaves() -> None:
    error = KernelFailed(NotFound("no image 'a%s\nb'", "pull it"))
    assert isinstance(error, HTTPError)
    assert isinstance(error, RuntimeError)
    assert str(error) == "no image 'a%s b'. pull it"


# -- kernelspecs -----------------------------------------------------------------------------------


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to install kernelspecs below, which Jupyter looks into."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share/jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def test_install_list_remove(prefix: Path) -> None:
    path = specs.install("mine", limits=Limits(memory=GIB), prefix=str(prefix))
    assert {entry.name for entry in Path(path).iterdir()} >= {"kernel.json", "logo-64x64.png"}
    spec = json.loads(Path(path, "kernel.json").read_text())
    assert (spec["display_name"], spec["language"]) == ("Python 3 (container)", "python")
    assert spec["metadata"]["debugger"] is True
    installed = {entry.name: entry for entry in specs.installed()}
    assert installed["mine"].config["memory"] == GIB
    assert "python3" not in installed
    assert specs.remove("mine") == path
    assert not Path(path).exists()


def test_install_twice_replaces(prefix: Path) -> None:
    specs.install(prefix=str(prefix))
    path = specs.install(display_name="Another", prefix=str(prefix))
    assert json.loads(Path(path, "kernel.json").read_text())["display_name"] == "Another"


def test_only_ours_are_removed(prefix: Path) -> None:
    with pytest.raises(NotFound, match="python3"):
        specs.remove("python3")


def test_what_could_not_start_is_not_installed(prefix: Path) -> None:
    with pytest.raises(InvalidInput, match="cpus"):
        specs.install(limits=Limits(cpus=-1), prefix=str(prefix))
    with pytest.raises(NotFound, match="no-such-kernel"):
        specs.install(kernel="no-such-kernel", prefix=str(prefix))
    with pytest.raises(InvalidInput, match="more than one place"):
        specs.install(user=True, prefix=str(prefix))
    assert not (prefix / "share").exists()
