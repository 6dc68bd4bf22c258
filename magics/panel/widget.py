"""The panel as a widget: what the page shows of it, what it asks for, and how the next kernel takes it over.

All that the page draws is in a few traits, so that a page that is opened later has it from the start; what may be large
or private (differences of files) and what comes every few seconds goes as messages, which are never saved.
"""

# mypy: disallow-untyped-calls=False, disallow-any-unimported=False

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anywidget
import comm
import traitlets
from ipykernel.comm.comm import BaseComm
from ipykernel.kernelbase import Kernel
from ipywidgets import Layout

from nbhull.kernel.names import CONTROL_VARIABLE
from nbhull.magics.panel import memory_of
from nbhull.magics.panel.beat import Beat
from nbhull.magics.panel.deeds import Deeds

TARGET = "jupyter.widget"
"""what comms of widgets are opened as"""
VERSION = {"version": "2.1.0"}
"""of the widgets' protocol"""
FRONT = Path(__file__).parent / "front"
SCRIPTS = ("words.js", "tree.js", "charts.js", "diff.js", "line.js", "question.js", "panel.js")
"""what runs in the page, in this order, as one ECMAScript module"""
STYLE = "panel.css"
ENTRIES = 60
"""lines of the log that are kept"""

the_one: Panel | None = None
"""the panel of this kernel"""


class Panel(anywidget.AnyWidget):
    """A kernel's container: its snapshots, what it uses, and what can be done with it."""

    _esm = "\n".join((FRONT / name).read_text() for name in SCRIPTS)
    _css = (FRONT / STYLE).read_text()

    me = traitlets.Unicode().tag(sync=True)
    """the id under which the page knows this"""
    about = traitlets.Dict().tag(sync=True)
    """the container's name, image and limits"""
    tree: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    """snapshots, each behind the one that it hangs below"""
    log: traitlets.List[dict[str, Any]] = traitlets.List().tag(sync=True)
    """what was done, the oldest first: `time`, `text`, and `failed`"""
    busy = traitlets.Unicode().tag(sync=True)
    """what is under way; empty if nothing is"""
    life = traitlets.Unicode().tag(sync=True)
    """another one in each kernel process: the page sees by it that a reset is done"""
    history = traitlets.Any().tag(sync=True, to_json=lambda value, _: list(value))
    """the latest samples, as the page's charts begin with them"""

    comm: Any

    def __init__(self, kernel: Any, **kwargs: Any) -> None:
        """`kernel`: nbhull's, in which this runs."""
        self.kernel = kernel
        self.control = os.environ[CONTROL_VARIABLE]
        self.stamp = ""
        """of the tree that the page has"""
        self.is_closed = False
        self.beat = Beat(self)
        self.deeds = Deeds(self)
        self.running: Future[None] | None = None
        identity = kwargs["comm"].comm_id if "comm" in kwargs else uuid.uuid4().hex
        super().__init__(me=identity, life=uuid.uuid4().hex, history=self.beat.samples, **kwargs)
        self.on_msg(self.deeds.receive)
        self.start()

    def open(self) -> None:
        """Called by ipywidgets to make it known to the page."""
        if self.comm is None:
            state = {"state": self.get_state(), "buffer_paths": []}
            self.comm = PanelComm(target_name=TARGET, comm_id=self.me, data=state, metadata=VERSION)

    def start(self) -> None:
        """Begin to beat, in the kernel's control thread."""
        self.running = asyncio.run_coroutine_threadsafe(self.beat.run(), self.loop)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the kernel's control thread, which waits for no cell."""
        loop: asyncio.AbstractEventLoop = self.kernel.control_thread.io_loop.asyncio_loop
        return loop

    def take(self, found: dict[str, Any]) -> None:
        """What the server has told (`kernel.panel.look`)."""
        if "tree" in found:
            self.about, self.tree = found["about"], found["tree"]
        self.stamp = found["stamp"]

    def say(self, text: str, failed: bool = False) -> None:
        """Write a line into the log."""
        self.log = [*self.log, {"time": round(time.time(), 1), "text": text, "failed": failed}][-ENTRIES:]

    def hurry(self) -> None:
        """Have the next beat come at once; to be called in any thread."""
        self.loop.call_soon_threadsafe(self.beat.wake.set)

    def close(self) -> None:
        """End it; its views leave the page."""
        global the_one
        if the_one is self:
            the_one = None
            forget(self.control)
        self.is_closed = True
        if self.comm is not None:
            self.hurry()
        super().close()

    def remember(self) -> None:
        """Leave for the next kernel what it needs to take this over."""
        path = memory_of(self.control)
        known = {"model": self.model_id, "layout": self.layout.model_id, "log": self.log}
        with open(f"{path}.new", "w") as file:
            json.dump(known, file)
        os.replace(f"{path}.new", path)

    def revive(self) -> None:
        """In a copy of the process that kept its memory: go on, in new threads."""
        self.beat = Beat(self)
        self.stamp, self.busy = "", ""
        self.history = self.beat.samples
        self.life = uuid.uuid4().hex
        self.send_state(("about", "tree", "log", "busy"))
        self.start()


class PanelComm(BaseComm):
    """A comm whose messages are handled where the page wants them to be: beside a running cell, if it can have that.
    ipykernel would have them follow the thread that sent the last message to the page."""

    def _reply_subshell_for(self, data: Any, default: Any) -> Any:
        return default


def current(kernel: Any) -> Panel:
    """The kernel's panel; a new one if there is none, or no page has been heard of for long."""
    global the_one
    if the_one is not None and time.monotonic() - the_one.beat.heard > 60:
        the_one.close()
    if the_one is None:
        the_one = Panel(kernel)
        the_one.say("panel opened")
        the_one.remember()
    return the_one


def take_over(kernel: Any) -> None:
    """Be the panel that stands in the page, and tell it so."""
    global the_one
    known = remembered(os.environ[CONTROL_VARIABLE])
    if known is None:
        return
    if the_one is not None and the_one.model_id == known["model"]:
        the_one.revive()
        return
    if the_one is not None:
        the_one.close()
    layout = Layout(comm=reattached(known["layout"]))
    the_one = Panel(kernel, comm=reattached(known["model"]), layout=layout)
    the_one.log = known["log"]
    the_one.say("the kernel is new")
    the_one.remember()
    the_one.send_state(("about", "tree", "log", "busy", "life"))


def reattached(identity: str) -> BaseComm:
    """A comm that the page has already, opened by a kernel before this one."""
    found = PanelComm(target_name=TARGET, comm_id=identity, primary=False)
    found.kernel = Kernel.instance()
    comm.get_comm_manager().register_comm(found)
    return found


def remembered(control: str) -> dict[str, Any] | None:
    """What `Panel.remember` has left; None if there is nothing."""
    try:
        with open(memory_of(control)) as file:
            known: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        return None
    return known


def forget(control: str) -> None:
    """Leave nothing for the next kernel."""
    try:
        os.unlink(memory_of(control))
    except FileNotFoundError:
        pass  # the container is going away
