"""The one exception that leaves the provisioner, in the form that Jupyter's front ends show whole."""

from __future__ import annotations

from tornado.web import HTTPError

from nbhull.runtime.errors import HullError


class KernelFailed(HTTPError, RuntimeError):
    """A kernel could not be started, restarted or spoken to; says why and how to mend it.

    jupyter_server shows the message of an HTTPError only, and "Unhandled error" for any other.
    """

    def __init__(self, error: HullError) -> None:
        self.error = error
        self.text = " ".join(one_line(error).split())
        super().__init__(500, self.text)

    def __str__(self) -> str:
        return self.text


def one_line(error: HullError) -> str:
    """An error as one line for people: `message. hint`."""
    return f"{error.message}. {error.hint}" if error.hint else error.message
