"""The panel's page by itself, with a kernel that the test plays: what is seen, heard by a screen reader, and typed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from support.axe import faults
from support.panel_page import MIB, PanelPage, node, sample, tree

pytestmark = pytest.mark.requires("chromium", "user")
DIFFERENCE: dict[str, Any] = {
    "packages": [
        {"package": "numpy", "old": "1.26.4", "new": "2.1.0"},
        {"package": "polars", "old": None, "new": "1.9"},
    ],
    "changes": [
        {"path": "/srv/data/paper.txt", "change": "changed", "kind": "file", "sizes": [10, 2000]},
        {"path": "/srv/data/old.csv", "change": "deleted", "kind": "file", "sizes": [10, None]},
        {"path": "/root/.cache/pip", "change": "added", "kind": "directory", "sizes": [None, None]},
    ],
    "texts": {"/srv/data/paper.txt": "--- /srv/data/paper.txt\n+++ /srv/data/paper.txt\n@@ -1 +1 @@\n-one\n+two"},
    "omitted": 0,
}
LONG = "a-snapshot-whose-name-is-as-long-as-somebody-who-describes-everything-in-it-would-make-it"


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1000, "height": 720})
    yield page
    page.close()


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    """A page as a person finds it; what a test has changed of the browser's settings is taken back."""
    problems: list[str] = []

    def note(error: Any) -> None:
        problems.append(str(error))

    tab.on("pageerror", note)
    yield tab
    tab.remove_listener("pageerror", note)
    tab.emulate_media(reduced_motion="null", forced_colors="null")
    assert problems == []


def show_difference(shown: PanelPage, name: str = "step-2") -> None:
    """Choose a snapshot, and have the kernel answer what it has changed."""
    shown.panel.get_by_role("treeitem", name=name).click()
    shown.page.wait_for_function("kernel.sent.some((message) => message.do === 'diff')")
    number = shown.asked()[-1]["number"]
    shown.say(kind="diff", number=number, **DIFFERENCE)


# -- accessibility -----------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_fault(page: Page, theme: str) -> None:
    shown = PanelPage(page, theme=theme)
    show_difference(shown)
    page.locator("summary", has_text="paper").click()
    assert faults(page, ".nbhull-panel") == []
    page.get_by_role("button", name="Reset", exact=True).click()
    shown.change(log=[{"time": 1.0, "text": "it failed", "failed": True}])
    assert faults(page, ".nbhull-panel") == []
    page.keyboard.press("Escape")
    shown.change(busy="replay")
    assert faults(page, ".nbhull-panel") == []
    assert faults(PanelPage(page, theme=theme, snapshots=0, width="340px").page, ".nbhull-panel") == []


def test_what_a_screen_reader_is_told(page: Page) -> None:
    shown = PanelPage(page, snapshots=3)
    expect(shown.panel).to_match_aria_snapshot("""
    - region "Container notebook-1f3a":
      - heading "Container notebook-1f3a" [level=2]
      - status: ready
      - 'img /Memory: .* MiB|GiB, of 2\\.0 GiB/'
      - heading "Snapshots" [level=3]
      - button "Undo reset"
      - textbox "Name of the snapshot"
      - textbox "Note on it"
      - checkbox "memory"
      - button "Snapshot"
      - tree "Snapshots":
        - treeitem /host/ [level=1]
        - treeitem /step-0/ [level=2]
        - treeitem /step-1 before the upgrade/ [level=3]
        - treeitem /step-2 you are here with memory/ [level=4] [selected]
      - heading "step-2" [level=3]
      - group "What to compare":
        - button "Its changes" [pressed]
        - button "Until now"
      - group "Chosen snapshot":
        - button "Reset"
      - region "Difference"
      - log "Log"
    """)
    here = shown.panel.get_by_role("treeitem", name="step-2")
    assert here.get_attribute("aria-current") == "true"


def test_everything_is_done_with_the_keyboard(page: Page) -> None:
    shown = PanelPage(page)
    items = shown.panel.get_by_role("treeitem")
    chosen = shown.panel.locator("[role=treeitem][aria-selected=true]")
    page.get_by_role("checkbox", name="memory").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(chosen).to_be_focused()
    for key, name in [
        ("Home", "host"), ("ArrowDown", "step-0"), ("End", "step-5"), ("ArrowLeft", "step-3"), ("ArrowRight", "step-5"),
        ("ArrowUp", "step-4"), ("PageUp", "host"), ("PageDown", "step-5"), ("ArrowUp", "step-4"),
    ]:  # fmt: skip
        page.keyboard.press(key)
        expect(chosen).to_be_focused()
        expect(chosen.locator(".nbhull-name")).to_have_text(name)
    assert items.count() == 7
    page.wait_for_function("kernel.sent.some((message) => message.do === 'diff')")
    assert shown.asked() == [{"do": "diff", "number": 1, "a": "snapshot-3", "b": "snapshot-4"}]
    reset = page.get_by_role("group", name="Chosen snapshot").get_by_role("button", name="Reset")
    reset.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Reset to step-4?")
    expect(dialog.get_by_role("button", name="Reset")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(reset).to_be_focused()
    assert len(shown.asked()) == 1, "Escape takes a question back"
    page.get_by_role("button", name="Tag").focus()
    page.keyboard.press(" ")
    page.keyboard.type("not a name")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name="One more name for it")).to_be_visible()
    page.keyboard.press("Control+a")
    page.keyboard.type("good")
    page.keyboard.press("Enter")
    assert shown.asked()[-1] == {"do": "tag", "image": "snapshot-4", "name": "good"}
    expect(page.get_by_role("status")).to_have_text("tag …")


def test_saving_suggests_a_name_for_the_file(page: Page) -> None:
    shown = PanelPage(page)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("textbox", name="File in the notebook’s folder")).to_have_value("step-5.tar")
    page.keyboard.press("Enter")
    assert shown.asked()[-1] == {"do": "save", "image": "snapshot-5", "file": "step-5.tar"}


def test_focus_stays_where_it_is_when_the_kernel_tells_something(page: Page) -> None:
    shown = PanelPage(page)
    item = shown.panel.get_by_role("treeitem", name="step-2")
    item.click()
    item.evaluate("(element) => { window.before = element; }")
    more = [*tree(6), node("new", "snapshot-2", name="new-one", created=2e9)]
    shown.change(tree=more)
    shown.say(kind="beat", busy="", sample=sample(61))
    expect(shown.panel.get_by_role("treeitem")).to_have_count(8)
    expect(item).to_be_focused()
    assert item.evaluate("(element) => element === window.before"), "a reader would begin anew with another element"
    pin = page.get_by_role("button", name="pin")
    pin.focus()
    shown.change(busy="replay", tree=tree(6))
    expect(pin).to_be_focused()
    expect(pin).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("Enter")
    assert all(message["do"] == "diff" for message in shown.asked()), "it does nothing meanwhile"


def test_the_choice_goes_with_the_container(page: Page) -> None:
    shown = PanelPage(page, snapshots=2)
    moved = [dict(each, here=False) for each in shown.snapshots]
    shown.change(tree=moved)  # for a moment it is nowhere
    shown.change(tree=[*moved, node("taken", "snapshot-1", name="just-taken", created=2e9, here=True)])
    chosen = shown.panel.locator("[role=treeitem][aria-selected=true]")
    expect(chosen).to_contain_text("just-taken")


# -- what is seen --------------------------------------------------------------------------------------

SHIFTS = """() => {
  window.shifts = [];
  const told = ({ node, previousRect, currentRect }) =>
    `${node?.className}: ${JSON.stringify([previousRect, currentRect])}`;
  new PerformanceObserver((list) => {
    window.shifts.push(...list.getEntries().flatMap((entry) => entry.sources.map(told)));
  }).observe({ type: "layout-shift" });
}"""


@pytest.mark.parametrize("width", ["auto", "340px"])
def test_nothing_moves(page: Page, width: str) -> None:
    shown = PanelPage(page, width=width)
    page.evaluate(SHIFTS)
    parts = page.locator(".nbhull-panel, .nbhull-panel > *, .nbhull-side > *, .nbhull-box")

    def boxes() -> list[Any]:
        return [part.bounding_box() for part in parts.all()]

    before = boxes()
    large = dict(sample(62), memory=123456 * MIB, written=987654321, disk_limit=9876543210)
    shown.say(kind="beat", busy="", sample=large)
    assert boxes() == before
    shown.change(busy="snapshot with memory, when no cell runs", about={"name": LONG, "image": LONG, "network": "nat"})
    assert boxes() == before
    shown.change(
        busy="", tree=[dict(each, name=f"{LONG}-{n}", note=LONG, here=n == 40) for n, each in enumerate(tree(40))],
        log=[{"time": float(n), "text": f"{n} {LONG} {LONG}", "failed": n % 2 == 0} for n in range(60)],
    )  # fmt: skip
    assert boxes() == before
    page.get_by_role("group", name="Chosen snapshot").get_by_role("button", name="Reset").click()
    assert boxes() == before
    page.keyboard.press("Escape")
    shown.say(kind="report", text=f"{LONG}\n" * 100)
    assert boxes() == before
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.evaluate("window.shifts") == []


@pytest.mark.parametrize(("width", "columns"), [("auto", 2), ("600px", 1), ("320px", 1), ("260px", 1)])
def test_it_fits_into_any_width(page: Page, width: str, columns: int) -> None:
    shown = PanelPage(page, width=width)
    show_difference(shown)
    left, right = (side.bounding_box() for side in page.locator(".nbhull-side").all())
    assert left
    assert right
    assert (2 if left["y"] == right["y"] else 1) == columns
    parts = page.locator(".nbhull-panel, .nbhull-head, .nbhull-charts, .nbhull-form, .nbhull-tree")
    wide = "(parts) => parts.filter((part) => part.scrollWidth > part.clientWidth).map((part) => part.className)"
    assert parts.evaluate_all(wide) == []
    snapshot = page.get_by_role("button", name="Snapshot", exact=True).bounding_box()
    assert snapshot
    assert snapshot["x"] + snapshot["width"] <= left["x"] + left["width"] + 1


def test_what_there_is_to_do_is_said_where_there_is_nothing_yet(page: Page) -> None:
    shown = PanelPage(page, snapshots=0)
    hint = page.get_by_text("No snapshot yet")
    expect(hint).to_be_visible()
    shown.change(tree=tree(1))
    expect(hint).to_be_hidden()
    expect(page.get_by_role("region", name="Difference")).to_contain_text("Choose a snapshot")


def test_a_difference_is_a_tree_of_folders_with_the_lines_of_text(page: Page) -> None:
    shown = PanelPage(page)
    show_difference(shown)
    pane = page.get_by_role("region", name="Difference")
    expect(pane).to_contain_text("1.26.4 → 2.1.0")
    pane.locator("summary", has_text="paper.txt").click()
    expect(pane.locator(".nbhull-line-plus")).to_have_text("+two\n")
    expect(pane.locator(".nbhull-line-minus")).to_have_text("-one\n")


def test_names_and_notes_are_text_and_never_markup(page: Page) -> None:
    shown = PanelPage(page)
    evil = "<img src=x onerror='window.broken = 1'>"
    shown.change(
        tree=[node("image", None, name=evil), node("s", "image", name=evil, note=evil, created=1.0, here=True)],
        about={"name": evil, "image": evil}, log=[{"time": 1.0, "text": evil, "failed": False}], busy=evil,
    )  # fmt: skip
    shown.say(kind="failed", do="diff", text=evil)
    assert page.locator(".nbhull-panel img").count() == 0
    assert page.evaluate("window.broken") is None
    expect(shown.panel).to_contain_text(evil)


def test_the_persons_wishes_are_heard(page: Page) -> None:
    shown = PanelPage(page)
    shown.change(busy="replay")
    moving = "getComputedStyle(document.querySelector('.nbhull-heading'), '::before').animationName"
    assert page.evaluate(moving) == "nbhull-pulse"
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(moving) == "none"
    page.emulate_media(forced_colors="active")
    chosen = page.locator("[role=treeitem][aria-selected=true]")
    assert chosen.evaluate("(row) => getComputedStyle(row).outlineStyle") == "solid"


# -- the line to the kernel ------------------------------------------------------------------------------

HELLOS = "kernel.sent.filter((message) => message.do === 'hello').length"


@pytest.fixture
def timed(browser: Browser) -> Iterator[Page]:
    """A page whose clock the test turns."""
    page = browser.new_page()
    page.clock.install()
    yield page
    page.close()


def test_one_sign_of_life_at_most_waits_behind_a_running_cell(timed: Page) -> None:
    shown = PanelPage(timed)
    for number in range(30):  # five minutes, in which the kernel beats, and does not come to hear anything
        timed.clock.run_for(10_000)
        shown.say(kind="beat", busy="", sample=sample(number))
    assert timed.evaluate(HELLOS) == 1
    shown.say(kind="welcome")
    timed.clock.run_for(5_000)
    assert timed.evaluate(HELLOS) == 2
    expect(timed.get_by_role("status")).to_have_text("ready")


def test_a_panel_that_has_lost_its_kernel_says_what_to_do(timed: Page) -> None:
    shown = PanelPage(timed)
    timed.evaluate("kernel.isThere = false")
    for _ in range(15):
        timed.clock.run_for(1_000)
    expect(timed.get_by_role("status")).to_have_text("This panel has lost its kernel. Run this cell again.")
    expect(timed.get_by_role("button", name="Snapshot")).to_have_attribute("aria-disabled", "true")
    timed.get_by_role("button", name="Snapshot").click(force=True)
    timed.get_by_role("group", name="Chosen snapshot").get_by_role("button", name="Reset").click(force=True)
    expect(timed.get_by_role("dialog")).to_be_hidden()
    assert shown.asked() == []
    timed.evaluate("kernel.isThere = true")
    shown.say(kind="beat", busy="", sample=sample(1))
    expect(timed.get_by_role("status")).to_have_text("ready")
    expect(timed.get_by_role("button", name="Snapshot")).to_have_attribute("aria-disabled", "false")
