"""Completion and `?` of %container in a kernel that runs in a container."""

from __future__ import annotations

from jupyter_client.blocking.client import BlockingKernelClient

from support.jupyter import Start, execute


def completed(client: BlockingKernelClient, line: str) -> list[str]:
    """What the kernel offers at the end of a line."""
    reply = client.complete(line, reply=True, timeout=60)
    return list(reply["content"]["matches"])


def test_in_a_container(start: Start) -> None:
    _, client = start()
    execute(client, "%container snapshot before-lunch")
    assert {"snapshot", "snapshots"} >= set(completed(client, "%container snap")) >= {"snapshot"}
    assert "before-lunch" in completed(client, "%container reset be")
    assert "host" in completed(client, "%container reset ")
    assert completed(client, "%container help res")[0] == "reset"
    assert "--help" in completed(client, "%container snapshot --")
    assert "images" not in completed(client, "%container no-such-verb ")
    shown = execute(client, "%container reset?")
    assert shown.status == "ok"
    assert "usage: %container reset" in str(shown.data)
