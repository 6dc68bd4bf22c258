"""Processes that are not the container's root, which takes more ids than one."""

from __future__ import annotations

import os
from collections.abc import Callable

from nbhull.runtime.model import ProcessSpec
from support.boxes import Box


def test_the_processes_of_an_ordinary_user_come_along(make_box: Callable[..., Box]) -> None:
    box = make_box()
    box.out("mkdir -p /srv/work && chown 1000:1000 /srv/work")
    script = "umask 077; cd /srv/work; exec 3> private; read line; echo on >&3; echo here > rel"
    spec = ProcessSpec(("sh", "-c", script), user="1000:1000")
    read_end, write_end = os.pipe()
    with box.engine.spawn(box.id, spec, (read_end,)) as process:
        os.close(read_end)
        while box.run("test -e /srv/work/private").returncode:
            pass
        image = box.engine.snapshot(box.id)
        assert (image.road, image.reason) == ("moved", "")
        os.write(write_end, b"\n")
        os.close(write_end)
        assert process.wait(10) == 0
    assert box.out("cat /srv/work/private /srv/work/rel; stat -c %a:%u /srv/work/private") == "on\nhere\n600:1000"
