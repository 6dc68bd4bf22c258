"""Every notebook kernel in a container of its own: no Docker, no daemon, no root needed."""

__version__ = "0.1.0"
