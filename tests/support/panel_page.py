"""The panel's page without a server: its script in a browser, with a kernel that a test plays itself."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

from nbhull.magics.panel.widget import FRONT, SCRIPTS, STYLE

KERNEL = (Path(__file__).parent / "panel_kernel.js").read_text()
"""what stands in for the widget's model, as `window.kernel`"""
MIB = 1 << 20


class PanelPage:
    """A panel on an otherwise empty page."""

    def __init__(self, page: Page, *, snapshots: int = 6, theme: str = "light", width: str = "auto") -> None:
        """`snapshots`: how many hang below the image; `theme`: light or dark, as JupyterLab tells it; `width`: of the
        output, in CSS."""
        self.page = page
        self.snapshots = tree(snapshots)
        is_light, ground = ("true", "white") if theme == "light" else ("false", "#111")
        page.set_content(
            "<!DOCTYPE html><html lang='en'><title>Panel</title>"
            f"<body data-jp-theme-light='{is_light}' style='background: {ground}; margin: 8px'>"
            f"<style>{(FRONT / STYLE).read_text()}</style>"
            f"<main style='width: {width}'></main></body></html>"
        )
        code = "\n".join((FRONT / name).read_text() for name in SCRIPTS)
        state = {
            "me": "the-panel", "about": ABOUT, "tree": self.snapshots, "busy": "", "life": "first",
            "log": [{"time": time.time() - 60, "text": "panel opened", "failed": False}],
            "history": [sample(number) for number in range(60)],
        }  # fmt: skip
        page.evaluate(KERNEL, [code, state])

    @property
    def panel(self) -> Locator:
        """The panel's outermost element."""
        return self.page.locator(".nbhull-panel")

    def change(self, **state: Any) -> None:
        """The kernel changes its widget's state."""
        self.page.evaluate("state => kernel.change(state)", state)

    def say(self, **message: Any) -> None:
        """The kernel sends a message."""
        self.page.evaluate("message => kernel.say(message)", message)

    def asked(self) -> list[dict[str, Any]]:
        """What the page has asked for so far, but for signs of life."""
        sent: list[dict[str, Any]] = json.loads(self.page.evaluate("JSON.stringify(kernel.sent)"))
        return [message for message in sent if message["do"] != "hello"]


ABOUT = {
    "name": "notebook-1f3a", "image": "host", "network": "nat", "memory": 2048 * MIB, "cpus": 2.0, "disk": None,
}  # fmt: skip


def tree(count: int) -> list[dict[str, Any]]:
    """An image with so many snapshots, every fifth one a branch of its own, the last one the container's."""
    now = time.time()
    found = [node("image", None, name="host", created=0.0)]
    main = "image"
    for number in range(count):
        identity = f"snapshot-{number}"
        taken = node(
            identity, main, name=f"step-{number}", created=now - 600 * (count - number), size=number * 3 * MIB // 2,
            note="before the upgrade of numpy" if number % 4 == 1 else "", pinned=number % 7 == 2,
            memory=number % 3 == 2, auto="reset" if number % 5 == 4 else "",
        )  # fmt: skip
        found.append(taken)
        main = main if number % 5 == 4 else identity
    found[-1]["here"] = True
    return found


def node(identity: str, parent: str | None, **fields: Any) -> dict[str, Any]:
    """One snapshot as the server tells of it (`nbhull.kernel.panel.tree`)."""
    plain = {"size": 0, "note": "", "pinned": False, "auto": "", "memory": False, "here": False}
    return {"id": identity, "parent": parent, **plain, **fields}


def sample(number: int) -> dict[str, Any]:
    """What the container used at one moment."""
    wave = (number * 7) % 23 / 23
    return {
        "time": time.time() - 120 + 2 * number, "memory": (300 + 20 * number) * MIB, "memory_limit": 2048 * MIB,
        "disk": 12 * MIB, "disk_limit": None, "pids": 9, "pids_limit": 4096, "cpu": 2 * wave,
        "read": wave * MIB, "written": wave * 3 * MIB, "received": wave * 90_000, "sent": wave * 9_000,
    }  # fmt: skip
