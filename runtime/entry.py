"""The program `nbhull`, as src/scripts/nbhull starts it: without Python's site module, until something needs it."""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import NoReturn


class SiteOnDemand:
    """The last of the finders (sys.meta_path): what nobody has found may be found once site has run."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if path is not None or SiteOnDemand not in sys.meta_path:
            return None
        use_site()
        for finder in sys.meta_path:
            if (spec := finder.find_spec(name, path, target)) is not None:
                return spec
        return None


def use_site() -> None:
    """Make up for Python's option -S: packages of the environment, sys.prefix of a virtual one."""
    if SiteOnDemand in sys.meta_path:
        sys.meta_path.remove(SiteOnDemand)
        import site

        site.main()


def main() -> NoReturn:
    """Run the command line; the process ends here, without what the interpreter does at its own end if it may."""
    sys.meta_path.append(SiteOnDemand)
    sys.argv[0] = "nbhull"
    gc.set_threshold(50_000)  # a start makes no garbage worth three looks through all that it has made
    from nbhull.runtime import bundle

    has_bundle = bundle.use()
    from nbhull.runtime.cli import main

    status = main()
    if not has_bundle:
        bundle.write()
    if SiteOnDemand in sys.meta_path and "threading" not in sys.modules:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except BrokenPipeError:
            status = 128 + 13
        os._exit(status)  # nothing has registered anything to be done at exit
    sys.exit(status)
