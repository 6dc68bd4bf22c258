"""axe-core, which finds faults of accessibility in a page."""

from __future__ import annotations

from importlib.resources import files

from playwright.sync_api import Page

SCRIPT = files("axe_playwright_python") / "axe.min.js"
TELL = """async (selector) => {
  const found = await axe.run(selector);
  return found.violations.flatMap(({ id, impact, nodes }) =>
    nodes.map((node) => `${impact} ${id}: ${node.target} ${node.failureSummary}`));
}"""


def faults(page: Page, selector: str) -> list[str]:
    """What is wrong with the part of the page that matches a selector, each with how bad it is."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(SCRIPT.read_text())
    found: list[str] = page.evaluate(TELL, selector)
    return found
