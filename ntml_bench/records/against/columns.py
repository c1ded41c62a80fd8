"""The verdict: averages over attacks of new runs, against prediction intervals that hold all at once.

A single cell moves too much from seed to seed to be tested, and the cells of one victim move together. So the averages are
tested: for each column, ACC and ASR, whether the mean of the new runs lies within mean ± t s sqrt(1/m + 1/n) of the n kept
ones, at 5 % over the number of tests (Bonferroni). Where nothing has changed, some column falls outside in at most 5 % of all
checks, however the columns move together, if averages are normal. Those of attacks that now and then work wholly are not: so
the new runs must stand out, too, by a permutation of whole runs, which supposes nothing but that runs are exchangeable. Alone
it could not say no with one new run and fewer than nineteen kept ones, as its smallest p value is then 1/(n + 1).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ntml_bench.records.against.series import Series
from ntml_bench.records.labels import option_of
from ntml_bench.records.numbers import Metrics
from ntml_bench.records.statistic import Statistic, statistic
from ntml_bench.records.summary import NONE
from ntml_bench.statistics import ALPHA, FEWEST
from ntml_bench.statistics.intervals import detectable_shift, prediction_reach
from ntml_bench.statistics.permutation import Standing, standing

TESTED = ("clean_accuracy", "attack_success_rate")
ROUNDING = 1e-9


@dataclass(frozen=True)
class Average:
    """A column's average over `attacks` in one metric, percent by seed: of the new runs, and of the kept ones."""

    dataset: str
    model: str
    column: str
    metric: str
    attacks: tuple[str, ...]
    ours: Mapping[int, float]
    others: Mapping[int, float]
    resolution: float
    """One test image, in points: a smaller deviation of the kept runs counts as this."""

    @property
    def new(self) -> int:
        return len(self.ours)

    @property
    def value(self) -> float:
        return fmean(self.ours.values())

    @property
    def kept(self) -> Statistic:
        found = statistic(list(self.others.values()))
        assert found is not None
        return found


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


def standing_of(tested: Sequence[Tested]) -> Standing | None:
    """Of the new runs among the kept ones, by all columns at once; None where too few seeds have all columns."""
    averages = [column.average for column in tested]
    if not averages:
        return None
    kept = sorted(set.intersection(*(set(average.others) for average in averages)))
    new = sorted(set.intersection(*(set(average.ours) for average in averages)))
    if len(kept) < FEWEST or not new:
        return None
    return standing(
        [[average.others[seed] for average in averages] for seed in kept],
        [[average.ours[seed] for average in averages] for seed in new],
        [average.resolution for average in averages],
    )


def _average(column: Sequence[Series], metric: str) -> Average | None:
    # Without an attack there is no ASR, and the accuracy of that row would weigh as an attack's.
    rows = [each for each in column if option_of(each.attack) != NONE] or list(column)
    ours = _by_seed([each.ours for each in rows], metric)
    others = _by_seed([each.kept for each in rows], metric)
    others = {seed: value for seed, value in others.items() if not any(seed in each.ours for each in rows)}
    if not ours or len(others) < FEWEST:
        return None
    images = [each.test_images for each in rows if each.test_images]
    return Average(
        dataset=rows[0].dataset,
        model=rows[0].model,
        column=rows[0].column,
        metric=metric,
        attacks=tuple(each.attack for each in rows),
        ours=ours,
        others=others,
        resolution=100 / min(images) if images else 0.0,
    )


def _by_seed(rows: Sequence[Mapping[int, Metrics]], metric: str) -> dict[int, float]:
    """Averages over the rows, of the seeds that all of them have."""
    found = {}
    for seed in sorted(set.intersection(*map(set, rows))):
        values = [getattr(row[seed], metric) for row in rows]
        if None not in values:
            found[seed] = fmean(values)
    return found
