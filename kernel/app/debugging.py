"""ipykernel's debugger, loaded when it is first asked for: a quarter of a kernel's start is spent on it otherwise.

ipykernel imports `ipykernel.debugger` where it uses it, and that module imports debugpy, which executes `uname` and
much else. A stand-in for the module answers the one question that every kernel asks, whether a debugger can be had.
"""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

NAME = "ipykernel.debugger"


class UnloadedModule(ModuleType):
    """A module that executes its code when something of it is wanted that it does not have yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        load(self)
        return getattr(self, name)


class LateDebugger:
    """Takes the place of ipykernel's `Debugger`, with any arguments, until a client speaks to it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._arguments = args, kwargs
        self._lock = threading.Lock()
        self.made: Any = None
        """ipykernel's debugger; None if nothing has asked for it"""
        self._waiting: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self.finish: Callable[[Any], None] | None = None
        """called with ipykernel's debugger when it has been made"""

    @property
    def is_started(self) -> bool:
        """Whether a client debugs."""
        return self.made is not None and bool(self.made.is_started)

    async def handle_stopped_event(self) -> None:
        """Called in a loop from the kernel's start on, in the thread of the control channel."""
        with self._lock:
            if self.made is None:
                self._waiting = asyncio.get_running_loop(), asyncio.Event()
        if self._waiting is not None:
            await self._waiting[1].wait()
            self._waiting = None
        await self.made.handle_stopped_event()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._make(), name)

    def _make(self) -> Any:
        with self._lock:
            if self.made is None:
                args, kwargs = self._arguments
                module: Any = sys.modules[NAME]
                debugger = module.Debugger(*args, **kwargs)
                if self.finish is not None:
                    self.finish(debugger)
                self.made = debugger
                if self._waiting is not None:
                    loop, event = self._waiting
                    loop.call_soon_threadsafe(event.set)
        return self.made


def defer() -> None:
    """Have the debugger loaded late. To be called before the kernel is made; does nothing where none can be had."""
    if NAME in sys.modules or importlib.util.find_spec("debugpy") is None:
        return
    spec = importlib.util.find_spec(NAME)
    if spec is None or spec.loader is None:
        return
    module: Any = importlib.util.module_from_spec(spec)
    module.__class__ = UnloadedModule
    module._is_debugpy_available = True
    module.Debugger = LateDebugger
    sys.modules[NAME] = module
    package, _, name = NAME.rpartition(".")
    setattr(sys.modules[package], name, module)  # as an import does


def settle() -> None:
    """The kernel has its debugger; whoever else wants the class gets ipykernel's."""
    module = sys.modules.get(NAME)
    if isinstance(module, UnloadedModule):
        module.__dict__.pop("Debugger", None)


def load(module: ModuleType) -> None:
    """Execute a module's own code in the place of the stand-in."""
    for name in ("Debugger", "_is_debugpy_available"):
        module.__dict__.pop(name, None)
    module.__class__ = ModuleType
    spec = module.__spec__
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module)
