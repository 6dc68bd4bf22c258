"""Snapshots and resets at random while files of every kind are written in every way."""

from __future__ import annotations

import ast
import os
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nbhull.runtime.model import Mount, ProcessSpec
from support import writing
from support.boxes import Box

SOURCE = Path(writing.__file__).read_text()
SCAN = SOURCE.partition('if __name__ == "__main__":')[0] + """
print({base: scan(base) for base in sys.argv[1:]})
"""
State = dict[str, list[Any]]


class Writing:
    """One writer in the container."""

    def __init__(self, box: Box, shared: Path, seed: int) -> None:
        self.base, self.seed = f"/srv/w{seed}", seed
        self.progress = shared / f"progress{seed}"
        self.progress.write_bytes(bytes(8))
        self.progress.chmod(0o666)
        read_end, self.stop = os.pipe()
        self.output, write_end = os.pipe()
        argv = ("python3", "-c", SOURCE, self.base, str(seed), f"/shared/{self.progress.name}")
        self.process = box.engine.spawn(box.id, ProcessSpec(argv), (read_end, write_end, write_end))
        os.close(read_end)
        os.close(write_end)
        while self.count() < 50:
            assert self.process.poll() is None, os.read(self.output, 1 << 16)

    def count(self) -> int:
        """How many changes it has made, but for one that it may just have made."""
        return int(struct.unpack("=Q", self.progress.read_bytes())[0])

    def finish(self) -> str:
        """Have it end: what it says."""
        os.close(self.stop)
        with os.fdopen(self.output) as output:
            text = output.read().strip()
        self.process.wait(30)
        self.process.close()
        return text


class Range:
    """The states that a writer's files may be in: after `first` to `last` changes."""

    def __init__(self, seed: int, first: int, last: int) -> None:
        self.seed, self.first, self.last = seed, first, last

    def difference(self, state: State) -> list[str]:
        """Where a state differs from the one of these that it resembles most."""
        model, differences = writing.Model(self.seed), []
        while model.count < self.last:
            model.step()
            if model.count >= self.first:
                differences.append(difference(state, model.entries))
                if not differences[-1]:
                    break
        return min(differences, key=len)


def difference(one: State, other: State) -> list[str]:
    """The paths that differ."""
    return [path for path in {*one, *other} if one.get(path) != other.get(path)]


def look(box: Box, bases: list[str]) -> dict[str, State]:
    """What a container has in those folders."""
    done = box.run(f"python3 - {' '.join(bases)} <<'END'\n{SCAN}\nEND")
    assert done.returncode == 0, done.stderr
    found: dict[str, State] = ast.literal_eval(done.stdout)
    return found


def test_torture(make_box: Callable[..., Box], tmp_path: Path, pytestconfig: pytest.Config) -> None:
    seconds = pytestconfig.getoption("--torture")
    seed = random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    tmp_path.chmod(0o755)
    box = make_box(mounts=(Mount(str(tmp_path), "/shared"),))
    deadline = time.monotonic() + seconds
    taken: list[tuple[str, dict[str, Range | State]]] = []
    past: dict[str, Range | State] = {}
    next_seed = seed
    while time.monotonic() < deadline:
        writers = [Writing(box, tmp_path, next_seed + number) for number in range(3)]
        next_seed += 3
        for _ in range(chance.randrange(2, 7)):
            time.sleep(chance.random() * 0.05)  # for a moment that nobody has chosen, not for an event
            before = [writer.count() for writer in writers]
            image = box.engine.snapshot(box.id)
            after = [writer.count() for writer in writers]
            assert (image.road, image.reason) == ("moved", "")
            held = {w.base: Range(w.seed, b, a + 1) for w, b, a in zip(writers, before, after, strict=True)}
            taken.append((image.id, {**past, **held}))
        assert [writer.finish() for writer in writers] == ["whole"] * 3
        if chance.random() < 0.6:
            target, wanted = chance.choice(taken)
            box.engine.reset(box.id, target)
            found = look(box, list(wanted))
            assert compare(found, wanted) == {}
            past = dict(found)
        else:
            past |= {writer.base: Range(writer.seed, writer.count(), writer.count()) for writer in writers}
    for image_id, wanted in chance.sample(taken, min(len(taken), 8)):
        assert compare(look(make_box(image=image_id), list(wanted)), wanted) == {}, image_id


def compare(found: dict[str, State], wanted: dict[str, Range | State]) -> dict[str, list[str]]:
    """What is not as it must be."""
    differing = {
        base: state.difference(found[base]) if isinstance(state, Range) else difference(state, found[base])
        for base, state in wanted.items()
    }
    return {base: paths for base, paths in differing.items() if paths}
