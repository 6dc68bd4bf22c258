"""Names that both sides of the wall agree on: files in a socket folder, variables of a kernel."""

from signal import SIGUSR2
from typing import Final

CONNECTION_FILE = "connection.json"
NOTICES_FILE = "notices.json"
PENDING_FILE = "pending.json"
EXECUTING_FILE = "executing.json"
RECORD_FILE = "cells.jsonl"
"""the cells that the kernel has run (`kernel.app.recording`)"""
PANEL_FILE = "panel.json"
"""the ids under which the page knows the notebook's panel, for the next kernel to take it over"""
EVERY_CELL_FILE = "every-cell"
"""there while a snapshot is to be taken after each cell"""
CONTROL_SOCKET = "control.sock"

CONTROL_VARIABLE = "NBHULL_CONTROL"
"""path of the control socket; `none` where the kernelspec gives no control, `replay` where cells are run again"""
REPLAY: Final = "replay"
HISTORY_FILE = "history.sqlite"
"""IPython's history, in the socket folder"""

WAKE = SIGUSR2
"""the signal that makes a checkpoint the kernel"""

MEMORY_BUDGET = 3
"""checkpoints of one kernel that are kept; the oldest goes first"""
