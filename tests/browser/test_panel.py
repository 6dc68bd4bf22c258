"""The panel in a real JupyterLab: what a person sees and clicks, across resets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from support.lab import PATIENCE, Lab
from support.server import TOKEN

pytestmark = pytest.mark.requires("chromium")
CONTAINER = "Python 3 (container)"


def opened(lab: Lab) -> Locator:
    """A panel in a new notebook, once it shows where the container stands."""
    lab.open_notebook(CONTAINER)
    lab.run("%container panel")
    panel = lab.page.locator(".nbhull-panel")
    expect(panel.get_by_role("treeitem")).not_to_have_count(0, timeout=PATIENCE)
    return panel


def take_snapshot(panel: Locator, name: str, *, memory: bool = False) -> None:
    panel.get_by_label("Name of the snapshot").fill(name)
    panel.get_by_role("checkbox", name="memory").set_checked(memory)
    panel.get_by_role("button", name="Snapshot", exact=True).click()
    expect(panel.get_by_role("treeitem", name=name)).to_contain_text("you are here", timeout=PATIENCE)


def reset_to(panel: Locator, name: str) -> None:
    panel.get_by_role("treeitem", name=name).click()
    panel.get_by_role("group", name="Chosen snapshot").get_by_role("button", name="Reset", exact=True).click()
    panel.locator(".nbhull-question").get_by_role("button", name="Reset", exact=True).click()


def test_the_panel_works_before_and_after_a_reset_of_its_kernel(lab: Lab, tmp_path: Path) -> None:
    panel = opened(lab)
    lab.run("mark = 1; open('/srv/paper', 'w').write('first\\n')")
    take_snapshot(panel, "by-button")
    panel.get_by_role("treeitem", name="by-button").click()
    panel.locator(".nbhull-pane summary", has_text="paper").click()
    expect(panel.locator(".nbhull-pane")).to_contain_text("+first", timeout=PATIENCE)
    reset_to(panel, "by-button")
    expect(panel.get_by_role("log")).to_contain_text("the kernel is new", timeout=PATIENCE)
    # the same panel in the same output, without a click or a cell run again
    take_snapshot(panel, "after-reset")
    assert lab.run("print('mark' in globals())").inner_text().strip() == "False"
    assert not re.search(f"{TOKEN}|nbhull-lab-|/store", panel.inner_text())


def test_a_memory_reset_keeps_a_slider_and_the_panel_alive(lab: Lab) -> None:
    panel = opened(lab)
    lab.run("import ipywidgets; slider = ipywidgets.IntSlider(value=3); slider")
    take_snapshot(panel, "with-memory", memory=True)
    expect(panel.get_by_role("treeitem", name="with-memory")).to_contain_text("with memory", timeout=PATIENCE)
    lab.run("slider.value = 5; extra = 1")
    reset_to(panel, "with-memory")
    expect(panel.locator(".nbhull-status")).to_have_text("", timeout=PATIENCE)
    outputs = lab.run("slider.value = slider.value + 4; print(slider.value, 'extra' in globals())")
    assert outputs.inner_text().strip() == "7 False"
    expect(lab.page.locator(".widget-readout")).to_have_text("7", timeout=PATIENCE)
    take_snapshot(panel, "after-memory-reset")
