"""Ranks of methods over blocks (data sets, or an attack and a seed), as Demšar has them.

J. Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006). Scores are float [blocks, methods],
complete, and a higher one is better; rank 1 is the best, equal scores share the mean of their ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ntml_bench.statistics import ALPHA

FEWEST_METHODS = 3
"""Friedman's test is for three or more; two are compared by Wilcoxon's."""


@dataclass(frozen=True)
class Friedman:
    """Are all methods the same? `chi2` with its p value, and Iman and Davenport's F, which is less conservative."""

    chi2: float
    p: float
    f: float
    f_p: float
    blocks: int
    methods: int


def block_ranks(scores: ArrayLike) -> NDArray[np.float64]:
    """Float [blocks, methods] of ranks."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-np.asarray(scores, float), axis=1))


def friedman(scores: ArrayLike) -> Friedman:
    """Section 3.2.2; chi2 is corrected for ties, as scipy has it. Two or more blocks of three or more methods."""
    from scipy.stats import chi2 as chi2_distribution
    from scipy.stats import f as f_distribution

    ranks = block_ranks(scores)
    blocks, methods = ranks.shape
    # Without ties the same as 12 N / (k (k + 1)) (sum R^2 - k (k + 1)^2 / 4).
    spread = ((ranks - (methods + 1) / 2) ** 2).sum() / (blocks * (methods - 1))
    chi2 = 0.0 if spread == 0 else blocks * ((ranks.mean(0) - (methods + 1) / 2) ** 2).sum() / spread
    rest = blocks * (methods - 1) - chi2
    # All blocks rank alike: nothing is left over, and the F is infinite.
    f = inf if rest <= 1e-9 else (blocks - 1) * chi2 / rest
    return Friedman(
        chi2=float(chi2),
        p=float(chi2_distribution.sf(chi2, methods - 1)),
        f=float(f),
        f_p=0.0 if f == inf else float(f_distribution.sf(f, methods - 1, (methods - 1) * (blocks - 1))),
        blocks=blocks,
        methods=methods,
    )


def critical_difference(blocks: int, methods: int, alpha: float = ALPHA) -> float:
    """Nemenyi's: mean ranks that are further apart differ. Section 3.2.2: q_alpha sqrt(k (k + 1) / (6 N))."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, methods, inf)) / sqrt(2)
    return q * sqrt(methods * (methods + 1) / (6 * blocks))


def groups_within(mean_ranks: Sequence[float], difference: float) -> list[tuple[int, ...]]:
    """The largest groups of two or more methods whose mean ranks lie within `difference`: the bars of section 3.2.4.

    Indices, from the best rank to the worst; no group is part of another.
    """
    order = sorted(range(len(mean_ranks)), key=lambda index: mean_ranks[index])
    groups: list[tuple[int, ...]] = []
    for start, first in enumerate(order):
        group = tuple(index for index in order[start:] if mean_ranks[index] - mean_ranks[first] <= difference)
        if len(group) > 1 and not (groups and set(group) <= set(groups[-1])):
            groups.append(group)
    return groups


def wilcoxon(first: ArrayLike, second: ArrayLike) -> float:
    """The two-sided p value of the signed ranks test on pairs (section 3.1.3); 1 where no pair differs.

    Zero differences are left out, as Wilcoxon had it, and ties share their ranks; scipy chooses the exact distribution where
    there are few pairs without either.
    """
    from scipy.stats import wilcoxon as test

    differences = np.asarray(first, float) - np.asarray(second, float)
    # The last bits of percentages are no differences, and would break ties.
    differences = np.round(differences, 9)
    if not differences.any():
        return 1.0
    return float(test(differences).pvalue)  # pyright: ignore[reportAttributeAccessIssue]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of one family: Holm (1979), section 3.2.2; at most 1, in the order given."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for step, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[index]))
        adjusted[index] = largest
    return adjusted
