"""The same content gives the same digest: written down here, so that every run, user and machine is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbhull.runtime.engine import Engine
from support.builds import built

TEXT = """\
FROM scratch
COPY --chown=5:6 a /
COPY --chmod=4755 a/program /bin/
COPY b /
WORKDIR /work
COPY <<EOF /text
of the Containerfile
EOF
ENV A=b
"""
LAYERS = [
    "sha256:ed2610e46d0d07d746abb556d40541801546a39b11ed5893a5da5f137323c8f2",
    "sha256:12e56245d6a2954c038c1698cbc7fac6b4a68a76fe19cec2c6ea5481ce5ed17a",
    "sha256:4b0e81d0c4085fd62a769c6a43a10fa2f8d5948738538a5fbaadea5cf4c9813b",
    "sha256:235237e467065e18486c58c7f517fb3188ea305a70ad137f333d06156f118126",
    "sha256:d10e7b0e6d303022167096817c2ac7c93da5452144ab32fbcb73c6c5e9ce6372",
]


@pytest.mark.nosubuid
def test_the_digests_are_those_of_every_machine(shared_engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "context"
    (folder / "a/inner").mkdir(parents=True)
    for path, mode in (("a/program", 0o755), ("a/inner/data", 0o600), ("a/ü", 0o644)):
        (folder / path).write_text(path)
        (folder / path).chmod(mode)
    (folder / "a").chmod(0o755)
    (folder / "a/inner").chmod(0o750)
    (folder / "b").mkdir()
    (folder / "b/link").symlink_to("program")  # whose owner is root's: without subordinate ids it can be no other
    (folder / "Containerfile").write_text(TEXT)
    image = built(shared_engine, folder, epoch=1_700_000_000).image
    _, _, layers = shared_engine.catalog.completed(shared_engine.catalog.find(image.id))
    assert [layer.diff_id for layer in layers] == LAYERS
