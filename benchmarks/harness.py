"""Measuring variants against each other in one run: alternating rounds, medians, ratios, intervals."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

RESAMPLES = 2000
CONFIDENCE = 0.95

Measurement = Callable[[], float]
"""Does the thing once; seconds that it took"""


@dataclass(frozen=True)
class Against:
    """How nbhull compares with another variant of the same benchmark."""

    variant: str
    ratio: float
    """nbhull's median over the other's"""
    interval: tuple[float, float]
    """of the ratio, at CONFIDENCE, by bootstrap over rounds"""


@dataclass
class Result:
    """One benchmark's samples and what follows from them."""

    name: str
    samples: dict[str, list[float]]
    """seconds (bytes where `unit` says so), by variant, in the order of the rounds; nbhull's is the first"""
    target_ratio: float | None = None
    """the most that nbhull's median over the second variant's should be"""
    of_fastest: bool = False
    """whether it is the fastest of the others that counts, and not the second variant"""
    target_ms: float | None = None
    """the most that nbhull's median should be, in milliseconds"""
    target_mb: float | None = None
    """the same in megabytes, where the samples are bytes"""
    unavailable: dict[str, str] = field(default_factory=dict)
    """variants that this machine cannot run, and why"""
    unit: Literal["ms", "MB"] = "ms"
    """what results are published in"""

    def published(self, value: float) -> float:
        """A sample in the unit that results are published in."""
        return round(value * 1e3 if self.unit == "ms" else value / 1e6, 4)

    @property
    def medians(self) -> dict[str, float]:
        """seconds, by variant"""
        return {name: statistics.median(values) for name, values in self.samples.items()}

    def against(self) -> list[Against]:
        """nbhull compared with every other variant."""
        subject, *others = self.samples
        return [
            Against(other, ratio(self.samples[subject], self.samples[other]),
                    bootstrap(self.samples[subject], self.samples[other]))
            for other in others
        ]

    def met(self) -> bool | None:
        """Whether the target was met; None where there is none."""
        subject, *others = self.medians.values()
        verdicts = []
        if self.target_ms is not None:
            verdicts.append(subject * 1e3 <= self.target_ms)
        if self.target_mb is not None:
            verdicts.append(subject / 1e6 <= self.target_mb)
        if self.target_ratio is not None and others:
            verdicts.append(subject / (min(others) if self.of_fastest else others[0]) <= self.target_ratio)
        return all(verdicts) if verdicts else None

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data, for results.json."""
        return {
            "name": self.name,
            "rounds": len(next(iter(self.samples.values()))),
            "unit": self.unit,
            "median": {name: self.published(value) for name, value in self.medians.items()},
            "against": [asdict(other) for other in self.against()],
            "target_ratio": self.target_ratio,
            "target_ms": self.target_ms,
            "target_mb": self.target_mb,
            "met": self.met(),
            "unavailable": self.unavailable,
            "samples": {name: [self.published(value) for value in values] for name, values in self.samples.items()},
        }


def measure(variants: Mapping[str, Measurement], rounds: int, warmups: int = 1) -> dict[str, list[float]]:
    """Measure every variant once a round, after `warmups` rounds that do not count.

    The order turns by one each round, so that no variant always runs after the same other one."""
    names = list(variants)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warmups, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds = variants[name]()
            if number >= 0:
                samples[name].append(seconds)
    return samples


def ratio(subject: list[float], other: list[float]) -> float:
    """The median of one over the median of the other."""
    return statistics.median(subject) / statistics.median(other)


def bootstrap(subject: list[float], other: list[float]) -> tuple[float, float]:
    """The confidence interval of `ratio`, from resampled rounds."""
    chance = random.Random(0)  # the same samples give the same interval
    count = len(subject)
    ratios = []
    for _ in range(RESAMPLES):
        rounds = chance.choices(range(count), k=count)
        ratios.append(ratio([subject[r] for r in rounds], [other[r] for r in rounds]))
    ratios.sort()
    tail = int((1 - CONFIDENCE) / 2 * RESAMPLES)
    return ratios[tail], ratios[-1 - tail]
