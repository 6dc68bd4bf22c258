"""What an open panel costs its kernel, and how long the page takes to draw a large tree of snapshots."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jupyter_client.manager import KernelManager
from playwright.sync_api import sync_playwright

from harness import Measurement, Result, measure
from kernels import CONTAINER, TIMEOUT

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from support.panel_page import PanelPage, tree

PEERS = {"chromium": "chromium"}
SNAPSHOTS = 500
WINDOW = 6.0
"""seconds over which CPU time is counted: three beats of the panel"""
DRAW = """async (tree) => {
  kernel.change({ tree: [] });
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const began = performance.now();
  kernel.change({ tree });
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return (performance.now() - began) / 1000;
}"""
"""from the kernel's word to the painted page, in seconds"""


def cpu_of_kernel(rounds: int) -> dict[str, list[float]]:
    """Seconds of CPU time that a kernel takes in a second, with the panel open and without one."""
    manager = KernelManager(kernel_name=CONTAINER)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=TIMEOUT)

    def used() -> float:
        said: list[str] = []

        def take(message: dict[str, dict[str, str]]) -> None:
            said.append(message["content"].get("text", ""))

        code = "import time; print(time.process_time())"
        reply = client.execute_interactive(code, timeout=TIMEOUT, allow_stdin=False, output_hook=take)
        assert reply["content"]["status"] == "ok", reply["content"]
        return float("".join(said))

    def window() -> float:
        began, before = time.monotonic(), used()
        time.sleep(WINDOW)
        return (used() - before) / (time.monotonic() - began)

    try:
        without = [window() for _ in range(rounds)]
        client.execute_interactive("shown = %container panel", timeout=TIMEOUT, output_hook=lambda message: None)
        window()  # what is imported late
        return {"nbhull": [window() for _ in range(rounds)], "no panel": without}
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def draw(page: PanelPage) -> Measurement:
    """A tree of many snapshots."""
    snapshots = tree(SNAPSHOTS)

    def measurement() -> float:
        seconds: float = page.page.evaluate(DRAW, snapshots)
        return seconds

    return measurement


def benchmarks(quick: bool) -> Iterator[Result]:
    """CPU time of a kernel in a second; a tree drawn."""
    yield Result("panel: CPU time of its kernel in a second", cpu_of_kernel(2 if quick else 8), target_ms=10)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        page = PanelPage(browser.new_page(viewport={"width": 1000, "height": 720}))
        drawn = measure({"nbhull": draw(page)}, rounds=5 if quick else 20)
        browser.close()
    yield Result(f"panel: {SNAPSHOTS} snapshots drawn in Chromium", drawn, target_ms=300)
