"""A subtree of cgroup v2 from systemd, which owns the tree: a scope with Delegate=yes, asked for over D-Bus.

The user's own systemd is asked, or the machine's by root (systemd.scope(5), org.freedesktop.systemd1(5),
systemd's CGROUP_DELEGATION.md). This is the one module of the runtime that uses more than the standard
library, and it is imported when a limit is first wanted.
"""

from __future__ import annotations

import os

from nbhull.runtime.errors import HostUnable
from nbhull.runtime.linux.process import write_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME, PATH, MANAGER = "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"
TIMEOUT = 30.0
"""seconds for each answer of systemd's"""
LEAF = "nbhull"
"""where the scope's own processes go, since a group that is divided may hold none"""


def socket_path() -> str:
    """Where the bus listens: the machine's for root, else the user's."""
    if os.getuid() == 0:
        return "/run/dbus/system_bus_socket"
    address = os.environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if address.startswith("unix:path="):
        return address.removeprefix("unix:path=").partition(",")[0]
    return f"{os.environ.get('XDG_RUNTIME_DIR') or f'/run/user/{os.getuid()}'}/bus"


def why_unable() -> tuple[str, str]:
    """Why systemd cannot be asked, as `Hierarchies.cause` and `reason`; empty if it can."""
    if not os.path.exists(socket_path()):
        return "bus", f"systemd cannot be asked for a cgroup, since no D-Bus listens at {socket_path()}"
    return "", ""


def claim(pids: list[int]) -> str:
    """Move processes of ours into a scope of their own; gives its folder. Raises HostUnable with systemd's words."""
    try:
        from jeepney import DBusAddress, MatchRule, new_method_call
        from jeepney.bus_messages import message_bus
        from jeepney.io.blocking import open_dbus_connection
        from jeepney.low_level import MessageType
    except ImportError as error:
        raise HostUnable(f"systemd cannot be asked for a cgroup: {error}", "pip install jeepney") from error
    unit = f"nbhull-{os.getpid()}-{os.urandom(4).hex()}.scope"
    manager = DBusAddress(PATH, NAME, MANAGER)
    properties: list[tuple[str, tuple[str, Any]]] = [
        ("Description", ("s", "nbhull containers")),
        ("PIDs", ("au", pids)),
        ("Delegate", ("b", True)),
        ("CollectMode", ("s", "inactive-or-failed")),
    ]
    # without a sender, since messages come from the bus's own name for systemd
    rule = MatchRule(type="signal", interface=MANAGER, member="JobRemoved", path=PATH)
    try:
        with open_dbus_connection(f"unix:path={socket_path()}") as bus:
            bus.send_and_get_reply(new_method_call(manager, "Subscribe"), timeout=TIMEOUT)
            bus.send_and_get_reply(message_bus.AddMatch(rule), timeout=TIMEOUT)
            with bus.filter(rule) as removed:
                call = new_method_call(
                    manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", (unit, "fail", properties, [])
                )
                reply = bus.send_and_get_reply(call, timeout=TIMEOUT)
                if reply.header.message_type == MessageType.error:
                    raise HostUnable(f"systemd gave no cgroup: {' '.join(map(str, reply.body))}", "run `nbhull doctor`")
                job = reply.body[0]
                while True:
                    _, ended, _, result = bus.recv_until_filtered(removed, timeout=TIMEOUT).body
                    if ended == job:
                        break
    except TimeoutError as error:
        raise HostUnable(f"systemd gave no cgroup within {TIMEOUT:.0f} s", "journalctl -e") from error
    except OSError as error:
        raise HostUnable(
            f"systemd cannot be asked for a cgroup: {error}", "run `nbhull doctor`"
        ) from error
    if result != "done":
        raise HostUnable(f"systemd could not start the scope {unit}: {result}", f"journalctl --user -u {unit}")
    return settle(pids)


def settle(pids: list[int]) -> str:
    """In the new scope: leave its top, so that it can be divided; gives its folder."""
    from nbhull.runtime.cgroups.hierarchies import own_folder, read_mounts

    folder = own_folder(read_mounts()[1])
    os.mkdir(f"{folder}/{LEAF}")
    for pid in pids:
        write_file(f"{folder}/{LEAF}/cgroup.procs", str(pid))
    return folder
