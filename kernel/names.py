"""Names that both sides of the wall agree on: files in a socket folder, variables of a kernel."""

from signal import SIGUSR2

CONNECTION_FILE = "connection.json"
NOTICES_FILE = "notices.json"
PENDING_FILE = "pending.json"
EXECUTING_FILE = "executing.json"
CONTROL_SOCKET = "control.sock"

CONTROL_VARIABLE = "NBHULL_CONTROL"
"""path of the control socket; `none` where the kernelspec gives no control"""
HISTORY_FILE = "history.sqlite"
"""IPython's history, in the socket folder"""

WAKE = SIGUSR2
"""the signal that makes a checkpoint the kernel"""

MEMORY_BUDGET = 3
"""checkpoints of one kernel that are kept; the oldest goes first"""
