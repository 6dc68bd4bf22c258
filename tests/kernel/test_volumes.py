"""A notebook and its volumes: it may keep and put back those that it has, and no others."""

from __future__ import annotations

from nbhull.runtime.model import ContainerSpec, Mount
from support.boxes import Box
from support.jupyter import Place, Start, execute, install_spec, value


def test_a_notebook_keeps_and_puts_back_its_own_volumes(start: Start, place: Place) -> None:
    install_spec("with-volumes", place.prefix, mounts=["nb-data:/data", "nb-fixed:/fixed:ro"])
    other = Box(place.engine, ContainerSpec(mounts=(Mount("nb-other", "/o"), Mount("nb-fixed", "/f"))))
    for volume in ("nb-other", "nb-fixed"):
        place.engine.volumes.snapshot(volume, f"{volume}-first")
    _, client = start("with-volumes")
    execute(client, "v = 1; open('/data/f', 'w').write('1'); open('/root/f', 'w').write('1')")
    taken = execute(client, "%container snapshot --volumes nb-both").data[0]["text/plain"]
    assert taken == "nb-both"
    assert execute(client, "%container snapshot --volume nb-data nb-alone").data[0]["text/plain"] == "nb-alone"
    execute(client, "for p in ('/data', '/root'): open(p + '/f', 'w').write('2')")
    assert "~   /f" in execute(client, "%container diff nb-data").data[0]["text/plain"]
    assert execute(client, "%container reset --volume nb-data nb-alone").status == "ok"
    assert value(client, "v, open('/data/f').read(), open('/root/f').read()") == "1 1 2"
    assert execute(client, "%container undo --volume nb-data").status == "ok"
    assert value(client, "v, open('/data/f').read()") == "1 2"
    execute(client, "%container reset --volumes nb-both")
    assert value(client, "'v' in dir(), open('/data/f').read(), open('/root/f').read()") == "False 1 1"
    for line, told in (
        ("reset --volume nb-other nb-other-first", "no volume 'nb-other'"),
        ("snapshot --volume nb-other", "no volume 'nb-other'"),
        ("snapshots --volume nb-other", "no volume 'nb-other'"),
        ("diff nb-other", "no snapshot 'nb-other'"),
        ("reset --volume nb-data nb-other-first", "no snapshot 'nb-other-first'"),
        ("reset --volume nb-fixed nb-fixed-first", "may only read"),
        ("undo --volume nb-fixed", "may only read"),
        ("snapshot --volume nb-data --memory", "no memory"),
    ):
        outcome = execute(client, f"%container {line}")
        assert outcome.status == "error", line
        assert told in outcome.errors, line
    place.engine.remove(other.id, force=True)
