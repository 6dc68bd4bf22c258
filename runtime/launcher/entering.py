"""How the launcher's fork becomes the holder: by entering a user namespace of its own."""

from __future__ import annotations

import os

from nbhull.runtime import bundle, usermap
from nbhull.runtime.errors import HostUnable, SyscallFailed
from nbhull.runtime.launcher import wire
from nbhull.runtime.launcher.child import last_act
from nbhull.runtime.launcher.holder import LATER, Holder
from nbhull.runtime.launcher.overlay import Stage
from nbhull.runtime.lean import Socket, signal
from nbhull.runtime.linux import mount as linux_mount
from nbhull.runtime.linux import process as linux


def become_holder(launcher: Socket, stage: str, user_map: usermap.UserMap, store: str) -> None:
    """In the fork: enter a new user namespace and become its root."""
    with last_act(launcher, "the holder's start"):
        bundle.hold(*LATER)
        linux.set_name("nbhull-holder")
        linux.close_all_but([0, 1, 2, launcher.fileno()])
        linux.prctl("PR_SET_PDEATHSIG", linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        linux.prctl("PR_SET_CHILD_SUBREAPER", linux.PR_SET_CHILD_SUBREAPER, 1)
        try:
            linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
        except SyscallFailed as error:
            from nbhull.runtime.doctor.mending import explain

            raise HostUnable(
                f"this machine does not allow user namespaces: {os.strerror(error.errno)}",
                explain(error.call, error.errno, error.subject) or "run `nbhull doctor` for what works here",
            ) from error
        linux_mount.set_propagation(linux_mount.MS_REC | linux_mount.MS_SLAVE)
        folder = os.open(stage, os.O_PATH | os.O_CLOEXEC)
        wire.send_answer(launcher, "unshared")
        received = wire.receive_request(launcher)
        if received is None:
            os._exit(1)
        _, descriptors = received
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        if descriptors:
            os.setgroups([])  # root's; an ordinary user's groups still open the user's own files
        # Changing ids made it undumpable, and then nobody may write the maps of its children.
        linux.prctl("PR_SET_DUMPABLE", linux.PR_SET_DUMPABLE, 1)
        linux.prctl("PR_SET_PDEATHSIG", linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        holder = Holder(launcher, Stage(folder, descriptors[0] if descriptors else store), user_map)
        wire.send_answer(launcher, "up")
        holder.run()
