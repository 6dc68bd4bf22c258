"""Quotas of containers' own files."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nbhull.runtime import projects
from nbhull.runtime.limits import Limits
from nbhull.runtime.model import ProcessSpec
from nbhull.runtime.verbs.results import container_fields
from support.boxes import Box
from support.waiting import eventually

pytestmark = pytest.mark.nosubuid

FILL = """
import os, time
with open("/root/large", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(1 << 20))
            time.sleep(0.02)
    except OSError as error:
        print(error.strerror, flush=True)
print(os.path.getsize("/root/large") < 400 << 20, flush=True)
os.unlink("/root/large")
while True:
    try:
        with open("/root/small", "wb", buffering=0) as file:
            file.write(b"x")
        break
    except OSError:
        time.sleep(0.05)
print("again", flush=True)
"""


def test_what_fills_its_disk_is_refused_until_it_has_deleted(make_box: Callable[..., Box]) -> None:
    box = make_box(limits=Limits(disk=20 << 20))
    said = box.out('python3 -c "$FILL"', env={"PATH": "/usr/bin", "FILL": FILL})
    assert said == "File too large\nTrue\nagain"
    assert box.engine.events(box.id)["disk_hits"] == 1
    assert box.engine.usage(box.id).disk_limit == 20 << 20


def test_what_goes_on_all_the_same_is_killed(make_box: Callable[..., Box]) -> None:
    box = make_box(limits=Limits(inodes=200))
    process = box.engine.spawn(box.id, ProcessSpec(("sh", "-c", "i=0; while :; do i=$((i+1)); : > /root/$i; done")))
    with process:
        assert process.wait(60) == -9
    eventually(lambda: box.engine.container(box.id).state == "stopped", "the container has ended")
    assert box.engine.events(box.id)["disk_hits"] == 1
    # it starts again, and deletes
    box.engine.start(box.id)
    box.out("rm -f /root/[0-9]*")
    assert box.out("echo fine") == "fine"


def test_within_its_quota_a_container_notices_nothing(make_box: Callable[..., Box]) -> None:
    box = make_box(limits=Limits(disk=100 << 20, inodes=10_000))
    box.out("head -c 10000000 /dev/zero > /root/file")
    eventually(lambda: (box.engine.usage(box.id).disk or 0) >= 10_000_000, "it is measured")
    assert box.engine.events(box.id) == {}
    # how it is kept is said
    told = container_fields(box.container, box.engine.usage(box.id), 0.0)
    assert dict(told.fields)["disk quota"].endswith(" of 100 MiB, measured")
    assert projects.refusal(box.engine.store.home)
