"""Progress in notebooks: one display, few updates, the last state right however it ends."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from nbhull.magics import progress
from nbhull.magics.progress import Notes, shown_in
from nbhull.runtime.builder.progress import INSTEAD
from nbhull.runtime.errors import NotFound
from nbhull.runtime.verbs.progress import shown, working

NOTEBOOK = SimpleNamespace(kernel=object())


class Page:
    """What a front end shows."""

    def __init__(self) -> None:
        self.pictures: list[Any] = []
        self.drawn = threading.Semaphore(0)

    def display(self, picture: Any, display_id: bool) -> Page:
        assert display_id
        assert not self.pictures, "one display alone"
        return self.update(picture)

    def update(self, picture: Any) -> Page:
        self.pictures.append(picture)
        self.drawn.release()
        return self


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    page = Page()
    monkeypatch.setattr(progress, "display", page.display)
    return page


def test_a_transfer(page: Page) -> None:
    with shown_in(NOTEBOOK), shown() as told:
        told.begin("layer", 10 << 20)
        told.advance("layer", 4 << 20)
        page.drawn.acquire(timeout=10)
        for _ in range(10_000):
            told.advance("layer", 1)
        told.end("layer", "pulled")
        told.end("other", "already here")
    assert len(page.pictures) < 10
    assert repr(page.pictures[-1]) == "✓ layer: pulled\n✓ other: already here"
    assert "<progress" not in page.pictures[-1]._repr_html_()
    assert INSTEAD.get() is None


def test_while_it_goes_on(page: Page) -> None:
    with shown_in(NOTEBOOK) as notes:
        assert notes is not None
        notes.begin("<layer>", 10 << 20)
        notes.advance("<layer>", 4 << 20)
        step = notes.step("1/2", "RUN make")
        step.output("".join(f"line <{n}>\n" for n in range(100)) + "half")
        notes.draw()
        html, text = page.pictures[-1]._repr_html_(), repr(page.pictures[-1])
        assert "4.0 MiB of 10 MiB" in text
        assert '<progress max="10485760" value="4194304" aria-label="&lt;layer&gt;"></progress>' in html
        assert "line &lt;99&gt;" in html
        assert "line <91>" not in text
        step.fail()
    assert "✗ [1/2] RUN make: failed" in repr(page.pictures[-1])
    assert "line <61>" in repr(page.pictures[-1]), "of a step that failed, more is shown"


@pytest.mark.parametrize(("error", "told"), [(KeyboardInterrupt, "interrupted"), (NotFound("x"), "given up")])
def test_what_is_broken_off_says_so(page: Page, error: Any, told: str) -> None:
    def break_off() -> None:
        with shown_in(NOTEBOOK), shown() as transfer:
            transfer.begin("layer", 10)
            raise error

    with pytest.raises((KeyboardInterrupt, NotFound)):
        break_off()
    assert repr(page.pictures[-1]) == f"■ layer: {told}"


def test_what_goes_on_is_a_step(page: Page) -> None:
    with shown_in(NOTEBOOK), working(None, "save", "image to file"):
        pass
    assert repr(page.pictures[-1]) == "✓ [save] image to file"

    def fail() -> None:
        with shown_in(NOTEBOOK), working(None, "load", "file"):
            raise NotFound("there is none")

    page.pictures.clear()
    with pytest.raises(NotFound):
        fail()
    assert repr(page.pictures[-1]) == "✗ [load] file: failed"


def test_nothing_to_tell_shows_nothing(page: Page) -> None:
    with shown_in(NOTEBOOK):
        pass
    assert page.pictures == []


def test_a_terminal_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_in(SimpleNamespace()) as notes, shown() as told, working(None, "save", "x"):
        assert notes is None
        told.end("layer", "pulled")
    assert capsys.readouterr().err == "layer: pulled\n"


def test_many_entries_are_counted() -> None:
    notes = Notes()
    notes.over.set()  # nothing is drawn
    for number in range(progress.MOST + 5):
        notes.note(f"note {number}")
    picture = progress.Picture(notes.entries)
    assert repr(picture).startswith("5 before\n✓ note 5\n")
