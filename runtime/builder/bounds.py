"""A build asked for by somebody who has no rights of their own on this machine: a kernel in a container."""

from __future__ import annotations

from nbhull.runtime.confinement import USUAL, Confinement
from nbhull.runtime.limits import Limits
from nbhull.runtime.record import Record


class Bounds(Record):
    """What such a build may do. Its RUN steps come one after the other, so that `limits` hold for all of it; it takes
    nothing from paths of this machine, and reads files of its context alone."""

    scope: str
    """keeps apart what its RUN steps did, and their cache mounts: what they leave there is found by this scope alone"""
    limits: Limits
    confinement: Confinement = USUAL
    """of RUN steps"""
    may_download: bool = False
    """whether ADD may take a URL, which this process and not the container gets"""
