"""The pages of JupyterLab and Notebook 7, driven as a person would: tiles, cells, dialogs."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Any

from playwright.sync_api import Locator, Page

from support.server import TOKEN, Server
from support.waiting import eventually

PATIENCE = 60_000
"""milliseconds; a kernel may start beside many other processes"""
IS_IDLE = """() => document.querySelector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
  || document.querySelector("#jp-main-statusbar")?.innerText.includes("| Idle")"""


class Front:
    """A page of either, with a notebook or none yet."""

    def __init__(self, page: Page, server: Server, path: str) -> None:
        """Open `path` of the server."""
        self.page = page
        self.server = server
        page.set_default_timeout(PATIENCE)
        # JupyterLab gives its stylesheet a few seconds, which a busy machine does not always have.
        theme = page.locator(".jp-Dialog", has_text="Error Loading Theme")
        page.add_locator_handler(theme, lambda dialog: dialog.get_by_role("button").last.click())
        page.goto(f"http://127.0.0.1:{server.port}/{path}token={TOKEN}")

    def wait_idle(self) -> None:
        """Wait until the page is connected to its notebook's kernel, and the kernel idle. The page says
        idle before there is a connection, and what is run then is lost."""
        eventually(self.is_connected, "the page is connected to its kernel")
        # JupyterLab tells in two places, of which on a busy machine the one or the other may come late.
        self.page.wait_for_function(IS_IDLE)

    def is_connected(self) -> bool:
        """Whether the server's kernels are idle, each with a page connected."""
        try:
            kernels = self.ask("kernels")
        except AssertionError:
            kernels = []  # jupyter_server fails to list kernels while one of them is just starting
        self.page.wait_for_timeout(20)  # the page's events are handled only while the browser is talked to
        return bool(kernels) and all(k["connections"] and k["execution_state"] == "idle" for k in kernels)

    def run(self, code: str) -> Locator:
        """Type a cell, run it, and wait until it is done; gives its outputs."""
        cell = self.type(code)
        self.page.keyboard.press("Shift+Enter")
        cell.locator(".jp-InputPrompt", has_text=re.compile(r"\[\d+\]:")).wait_for()
        return cell.locator(".jp-OutputArea-output")

    def type(self, code: str) -> Locator:
        """Type into the last, empty cell; gives the cell."""
        cells = self.page.locator(".jp-NotebookPanel:visible .jp-Notebook-cell")
        cell = cells.nth(cells.count() - 1)
        cell.locator(".cm-content").click()
        self.page.keyboard.insert_text(code)
        return cell

    def menu(self, *labels: str) -> None:
        """Choose from the menu bar."""
        head, *items = labels
        self.page.get_by_role("menuitem", name=head, exact=True).click()
        for item in items:
            self.page.locator(".lm-Menu-item:visible", has_text=item).first.click()

    def restart(self) -> None:
        """Restart the kernel by the menu, and wait until the page is connected to it."""
        self.menu("Kernel", "Restart Kernel…")
        with self.page.expect_response(lambda response: response.url.partition("?")[0].endswith("/restart")):
            self.dialog().get_by_role("button", name="Confirm Kernel Restart").click()
        self.wait_idle()

    def dialog(self) -> Locator:
        """The dialog, once it is open."""
        dialog = self.page.locator(".jp-Dialog-content")
        dialog.wait_for()
        return dialog

    def ask(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """Ask the server's REST interface, past the page."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.server.port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {TOKEN}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE / 1000) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()} {self.server.log[-3000:]}") from error
        return json.loads(text) if text else None

    def close(self) -> None:
        """Close the page, then all sessions, and with them their containers."""
        self.page.close()
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")


class Lab(Front):
    """A page of JupyterLab, open at the launcher."""

    def __init__(self, page: Page, server: Server, workspace: str) -> None:
        super().__init__(page, server, f"lab/workspaces/{workspace}?reset&")
        page.locator(".jp-LauncherCard").first.wait_for()

    def tile(self, title: str) -> Locator:
        """A tile of the launcher that opens a notebook."""
        return self.page.locator(f".jp-LauncherCard[data-category=Notebook][title='{title}']")

    def open_notebook(self, kernel: str) -> None:
        """Open a new notebook by its tile, and wait for its kernel."""
        self.tile(kernel).click()
        self.wait_idle()


class Notebook(Front):
    """A page of Notebook 7 with a new notebook, its kernel idle."""

    def __init__(self, page: Page, server: Server, name: str, kernel: str) -> None:
        self.server = server
        cell: dict[str, Any] = {"cell_type": "code", "source": "", "metadata": {}, "outputs": []}
        cell["execution_count"] = None
        metadata = {"kernelspec": {"name": kernel, "display_name": kernel}}
        content = {"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}
        self.ask(f"contents/{name}", "PUT", {"type": "notebook", "format": "json", "content": content})
        super().__init__(page, server, f"notebooks/{name}?")
        self.wait_idle()
