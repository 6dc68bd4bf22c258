"""ipykernel for images that have Python but not it: one layer more, made once for each kind of Python.

The image's own Python runs this environment's pip in a container of the image, with the host's way to the network;
what pip wrote becomes a layer, and the image with that layer on top another image, without a name. Its packages come
after the image's own (kernel/app/boot.py), so nothing of the user's is replaced.
"""

from __future__ import annotations

import json
import os
from typing import Any

from nbhull.kernel.command import CommandFinder
from nbhull.runtime.builder.cache import Cache, key_of
from nbhull.runtime.builder.progress import Progress
from nbhull.runtime.engine import Engine
from nbhull.runtime.errors import NotFound, ProcessFailed
from nbhull.runtime.images.catalog import BASE
from nbhull.runtime.model import HOST_IMAGE, ContainerSpec, Mount, ProcessSpec
from nbhull.runtime.snapshots import generations

LIBRARY = "/opt/nbhull/lib"
"""where the packages lie in the layer; boot.py has the same"""
PIP = "/run/nbhull/pip"
PYTHON_KERNELS = ("python3", "python")
PROBE = """import importlib.util, json, platform, sys, sysconfig
print(json.dumps([list(sys.version_info[:2]), sysconfig.get_config_var("SOABI") or "", platform.machine(),
    list(platform.libc_ver()), importlib.util.find_spec("ipykernel") is not None]))"""
LONGEST_ANSWER = 1 << 16
REQUIREMENT = "ipykernel>=6.29"


def with_ipykernel(engine: Engine, ref: str, kernel: str, progress: Progress | None = None) -> tuple[str, str]:
    """The image to run a kernel in: `ref` itself if it can, else its id with ipykernel added; and a sentence for the
    reader if that was done now, which `progress` is told of, too. Raises NotFound for an image without Python,
    ProcessFailed where pip failed."""
    if ref == HOST_IMAGE or kernel.lower() not in PYTHON_KERNELS:
        return ref, ""
    row = engine.store.find("images", ref, "image")
    if row["base"] != BASE:
        return ref, ""
    key = key_of("ipykernel", row["id"], REQUIREMENT)
    cache = Cache(engine.store)
    if (known := cache.find_image(key)) is not None:
        return (ref if known == row["id"] else known), ""
    container = engine.create(ContainerSpec(image=row["id"], mounts=pip_mounts()))
    try:
        engine.start(container.id)
        finder = CommandFinder(engine, container.id, ref, None)
        command = finder.find(kernel)
        if not command.is_ipykernel:
            facts: list[Any] = [True]
        else:
            facts = json.loads(output(engine, container.id, (command.argv[0], "-c", PROBE)))
        if facts[-1]:
            cache.add_image(key, row["id"])
            return ref, ""
        layer_key = key_of("ipykernel layer", facts, REQUIREMENT)
        done = cache.find(layer_key)
        if done is None:
            step = progress.step("add", f"ipykernel to {ref}") if progress is not None else None
            install(engine, container.id, ref, command.argv[0])
            if step is not None:
                step.end()
            engine.stop(container.id, 0)
            record = json.loads(engine.row(container.id)["record"])
            newest = generations.own(engine.store, container.id, record)[-1]
            folder = f"{generations.folder(container.id, newest)}/root"
            done = cache.add(layer_key, engine.catalog.layers.adopt(folder).id)
        image = added(engine, row, done.layer)
        cache.add_image(key, image)
        return image, f"The image {ref} has no ipykernel: nbhull added it in a layer of its own."
    finally:
        engine.remove(container.id, force=True)


def added(engine: Engine, row: Any, layer: str) -> str:
    """The id of an image with one layer more."""
    config = dict(engine.catalog.config(row).document)
    config["rootfs"] = {"type": "layers", "diff_ids": []}
    config["history"] = [*(config.get("history") or []), {"created_by": "nbhull: ipykernel", "comment": REQUIREMENT}]
    below = list(reversed(engine.store.image_layers(row)))
    return engine.catalog.register(config, [*below, layer], parent=row["id"]).id


def pip_mounts() -> tuple[Mount, ...]:
    """This environment's pip, read-only. Raises NotFound if it has none."""
    try:
        import pip
    except ImportError as error:
        raise NotFound(
            "the image has no ipykernel, and to add it nbhull needs pip in its own environment",
            "install pip beside nbhull, or ipykernel in the image",
        ) from error
    return (Mount(os.path.realpath(os.path.dirname(pip.__file__)), f"{PIP}/pip", read_only=True),)


def install(engine: Engine, container: str, ref: str, python: str) -> None:
    """Run pip in a container of the image. Raises ProcessFailed with its last words."""
    scratch = "/opt/nbhull/tmp"
    env = {"PYTHONPATH": PIP, "PYTHONDONTWRITEBYTECODE": "1", "HOME": scratch, "TMPDIR": scratch, "LANG": "C.UTF-8"}
    pip = ("install", "--no-cache-dir", "--disable-pip-version-check", "--root-user-action=ignore", "--quiet")
    script = f'mkdir -p {scratch} && "$@" ; status=$?; rm -rf {scratch}; exit $status'
    command = (python, "-m", "pip", *pip, "--only-binary=:all:", "--target", LIBRARY, REQUIREMENT)
    argv = ("sh", "-c", script, "sh", *command)
    try:
        output(engine, container, argv, env)
    except ProcessFailed as error:
        raise ProcessFailed(
            f"the image {ref} has no ipykernel, and it cannot be added: {error.message}",
            "add it to the image, as with `RUN pip install ipykernel`; or mend the way to the package index",
        ) from error


def output(engine: Engine, container: str, argv: tuple[str, ...], env: dict[str, str] | None = None) -> str:
    """What a command writes. Raises ProcessFailed with its last words if it does not end well."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    with open(os.devnull, "rb") as null, os.fdopen(read_end, "rb") as answers:
        try:
            spec = ProcessSpec(argv, env=env or {}, cwd="/", user="0")
            process = engine.spawn(container, spec, (null.fileno(), write_end, write_end))
        finally:
            os.close(write_end)
        data = b""
        while piece := answers.read1(LONGEST_ANSWER):
            data = (data + piece)[-LONGEST_ANSWER:]
    with process:
        status = process.wait()
    text = data.decode(errors="replace").strip()
    if status != 0:
        raise ProcessFailed(f"{argv[0]} ended with {status}: {' '.join(text.split())[-300:]}", "")
    return text
