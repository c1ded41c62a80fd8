"""Single cells: equal digits where the seed is a kept one, else whether a new run lies within the range of the kept ones.

With n kept runs a new one of the same kind falls outside their range with probability 2/(n + 1). The cells of one victim move
together, so their number is judged against whole runs: each of the n + 1 in turn is held against the others, and the new one
should not stand out among them. That is exact for exchangeable runs, with a smallest p value of 1/(n + 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ntml_bench.records.against.pairing import Pair
from ntml_bench.records.against.series import FLOOR, Series
from ntml_bench.records.cells import Cell
from ntml_bench.records.labels import Labels
from ntml_bench.records.statistic import Statistic, statistic
from ntml_bench.records.summary import METRICS
from ntml_bench.statistics import FEWEST

SHOWN = METRICS[:3]


@dataclass(frozen=True)
class Repeated:
    """A cell whose seed the reference has too; `largest`: the largest difference of its numbers, points; 0 if all are equal."""

    labels: Labels
    seed: int
    largest: float

    @property
    def equal(self) -> bool:
        return self.largest == 0.0


@dataclass(frozen=True)
class Ranged:
    """A metric of a cell: percent of the new runs by seed, and the kept runs' mean, deviation and range."""

    series: Series
    metric: str
    ours: tuple[float, ...]
    kept: Statistic
    low: float
    high: float

    @property
    def outside(self) -> int:
        """How many of the new runs lie outside the range."""
        return sum(not self.low <= value <= self.high for value in self.ours)


@dataclass(frozen=True)
class Count:
    """A new run: numbers outside the range of the kept ones, of how many, how many are expected, and the permutation's p."""

    seed: int
    outside: int
    numbers: int
    expected: float
    p: float


def repeated_cells(pairs: Sequence[Pair]) -> list[Repeated]:
    return [
        Repeated(pair.ours.labels, seed, _largest(cell, pair.theirs.runs[seed]))
        for pair in pairs
        for seed, cell in pair.ours.runs.items()
        if seed in pair.theirs.runs
    ]


def ranged_cells(series: Sequence[Series]) -> list[Ranged]:
    """Of the cells with three kept runs or more, the undefended models among them."""
    found = []
    for each in series:
        for metric in SHOWN if each.column != FLOOR else ():
            kept = [value for metrics in each.kept.values() if (value := getattr(metrics, metric)) is not None]
            ours = [value for metrics in each.ours.values() if (value := getattr(metrics, metric)) is not None]
            mean = statistic(kept)
            if ours and mean is not None and mean.n >= FEWEST:
                found.append(Ranged(each, metric, tuple(ours), mean, min(kept), max(kept)))
    return found


def counts_of(ranged: Sequence[Ranged]) -> list[Count]:
    """Of each new run that all of these cells have, over the kept seeds that all of them have."""
    if not ranged:
        return []
    kept = sorted(set.intersection(*(set(each.series.kept) for each in ranged)))
    new = sorted(set.intersection(*(set(each.series.ours) for each in ranged)))
    if len(kept) < FEWEST:
        return []
    others = np.array([[getattr(each.series.kept[seed], each.metric) for each in ranged] for seed in kept], float)
    found = []
    for seed in new:
        run = np.array([getattr(each.series.ours[seed], each.metric) for each in ranged], float)
        outside = _outside(np.vstack([others, run]))
        expected = 2 * len(ranged) / (len(kept) + 1)
        found.append(Count(seed, int(outside[-1]), len(ranged), expected, float((outside >= outside[-1]).mean())))
    return found


def _outside(runs: np.ndarray) -> np.ndarray:
    """Int [runs]: how many numbers of each run (float [runs, numbers]) lie outside the range of all others."""
    ordered = np.sort(runs, axis=0)
    # The range of the others: a run that is an extreme alone has the next one for its bound.
    low = np.where(runs == ordered[0], ordered[1], ordered[0])
    high = np.where(runs == ordered[-1], ordered[-2], ordered[-1])
    return ((runs < low) | (runs > high)).sum(1)


def _largest(ours: Cell, theirs: Cell) -> float:
    """Over the model before and after the defense."""
    sides = [(getattr(ours, when), getattr(theirs, when)) for when in ("before", "after")]
    numbers = [(getattr(one, metric), getattr(other, metric)) for one, other in sides for metric in SHOWN]
    # A number that only one side has is as different as can be.
    return max(0.0 if one == other else 100.0 if None in (one, other) else abs(one - other) for one, other in numbers)
