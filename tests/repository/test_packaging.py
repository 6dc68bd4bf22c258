"""What a user installs: the wheel built from the source distribution holds all of nbhull, and works."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("runtime", "kernel", "magics")


def is_ours(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def build(project: Path, target: str, out: Path) -> Path:
    """Build an sdist or a wheel of `project` with the build backend itself; the file made."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", out], cwd=project, check=True
    )
    (built,) = out.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packaging")
    sdist = build(ROOT, "sdist", folder / "sdist")
    (folder / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", sdist, "-C", folder / "unpacked"], check=True)
    (project,) = (folder / "unpacked").iterdir()
    return build(project, "wheel", folder / "wheel")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the wheel's contents."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_every_file_once(wheel: Path) -> None:
    expected = {"nbhull/__init__.py", "nbhull/py.typed"} | {
        f"nbhull/{path.relative_to(ROOT)}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if is_ours(path)
    }
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    assert {name for name in names if ".dist-info/" not in name and ".data/" not in name} == expected


def test_the_wheel_declares_its_commands_and_the_provisioner(installed: Path) -> None:
    entry_points = configparser.ConfigParser()
    (file,) = installed.glob("nbhull-*.dist-info/entry_points.txt")
    entry_points.read(file)
    assert dict(entry_points["console_scripts"]) == {
        "jupyter-container": "nbhull.runtime.cli:main",
    }
    assert dict(entry_points["jupyter_client.kernel_provisioners"]) == {
        "container-provisioner": "nbhull.kernel.provisioner:ContainerProvisioner"
    }


def module_names(installed: Path) -> list[str]:
    return sorted(
        ".".join(path.relative_to(installed).with_suffix("").parts).removesuffix(".__init__")
        for path in installed.glob("nbhull/**/*.py")
        if path.name != "__main__.py"
    )


IMPORT_ALL = """
import importlib, sys
folder, *names = sys.argv[1:]
sys.path.insert(0, folder)
for name in names:
    module = importlib.import_module(name)
    assert module.__file__.startswith(folder), f"{name} came from {module.__file__}"
"""


def test_every_module_imports_from_the_wheel(installed: Path) -> None:
    names = module_names(installed)
    assert {f"nbhull.{package}" for package in PACKAGES} <= set(names)
    subprocess.run([sys.executable, "-c", IMPORT_ALL, installed, *names], cwd=installed, check=True)


ENTRY_POINTS_LOAD = """
import importlib.metadata, sys
sys.path.insert(0, sys.argv[1])
for point in importlib.metadata.distribution("nbhull").entry_points:
    assert callable(point.load()), point
"""


def test_every_entry_point_leads_somewhere(installed: Path) -> None:
    subprocess.run([sys.executable, "-c", ENTRY_POINTS_LOAD, installed], cwd=installed, check=True)


WITH_LIBRARIES = ("nbhull.runtime.registry", "nbhull.runtime.verbs.progress")
"""modules of the runtime that need more than the standard library, for what is not a container's start"""

RUNTIME_ALONE = """
import importlib, sys
folder, *names = sys.argv[1:]
sys.path[:] = [folder, *(p for p in sys.path if "-packages" not in p)]
for name in names:
    importlib.import_module(name)
"""


def test_the_engine_works_where_no_jupyter_is_installed(installed: Path) -> None:
    names = [
        name
        for name in module_names(installed)
        if name.startswith("nbhull.runtime") and not name.startswith(WITH_LIBRARIES)
    ]
    subprocess.run([sys.executable, "-I", "-c", RUNTIME_ALONE, installed, *names], cwd=installed, check=True)
