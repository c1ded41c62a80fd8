"""Intervals: of a mean, of what a new run will be, and of a mean over strata.

Student's t supposes that runs are independent and roughly normal. Attack success rates of single cells are not normal (many
lie near 0 or 100); means over several attacks are closer to it.
"""

from collections.abc import Sequence
from math import inf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntml_bench.statistics import ALPHA

RESAMPLES = 10_000


def t_quantile(freedom: int, alpha: float = ALPHA) -> float:
    """What a Student t of `freedom` degrees of freedom exceeds in absolute value with probability `alpha`."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - alpha / 2))


def mean_interval(mean: float, deviation: float, n: int, alpha: float = ALPHA) -> tuple[float, float]:
    """The interval of the mean of `n` >= 2 runs with that sample standard deviation (n - 1)."""
    reach = t_quantile(n - 1, alpha) * deviation / sqrt(n)
    return mean - reach, mean + reach


def prediction_reach(deviation: float, n: int, new: int = 1, alpha: float = ALPHA) -> float:
    """How far the mean of `new` more runs lies from the mean of `n` earlier ones, at most, with probability 1 - alpha.

    t * s * sqrt(1/new + 1/n): Hahn and Meeker, Statistical Intervals (1991), section 4.8; for new = 1 the usual prediction
    interval.
    """
    return t_quantile(n - 1, alpha) * deviation * sqrt(1 / new + 1 / n)


def detectable_shift(deviation: float, n: int, new: int = 1, alpha: float = ALPHA, power: float = 0.8) -> float:
    """The shift of the mean that leaves the interval of `prediction_reach` with probability `power`.

    The difference over its estimated error is a noncentral t; its upper tail is integrated over the estimates (scipy's own
    has no value at small tails). The lower tail is left out: where the power is 0.8 it is nothing.
    """
    from scipy.optimize import brentq
    from scipy.special import chdtri, ndtr

    limit = t_quantile(n - 1, alpha)
    # Estimated deviations over the true one, at even steps of their probability.
    estimates = np.sqrt(chdtri(n - 1, (np.arange(2000) + 0.5) / 2000) / (n - 1))

    def missing(shift: float) -> float:
        return float(ndtr(shift - limit * estimates).mean()) - power

    errors = float(brentq(missing, 0.0, 5 * limit))  # pyright: ignore[reportArgumentType]
    return errors * deviation * sqrt(1 / new + 1 / n)


def stratified_bootstrap(
    strata: Sequence[ArrayLike], alpha: float = ALPHA, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of the mean of the strata's means; runs are drawn anew within each stratum.

    `strata`: float [runs] each. Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice
    (NeurIPS 2021), section 4.1, as google-research/rliable does it, for the mean. With few runs (they say below 10) the
    interval is too narrow: it holds the truth less often than it says. Drawn from `seed`, so that it is the same each time.
    """
    draw = np.random.default_rng(seed)
    means: NDArray[np.float64] = np.zeros(resamples)
    for stratum in strata:
        values = np.asarray(stratum, float)
        means += values[draw.integers(0, len(values), (resamples, len(values)))].mean(1) / len(strata)
    low, high = np.quantile(means, (alpha / 2, 1 - alpha / 2))
    return float(low), float(high)


def paired_t(differences: ArrayLike) -> float:
    """The one-sided p value of "the mean of these differences is above 0"; of equal differences 0, or 1 where none is above 0.

    `differences`: float [pairs], two or more.
    """
    from scipy.special import stdtr

    values = np.asarray(differences, float)
    mean, error = values.mean(), values.std(ddof=1) / sqrt(len(values))
    statistic = mean / error if error > 0 else (inf if mean > 0 else -inf)
    return float(stdtr(len(values) - 1, -statistic))
