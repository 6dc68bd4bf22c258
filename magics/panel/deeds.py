"""What a panel does when the page asks for it: one thing at a time, in the background, but for what ends the kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from nbhull.kernel.rpc import ContainerError, call
from nbhull.magics.panel import talk
from nbhull.runtime.errors import Conflict, HullError, InvalidInput
from nbhull.runtime.verbs.results import human_size

if TYPE_CHECKING:
    from nbhull.magics.panel.widget import Panel

MOST_CHANGES = 2000
"""entries of a difference that are sent to the page"""
MOST_TEXT = 200_000
"""characters of the text in it"""

Request = dict[str, Any]
Deed = Callable[[Request], Awaitable[str]]


class Deeds:
    """The deeds of one panel."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        self.deeds: dict[str, Deed] = {
            "snapshot": self.snapshot,
            "replay": self.replay,
            "diff": self.diff,
            "tag": self.tag,
            "annotate": self.annotate,
            "save": self.save,
        }

    def receive(self, _: Panel, request: Request, buffers: Any) -> None:
        """Called by ipywidgets for each message of the page, in the thread that it came in: do what must be done there,
        and leave the rest to the control thread."""
        self.panel.loop.call_soon_threadsafe(self.heard)
        name = str(request.get("do"))
        if name == "hello":
            self.panel.loop.call_soon_threadsafe(self.welcome)
            return
        if name in ("reset", "undo"):
            self.go_back(name, request)
            return
        asyncio.run_coroutine_threadsafe(self.perform(name, request), self.panel.loop)

    def heard(self) -> None:
        """A page is there."""
        self.panel.beat.hear()

    def welcome(self) -> None:
        """Answer a page's sign of life; until then it gives no other one."""
        self.panel.send({"kind": "welcome"})

    # -- in the thread of the message --------------------------------------------------------------

    def go_back(self, name: str, request: Request) -> None:
        """Reset, or undo: this kernel ends in it, unless it fails."""
        panel = self.panel
        if panel.busy:
            self.tell_failure(busy_with(panel.busy))
            return
        ref = request.get("name")
        panel.busy = "undo" if name == "undo" else f"reset to {ref}"
        panel.say(panel.busy)
        params: dict[str, Any] = {"pending": panel.kernel.surrender()}
        if name == "reset":
            params |= {"files": request.get("files") is True}
            params |= {"name": ref} if isinstance(ref, str) else {}
        panel.remember()
        try:
            call(panel.control, name, params)
        except HullError as error:
            self.tell_failure(error)
        finally:
            panel.busy = ""

    # -- in the control thread -----------------------------------------------------------------------

    async def perform(self, name: str, request: Request) -> None:
        """Do it, and tell how it went."""
        panel = self.panel
        deed = self.deeds.get(name)
        is_quiet = name == "diff"
        try:
            if deed is None:
                raise InvalidInput(f"the panel asks for {name[:40]!r}, which this nbhull does not know")
            if panel.busy and not is_quiet:
                raise busy_with(panel.busy)
            if not is_quiet:
                panel.busy = name
            said = await deed(request)
        except HullError as error:
            self.tell_failure(error, request)
        else:
            if not is_quiet:
                panel.say(said)
                panel.send({"kind": "done", "do": name, "text": said})
        finally:
            if not is_quiet:
                panel.busy = ""
            panel.beat.wake.set()

    def tell_failure(self, error: HullError, request: Request | None = None) -> None:
        """Tell the page why something was not done."""
        text = str(ContainerError(error))
        self.panel.say(text, failed=True)
        self.panel.send({"kind": "failed", "do": (request or {}).get("do"), "text": text})

    async def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Ask the server."""
        answer: dict[str, Any] = await talk.ask(
            self.panel.control, method, {key: value for key, value in params.items() if value is not None}
        )
        return answer

    async def snapshot(self, request: Request) -> str:
        """Keep the files, and with `memory` the kernel's memory as it is when no cell runs."""
        params = {key: request[key] for key in ("name", "note", "pin") if request.get(key)}
        if request.get("memory"):
            kernel = self.panel.kernel
            taking = asyncio.run_coroutine_threadsafe(
                kernel.memory.take_between(params), kernel.io_loop.asyncio_loop
            )
            answer = await asyncio.wrap_future(taking)
            return f"snapshot {answer['names'][0]}, with the memory"
        answer = await self.ask("snapshot", params)
        name = answer["names"][0]
        recorder = self.panel.kernel.recorder
        if recorder is not None:
            recorder.note(snapshot=name)
        return "; ".join([f"snapshot {name}", *answer.get("notices", ())])

    async def replay(self, request: Request) -> str:
        """Run the cells since a snapshot again."""
        answer = await self.ask("replay", {"name": request.get("name")})
        self.panel.send({"kind": "report", "text": report_text(answer)})
        return "replay done"

    async def tag(self, request: Request) -> str:
        """One more name for a snapshot."""
        answer = await self.ask("tag", {"image": request.get("image"), "name": request.get("name")})
        return f"tagged {answer['names'][0]}"

    async def annotate(self, request: Request) -> str:
        """A note, or a pin."""
        params = {key: request.get(key) for key in ("image", "note", "pin")}
        name = (await self.ask("annotate", params))["names"][0]
        if request.get("pin") is not None:
            return f"{'pinned' if request['pin'] else 'unpinned'} {name}"
        return f"noted on {name}"

    async def save(self, request: Request) -> str:
        """An archive in the notebook's folder."""
        answer = await self.ask("save", {"image": request.get("image"), "file": request.get("file")})
        return f"saved {request.get('file')}, {human_size(answer['size'])}"

    async def diff(self, request: Request) -> str:
        """What differs; `number` tells the page which of its questions this answers."""
        params = {"a": request.get("a"), "b": request.get("b"), "text": True}
        answer = await self.ask("diff", params)
        self.panel.send({"kind": "diff", "number": request.get("number"), **difference(answer)})
        return ""


def busy_with(what: str) -> Conflict:
    """The error for asking for two things at once."""
    return Conflict(f"{what} is under way", "wait until it is done")


def difference(answer: dict[str, Any]) -> dict[str, Any]:
    """A difference as the page draws it, cut where it is too long to look at."""
    items = answer["items"]
    packages = [item for item in items if "package" in item]
    changes = [item for item in items if "package" not in item]
    texts: dict[str, str] = {}
    length = 0
    for text in answer["texts"]:
        length += len(text)
        if length > MOST_TEXT:
            break
        texts[path_of(text)] = text
    return {
        "packages": packages,
        "changes": [
            {
                "path": change["path"],
                "change": change["change"],
                "kind": (change["new"] or change["old"])["kind"],
                "sizes": [side and side["size"] for side in (change["old"], change["new"])],
            }
            for change in changes[:MOST_CHANGES]
        ],
        "omitted": max(0, len(changes) - MOST_CHANGES),
        "texts": texts,
    }


def path_of(text: str) -> str:
    """The file that a unified difference is about (`diff -u`'s head)."""
    old, new = (line[4:] for line in text.split("\n", 2)[:2])
    return old if new == "/dev/null" else new


def report_text(answer: dict[str, Any]) -> str:
    """A replay's result as text."""
    return str(answer.get("text") or "\n".join(" ".join(row) for row in answer.get("rows", ())))
