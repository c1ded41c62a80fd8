"""A mean over seeds and how they scatter."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from ntml_bench.statistics import FEWEST
from ntml_bench.statistics.intervals import mean_interval

UNSTABLE_WIDTH = 20.0
"""Points; a mean whose 95 % interval is wider says little."""


@dataclass(frozen=True)
class Statistic:
    """A mean and, for two or more values, the sample standard deviation (n - 1)."""

    mean: float
    deviation: float | None
    n: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's 95 % interval of the mean, which may reach beyond 0 and 100; None of fewer than three values."""
        if self.deviation is None or self.n < FEWEST:
            return None
        return mean_interval(self.mean, self.deviation, self.n)

    @property
    def unstable(self) -> bool:
        """Whether there is an interval, and a wide one."""
        interval = self.interval
        return interval is not None and interval[1] - interval[0] > UNSTABLE_WIDTH


def statistic(values: Sequence[float]) -> Statistic | None:
    """Mean and sample standard deviation; None of nothing, no deviation of a single value."""
    if not values:
        return None
    mean = fmean(values)
    if len(values) == 1:
        return Statistic(mean, None, 1)
    return Statistic(mean, sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1)), len(values))
