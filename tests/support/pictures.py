"""Pictures of what a person sees, which the tests take and the documentation shows."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Locator, Page

FOLDER = Path(__file__).resolve().parents[2] / "build/pictures"


def picture(shown: Page | Locator, name: str) -> None:
    """Keep what a page or a part of it looks like now as build/pictures/NAME.png."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    shown.screenshot(path=FOLDER / f"{name}.png")
