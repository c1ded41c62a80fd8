"""The verdict: averages over attacks of new runs, against prediction intervals that hold all at once.

A single cell moves too much from seed to seed to be tested, and the cells of one victim move together. So the averages are
tested: for each column, ACC and ASR, whether the mean of the new runs lies within mean ± t s sqrt(1/m + 1/n) of the n kept
ones, at 5 % over the number of tests (Bonferroni). Where nothing has changed, some column falls outside in at most 5 % of all
checks, however the columns move together. A calibration by ranks would need no normal distribution, but of n kept runs its
smallest p value is 1/(n + 1): it could never say no with fewer than twenty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ntml_bench.records.against.series import Series
from ntml_bench.records.labels import option_of
from ntml_bench.records.statistic import Statistic, statistic
from ntml_bench.records.summary import NONE
from ntml_bench.statistics import ALPHA, FEWEST
from ntml_bench.statistics.intervals import detectable_shift, prediction_reach

TESTED = ("clean_accuracy", "attack_success_rate")
ROUNDING = 1e-9


@dataclass(frozen=True)
class Average:
    """A column's average over `attacks` in one metric, percent: of `new` seeds, and of the kept seeds (with n of them)."""

    dataset: str
    model: str
    column: str
    metric: str
    attacks: tuple[str, ...]
    new: int
    value: float
    kept: Statistic
    resolution: float
    """One test image, in points: a smaller deviation of the kept runs counts as this."""


@dataclass(frozen=True)
class Tested:
    """An average with its part of the interval: `reach` points to each side of the kept mean.

    `detectable`: the shift in points that would have been seen with a probability of 80 %.
    """

    average: Average
    reach: float
    detectable: float

    @property
    def low(self) -> float:
        return max(0.0, self.average.kept.mean - self.reach)

    @property
    def high(self) -> float:
        return min(100.0, self.average.kept.mean + self.reach)

    @property
    def inside(self) -> bool:
        return abs(self.average.value - self.average.kept.mean) <= self.reach + ROUNDING


def judged_columns(series: Sequence[Series]) -> list[Tested]:
    """Of the columns that have a new run and three kept ones, complete over their attacks."""
    columns = dict.fromkeys((each.block, each.column) for each in series)
    averages = [
        average
        for column in columns
        for metric in TESTED
        if (average := _average([each for each in series if (each.block, each.column) == column], metric))
    ]
    alpha = ALPHA / max(1, len(averages))
    found = []
    for average in averages:
        scatter = (max(average.kept.deviation or 0.0, average.resolution), average.kept.n, average.new, alpha)
        found.append(Tested(average, prediction_reach(*scatter), detectable_shift(*scatter)))
    return found


def _average(column: Sequence[Series], metric: str) -> Average | None:
    # Without an attack there is no ASR, and the accuracy of that row would weigh as an attack's.
    rows = [each for each in column if option_of(each.attack) != NONE] or list(column)
    new = set.intersection(*(set(each.ours) for each in rows))
    kept = set.intersection(*(set(each.kept) for each in rows)) - {seed for each in rows for seed in each.ours}
    values = [_of_seed(rows, seed, metric, ours=True) for seed in sorted(new)]
    others = statistic([value for seed in sorted(kept) if (value := _of_seed(rows, seed, metric, ours=False)) is not None])
    if not values or None in values or others is None or others.n < FEWEST:
        return None
    images = [each.test_images for each in rows if each.test_images]
    return Average(
        dataset=rows[0].dataset,
        model=rows[0].model,
        column=rows[0].column,
        metric=metric,
        attacks=tuple(each.attack for each in rows),
        new=len(values),
        value=fmean(value for value in values if value is not None),
        kept=others,
        resolution=100 / min(images) if images else 0.0,
    )


def _of_seed(rows: Sequence[Series], seed: int, metric: str, *, ours: bool) -> float | None:
    values = [getattr((each.ours if ours else each.kept)[seed], metric) for each in rows]
    return None if None in values else fmean(values)
