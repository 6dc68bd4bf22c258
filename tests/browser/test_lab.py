"""What a person does in JupyterLab with containerized kernels, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from support.lab import PATIENCE, Lab
from support.pictures import picture

pytestmark = pytest.mark.requires("chromium")
CONTAINER = "Python 3 (container)"


def test_the_launcher_offers_the_kernel_and_it_runs_in_a_container(lab: Lab) -> None:
    lab.tile(CONTAINER).hover()
    picture(lab.page, "launcher")
    lab.open_notebook(CONTAINER)
    assert lab.run("print(open('/proc/1/comm').read())").inner_text().strip() == "nbhull-init"
    table = lab.run("%container").locator("table")
    table.wait_for()
    assert "host" in table.inner_text()
    picture(lab.page, "cells")


@pytest.mark.requires("user")
def test_a_reset_keeps_the_notebook_connected(lab: Lab) -> None:
    lab.open_notebook(CONTAINER)
    lab.run("open('/srv/kept', 'w').write('kept')")
    lab.run("%container snapshot seen-in-a-browser")
    lab.run("import os; os.unlink('/srv/kept'); mark = 1")
    assert "reset to seen-in-a-browser" in lab.run("%container reset").inner_text()
    outputs = lab.run("print(open('/srv/kept').read(), 'mark' in globals())")
    assert outputs.inner_text().strip() == "kept False"


@pytest.mark.requires("user")
def test_restart_keeps_what_was_installed(lab: Lab) -> None:
    lab.open_notebook(CONTAINER)
    lab.run("open('/srv/installed', 'w').write('yes')")
    lab.restart()
    assert lab.run("print(open('/srv/installed').read())").inner_text().strip() == "yes"


@pytest.mark.requires("user")
def test_a_cell_in_another_container_streams_and_is_interrupted(lab: Lab) -> None:
    lab.open_notebook(CONTAINER)
    cell = lab.type("%%container run host\necho to-output; echo to-errors >&2; exec sleep 1000")
    lab.page.keyboard.press("Shift+Enter")
    cell.locator("[data-mime-type='application/vnd.jupyter.stdout']", has_text="to-output").wait_for()
    cell.locator("[data-mime-type='application/vnd.jupyter.stderr']", has_text="to-errors").wait_for()
    assert "[*]" in cell.locator(".jp-InputPrompt").inner_text()
    picture(cell, "cell-running")
    lab.menu("Kernel", "Interrupt Kernel")
    cell.locator(".jp-OutputArea-output", has_text="the cell was interrupted, and its container is gone").wait_for()
    picture(lab.page, "cell-interrupted")
    assert lab.run("%container ps").locator("table tbody tr").count() == 1


@pytest.mark.requires("root")
def test_an_image_is_built_from_a_cell_and_run(lab: Lab) -> None:
    lab.open_notebook(CONTAINER)
    built = lab.run("%%container build -t built-in-a-page\nFROM small\nRUN echo made | tee /made")
    expect(built.first).to_contain_text("RUN echo made | tee /made", timeout=PATIENCE)
    picture(lab.page, "build")
    assert lab.run("%%container run built-in-a-page\ncat /made").first.inner_text().strip() == "made"


@pytest.mark.requires("cgroup-memory", "root")
def test_a_kernel_that_dies_by_its_memory_limit_says_so_in_the_cell(lab: Lab) -> None:
    lab.open_notebook("small-memory")
    outputs = lab.run("block = b'x' * (1 << 30)")
    expect(outputs.first).to_contain_text("the kernel went over its memory limit of 64", timeout=PATIENCE)
    dead = lab.page.locator(".jp-Dialog", has_text="appears to have died")
    dead.get_by_role("button", name="Ok").click()
    picture(lab.page.locator(".jp-Notebook-cell").first, "memory-limit")
    lab.wait_idle()
    assert lab.run("print('alive')").inner_text().strip() == "alive"


@pytest.mark.requires("root")
@pytest.mark.parametrize(
    ("tile", "reason", "hint"),
    [
        ("wrong-memory", "memory limit '12 elephants' is not a size", "write it like 512m or 2g"),
        ("no-image", "there is no image 'no-such-image'", "nbhull images"),
    ],
)
def test_a_start_that_cannot_succeed_says_why_in_a_dialog(lab: Lab, tile: str, reason: str, hint: str) -> None:
    lab.tile(tile).click()
    text = lab.dialog().inner_text()
    assert reason in text
    assert hint in text
    assert "Traceback" not in text
    assert lab.ask("kernels") == []
