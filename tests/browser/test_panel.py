"""The panel in a real JupyterLab and Notebook 7: what a person sees and clicks, across resets."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, WebSocket, expect

from support.axe import faults
from support.lab import PATIENCE, Front, Lab, Notebook
from support.pictures import picture
from support.server import TOKEN

pytestmark = pytest.mark.requires("chromium")
CONTAINER = "Python 3 (container)"


def opened(front: Front) -> Locator:
    """A panel in the notebook, once it shows where the container stands."""
    front.run("%container panel")
    panel = front.page.locator(".nbhull-panel")
    expect(panel.get_by_role("treeitem")).not_to_have_count(0, timeout=PATIENCE)
    return panel


def take_snapshot(panel: Locator, name: str, *, memory: bool = False) -> None:
    panel.get_by_label("Name of the snapshot").fill(name)
    panel.get_by_role("checkbox", name="memory").set_checked(memory)
    panel.get_by_role("button", name="Snapshot", exact=True).click()
    expect(panel.get_by_role("treeitem", name=name)).to_contain_text("you are here", timeout=PATIENCE)
    expect(panel.get_by_role("status")).to_have_text("ready", timeout=PATIENCE)


def reset_to(panel: Locator, name: str) -> None:
    panel.get_by_role("treeitem", name=name).click()
    panel.get_by_role("group", name="Chosen snapshot").get_by_role("button", name="Reset", exact=True).click()
    panel.get_by_role("dialog").get_by_role("button", name="Reset", exact=True).click()


@pytest.fixture
def received(lab: Lab) -> list[str]:
    """All that the page gets from kernels, as text."""
    frames: list[str] = []

    def note(frame: str | bytes) -> None:
        frames.append(frame if isinstance(frame, str) else frame.decode("latin-1"))

    def listen(channel: WebSocket) -> None:
        channel.on("framereceived", note)

    lab.page.on("websocket", listen)
    return frames


def test_the_panel_works_before_and_after_a_reset_of_its_kernel(lab: Lab, received: list[str]) -> None:
    lab.open_notebook(CONTAINER)
    panel = opened(lab)
    lab.run("mark = 1; open('/srv/paper', 'w').write('first\\n')")
    take_snapshot(panel, "by-button")
    panel.get_by_role("treeitem", name="by-button").click()
    panel.locator(".nbhull-pane summary", has_text="paper").click()
    expect(panel.locator(".nbhull-pane")).to_contain_text("+first", timeout=PATIENCE)
    picture(panel, "panel")
    reset_to(panel, "by-button")
    expect(panel.get_by_role("log")).to_contain_text("the kernel is new", timeout=PATIENCE)
    # the same panel in the same output, without a click or a cell run again
    take_snapshot(panel, "after-reset")
    assert lab.run("print('mark' in globals())").inner_text().strip() == "False"
    picture(lab.page, "panel-after-reset")
    told = "".join(received)
    assert "by-button" in told, "nothing was listened to"
    assert not re.search(f"{TOKEN}|nbhull-lab-|/store", told)


@pytest.mark.requires("user")
def test_a_cell_that_runs_while_the_panel_resets_fails_and_those_behind_it_are_not_begun(lab: Lab) -> None:
    lab.open_notebook(CONTAINER)
    panel = opened(lab)
    take_snapshot(panel, "before-a-long-cell")
    running = lab.type("print('begun', flush=True); __import__('time').sleep(1000)")
    lab.page.keyboard.press("Shift+Enter")
    running.locator(".jp-OutputArea-output", has_text="begun").wait_for()
    waiting = lab.type("print('never')")
    lab.page.keyboard.press("Shift+Enter")
    reset_to(panel, "before-a-long-cell")
    expect(running.locator(".jp-OutputArea")).to_contain_text("the container was reset", timeout=PATIENCE)
    expect(waiting.locator(".jp-InputPrompt")).to_have_text("[ ]:", timeout=PATIENCE)
    expect(panel.get_by_role("log")).to_contain_text("the kernel is new", timeout=PATIENCE)
    assert lab.run("print('goes on')").inner_text().strip() == "goes on"
    assert waiting.locator(".jp-OutputArea-output").count() == 0


@pytest.mark.requires("root")
def test_the_panel_goes_on_after_the_kernel_was_restarted(lab: Lab) -> None:
    lab.open_notebook(CONTAINER)
    panel = opened(lab)
    take_snapshot(panel, "before-restart")
    lab.restart()
    expect(panel.get_by_role("log")).to_contain_text("the kernel is new", timeout=PATIENCE)
    take_snapshot(panel, "after-restart")


@pytest.mark.requires("root")
def test_the_notebook_hears_no_key_that_is_meant_for_the_panel(lab: Lab) -> None:
    lab.open_notebook(CONTAINER)
    panel = opened(lab)
    cells = lab.page.locator(".jp-Notebook-cell")
    count = cells.count()
    panel.get_by_role("treeitem").first.click()
    for key in ("a", "b", "d", "d", "x", "m", "Home", "Enter"):
        lab.page.keyboard.press(key)
    assert cells.count() == count
    panel.get_by_label("Name of the snapshot").fill("typed")
    lab.page.keyboard.press("Tab")
    lab.page.keyboard.press("Tab")
    lab.page.keyboard.press("Tab")
    lab.page.keyboard.press("Enter")
    expect(panel.get_by_role("treeitem", name="typed")).to_contain_text("you are here", timeout=PATIENCE)
    expect(panel.get_by_role("status")).to_have_text("ready", timeout=PATIENCE)
    panel.get_by_role("button", name="Pin").focus()
    lab.page.keyboard.press(" ")
    expect(panel.get_by_role("treeitem", name="typed")).to_contain_text("pinned", timeout=PATIENCE)
    expect(panel.get_by_role("button", name="Unpin")).to_be_focused()
    assert cells.count() == count


@pytest.mark.requires("user")
def test_the_panel_in_jupyterlabs_themes(lab: Lab) -> None:
    lab.open_notebook(CONTAINER)
    panel = opened(lab)
    take_snapshot(panel, "in-the-light")
    assert faults(lab.page, ".nbhull-panel") == []
    lab.menu("Settings", "Theme", "JupyterLab Dark")
    lab.page.locator("body[data-jp-theme-light=false]").wait_for(state="attached")
    expect(panel).to_have_css("background-color", re.compile(r"rgb\(\d\d, "), timeout=PATIENCE)
    assert faults(lab.page, ".nbhull-panel") == []
    picture(panel, "panel-dark")
    lab.menu("Settings", "Theme", "JupyterLab Light")
    lab.page.locator("body[data-jp-theme-light=true]").wait_for(state="attached")


@pytest.mark.requires("user")
def test_a_memory_reset_keeps_a_slider_and_the_panel_alive(lab: Lab) -> None:
    lab.open_notebook(CONTAINER)
    panel = opened(lab)
    lab.run("import ipywidgets; slider = ipywidgets.IntSlider(value=3); slider")
    take_snapshot(panel, "with-memory", memory=True)
    expect(panel.get_by_role("treeitem", name="with-memory")).to_contain_text("with memory", timeout=PATIENCE)
    lab.run("slider.value = 5; extra = 1")
    reset_to(panel, "with-memory")
    expect(panel.get_by_role("status")).to_have_text("ready", timeout=PATIENCE)
    outputs = lab.run("slider.value = slider.value + 4; print(slider.value, 'extra' in globals())")
    assert outputs.inner_text().strip() == "7 False"
    expect(lab.page.locator(".widget-readout")).to_have_text("7", timeout=PATIENCE)
    picture(lab.page, "memory-reset")
    take_snapshot(panel, "after-memory-reset")


@pytest.mark.requires("root")
def test_the_panel_works_in_notebook_7_before_and_after_a_reset(notebook: Notebook) -> None:
    panel = opened(notebook)
    notebook.run("mark = 1")
    take_snapshot(panel, "in-notebook-7")
    reset_to(panel, "in-notebook-7")
    expect(panel.get_by_role("log")).to_contain_text("the kernel is new", timeout=PATIENCE)
    take_snapshot(panel, "after-it")
    assert notebook.run("print('mark' in globals())").inner_text().strip() == "False"
    picture(notebook.page, "notebook-7")
