"""How much new runs stand out among earlier ones, without supposing any distribution."""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

MOST = 1000
"""Divisions that are looked at; of more than that, as many are drawn."""


@dataclass(frozen=True)
class Standing:
    """`p`: the share of all divisions in which the chosen runs stand out as much or more; `smallest`: the least it could be."""

    p: float
    smallest: float


def standing(kept: ArrayLike, new: ArrayLike, least: ArrayLike) -> Standing:
    """The permutation test of the largest studentized difference over all columns (Westfall and Young, 1993, chapter 2).

    `kept`: float [n, columns], n >= 3; `new`: float [m, columns]; `least`: float [columns], the smallest deviation that counts.
    Every m of the n + m runs are in turn taken for the new ones. Exact where the runs are exchangeable, whatever the
    distribution and however the columns depend on each other.
    """
    before, after = np.asarray(kept, float), np.asarray(new, float)
    runs, chosen = np.vstack([after, before]), len(after)
    total = comb(len(runs), chosen)
    if total <= MOST:
        divisions = [list(each) for each in combinations(range(len(runs)), chosen)]
    else:
        draw = np.random.default_rng(0)
        divisions = [list(range(chosen)), *(list(draw.permutation(len(runs))[:chosen]) for _ in range(MOST - 1))]
    # The first division is the one that happened.
    found = np.array([_largest(runs, division, np.asarray(least, float)) for division in divisions])
    # Equal statistics that were summed in another order differ in their last bits.
    p = float((found >= found[0] * (1 - 1e-9)).mean())
    return Standing(p, 1 / len(divisions))


def _largest(runs: NDArray[np.float64], division: list[int], least: NDArray[np.float64]) -> float:
    rest = np.delete(runs, division, axis=0)
    differences = np.abs(runs[division].mean(0) - rest.mean(0))
    scatter = np.maximum(rest.std(0, ddof=1), least)
    # Where nothing scatters, any difference is infinitely large, and none is none.
    ratios = np.divide(differences, scatter, out=np.where(differences > 1e-9, np.inf, 0.0), where=scatter > 0)
    return float(ratios.max())
