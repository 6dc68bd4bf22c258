"""The %container magic: the verbs of `nbhull`, about the container that this kernel runs in.

Inside a container it asks the Jupyter server that made it, through the control socket; in a kernel
that runs on the host itself it uses an Engine.
"""

from __future__ import annotations

import os
import shlex
from typing import Any

from IPython.core.magic import Magics, line_cell_magic, magics_class
from IPython.display import display

from nbhull.kernel.names import CONTROL_VARIABLE, REPLAY
from nbhull.kernel.rpc import ContainerError, call, connect, converse, decode_result, uncontained
from nbhull.magics.display import Shown
from nbhull.magics.panel import Opened
from nbhull.runtime.errors import Denied, HullError, InvalidInput, NotFound
from nbhull.runtime.verbs.definition import Verb
from nbhull.runtime.verbs.parser import execute, parse
from nbhull.runtime.verbs.results import Names, Result

ABOUT_ITSELF = ("info", "stats", "snapshot", "reset", "undo", "use", "snapshots", "diff", "replay", "auto")
"""verbs that mean the container in which they are said"""
IN_CONTAINERS = (*ABOUT_ITSELF, "ps", "images")
"""verbs that a kernel in a container may say, through its control socket"""
STREAMS = {"save": ("output",), "export": ("output",), "load": ("input",), "import": ("file",)}
"""arguments that on the command line may be standard input or output"""
TAKE_CELLS = ("run", "build")
"""verbs of %%container"""


@magics_class
class ContainerMagics(Magics):
    """Holds the one magic."""

    @line_cell_magic
    def container(self, line: str, cell: str | None = None) -> Any:
        """Look after the container that this notebook's kernel runs in.

        %container                    what it is, and what it uses
        %container snapshot [NAME]    keep its files, as they are now
          --memory                    and the variables, as they are when the cell ends
        %container reset [NAME]       put them back; without the memory, the kernel starts anew
          --volumes                   and the container's volumes, with snapshot too
        %container undo               take the last reset back
        %container use IMAGE          go on in another image, with a new kernel
        %container diff [A [B]]       what has changed
        %container snapshots          the tree of snapshots
        %container auto               when snapshots are taken unasked
        %container replay [SNAPSHOT]  run the cells since then in a fresh container, and compare
        %container panel              all of this to see and to click
        %container picker             images to choose from
        %container ps                 containers
        %container images             images and snapshots
        %container run IMAGE COMMAND  run a command in another container
        %%container run IMAGE         run the cell in another container
        %%container build -t NAME     build an image of the Containerfile in the cell
        %container help [VERB]        more about each
        """
        try:
            return shown(self.obey(line, cell))
        except HullError as error:
            raise ContainerError(error) from None

    def obey(self, line: str, cell: str | None = None) -> Result | None:
        """Do what a line says: None if it will be done when the cell has ended. Raises HullError."""
        verb, values = parse(split(line), "magic")
        if cell is not None and verb.name not in (*TAKE_CELLS, "help"):
            raise InvalidInput(f"`{verb.name}` takes no cell", f"write it on one line: %container {verb.name}")
        if not verb.needs_engine:
            return execute(verb, values, None)
        control = os.environ.get(CONTROL_VARIABLE)
        if verb.name == "run" and control != REPLAY:
            from nbhull.magics import cells

            cells.run(self.shell, values, cell, control)
            return None
        if control == REPLAY:
            return None  # cells are being run again, which is nothing to do with containers
        if control is None:
            from nbhull.magics.progress import shown_in

            with shown_in(self.shell):
                return on_host(verb, values, cell)
        if verb.name == "build":
            from nbhull.magics import building
            from nbhull.magics.progress import shown_in

            with shown_in(self.shell) as notes:
                assert notes is not None  # a kernel in a container has a notebook
                return building.build(control, values, cell, notes)
        if verb.name not in IN_CONTAINERS:
            raise Denied(
                f"`{verb.name}` is about more than the container that this kernel runs in",
                f"say it in a terminal of the machine: nbhull {line}",
            )
        params = {key: value for key, value in values.items() if value is not None}
        kernel: Any = getattr(self.shell, "kernel", None)
        of_volume = params.get("volume") is not None
        if verb.name == "snapshot" and params.pop("memory"):
            if of_volume:
                raise InvalidInput("a volume alone has no memory", "use --volumes for all as one moment")
            if not hasattr(kernel, "memory"):
                raise NotFound("the memory of this kernel cannot be kept", "it can where Python 3.11 or later runs")
            kernel.memory.ask(params, lambda result: display(Shown(decode_result(result))))
            return None
        if verb.name == "use":
            self.get_ready(control, params)
        if verb.name in ("reset", "undo", "use") and not of_volume and hasattr(kernel, "surrender"):
            params["pending"] = kernel.surrender()
        result = decode_result(self.ask(control, verb.name, params))
        is_recorded = verb.name == "snapshot" and not of_volume and getattr(kernel, "recorder", None) is not None
        if is_recorded and isinstance(result, Names):
            kernel.recorder.note(snapshot=result.names[0])
        return result

    def ask(self, control: str, name: str, params: dict[str, Any]) -> Any:
        """Ask the server; what takes long is shown to go on. Raises HullError."""
        if name != "replay":
            return call(control, name, params)
        from nbhull.magics.progress import shown_in

        with shown_in(self.shell) as notes:
            assert notes is not None  # a kernel in a container has a notebook
            with notes.step("replay", params.get("name", "the cells since the last snapshot")):
                return call(control, name, params)

    def get_ready(self, control: str, params: dict[str, Any]) -> None:
        """Have an image got, with ipykernel in it, while this kernel still runs. Raises HullError, CellInterrupted."""
        from nbhull.magics.cells import CellInterrupted, interruptible
        from nbhull.magics.progress import shown_in

        try:
            with shown_in(self.shell) as notes, interruptible():
                assert notes is not None  # a kernel in a container has a notebook
                converse(connect(control), "prepare", {"image": params["image"]}, notes.hear)
        except KeyboardInterrupt:
            raise CellInterrupted("the notebook stays where it is") from None

    def listed(self, verb: str) -> list[dict[str, Any]]:
        """What a verb without options lists, as data. Raises HullError."""
        result = self.obey(verb)
        return list(result.data()) if result is not None else []


def on_host(verb: Verb, values: dict[str, Any], cell: str | None = None) -> Result | None:
    """A verb said in a kernel that runs in no container."""
    if verb.name in ABOUT_ITSELF:
        raise uncontained()
    from nbhull.kernel.engines import shared_engine
    from nbhull.magics.cells import CellInterrupted, interruptible

    if verb.name == "build":
        from nbhull.magics.building import for_host

        values = for_host(values, cell)
    if verb.name == "exec":
        from nbhull.magics import cells

        cells.execute(values)
        return None
    for name in STREAMS.get(verb.name, ()):
        if values[name] == "-":
            raise InvalidInput("a notebook has no standard input and output for archives", f"give {verb.name} a file")
    defaults = {argument.key: argument.default for argument in verb.arguments}
    try:
        with interruptible():
            result = execute(verb, defaults | values, shared_engine())
    except KeyboardInterrupt:
        raise CellInterrupted(f"`{verb.name}` was interrupted") from None
    if result.failures:
        print(result.text(), end="\n" if result.text() else "")  # what was done all the same
        raise result.failures[0]
    return result


def split(line: str) -> list[str]:
    """The words of a line, quoted as in a shell; raises InvalidInput."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise InvalidInput(f"the line cannot be read: {str(error).lower()}", "close the quotation") from error


def shown(result: Result | None) -> Any:
    """A result as something that a notebook displays; nothing where there is nothing to see."""
    if isinstance(result, Opened):
        return result.panel
    return Shown(result) if result is not None and result.text() else None
