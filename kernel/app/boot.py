"""Starts ipykernel in a container. Run as a script, by any Python: its syntax stays old."""

import gc
import sys

LIBRARY = "/run/nbhull/lib"
ADDED = "/opt/nbhull/lib"
"""packages that nbhull added to an image without ipykernel; they come after its own"""


def main():  # type: ignore[no-untyped-def]
    # as ipykernel_launcher does: the kernel puts the working folder back by itself
    if sys.path and sys.path[0] == LIBRARY + "/nbhull/kernel/app":
        del sys.path[0]
    sys.path.append(ADDED)
    if sys.version_info < (3, 11):  # noqa: UP036 (images bring their own Python)
        from ipykernel import kernelapp as app
    else:
        # Nothing that is imported and made from here on is garbage; looking for some takes a tenth of the start.
        # The application puts it on again before it takes requests.
        gc.disable()
        import ipykernel  # noqa: F401  (before nbhull's, so that its absence is told as such)

        # nbhull speaks with the server that made the container, so it must be that server's
        # version; nothing else of the library may come before the user's own packages
        sys.path.insert(0, LIBRARY)
        try:
            from nbhull.kernel.app import application as app
        finally:
            sys.path.remove(LIBRARY)
            sys.path.append(LIBRARY)
    app.launch_new_instance()


if __name__ == "__main__":
    main()  # type: ignore[no-untyped-call]
