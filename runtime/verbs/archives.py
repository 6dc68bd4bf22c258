"""The verbs by which images and root file systems come from files, and go to them."""

from __future__ import annotations

from nbhull.runtime.errors import InvalidInput
from nbhull.runtime.verbs.results import Names, Result, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from nbhull.runtime.engine import Engine


def parse_format(text: str) -> str:
    """A format of archives."""
    from nbhull.runtime.images.archives import FORMATS

    if text not in FORMATS:
        raise InvalidInput(f"unknown format {text!r}", f"one of: {', '.join(FORMATS)}")
    return text


def refuse_terminal(output: str) -> None:
    """An archive is nothing for a screen."""
    import os

    if output == "-" and os.isatty(1):
        raise InvalidInput("an archive would be written to the terminal", "give --output FILE, or redirect it")


def save(engine: Engine, values: dict[str, Any]) -> Result:
    """`save`: prints nothing."""
    from nbhull.runtime.images import archives
    from nbhull.runtime.verbs.progress import working

    refuse_terminal(values["output"])
    with working(engine, "save", f"{', '.join(values['image'])} to {values['output']}"):
        archives.save(engine.catalog, values["image"], values["output"], values["format"])
    return Names([])


def load(engine: Engine, values: dict[str, Any]) -> Result:
    """`load`: gives back what names the images: their names, else their ids."""
    from nbhull.runtime.images import archives
    from nbhull.runtime.verbs.progress import working

    with working(engine, "load", values["input"]):
        found = archives.load(engine.catalog, values["input"], [values["name"]] if values["name"] else [])
    return Names([image.id if values.get("quiet") else image.name or short_id(image.id) for image in found])


def import_root(engine: Engine, values: dict[str, Any]) -> Result:
    """`import`: gives back the image's name."""
    from nbhull.runtime.images import exchange
    from nbhull.runtime.verbs.progress import working

    with working(engine, "import", f"{values['file']} as {values['name']}"):
        return Names([exchange.import_file(engine, values["file"], values["name"]).name])


def commit(engine: Engine, values: dict[str, Any]) -> Result:
    """`commit`: gives back the image's name."""
    from nbhull.runtime.images import exchange
    from nbhull.runtime.verbs.progress import working

    with working(engine, "commit", f"{values['container']} as {values['name']}"):
        return Names([exchange.commit(engine, values["container"], values["name"], values["change"]).name])


def export(engine: Engine, values: dict[str, Any]) -> Result:
    """`export`: says what could not be read."""
    from nbhull.runtime.images import exchange
    from nbhull.runtime.verbs.progress import working

    refuse_terminal(values["output"])
    with working(engine, "export", f"{values['container']} to {values['output']}"):
        unread = exchange.export(engine, values["container"], values["output"])
    notices = [f"{unread} files that only the host's root may read were left out"] if unread else []
    return Names([], notices=notices)


def bootstrap(engine: Engine, values: dict[str, Any]) -> Result:
    """`bootstrap`: gives back the image's name."""
    from nbhull.runtime.images import exchange
    from nbhull.runtime.verbs.progress import working

    name = values["name"] or values["suite"]
    with working(engine, "bootstrap", f"{values['suite']} as {name}"):
        image = exchange.bootstrap(engine, values["suite"], name, values["include"], values["mirror"] or "")
    return Names([image.name])
