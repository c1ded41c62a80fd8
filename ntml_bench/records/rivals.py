"""Which defenses of a row could be its best, given how much their seeds scatter.

A subset that holds the truly best one with probability 95 % (S. S. Gupta, On some multiple decision (selection and ranking)
rules, Technometrics 7 (1965)): a rival is left out only where the defense of the highest mean beats it in a one-sided paired
t test over the seeds at 5 % over the number of rivals (Bonferroni). The truly best one is beaten so by any of them in at most
5 % of all repetitions, so that it does no harm that the highest mean was picked from the same numbers. Wilcoxon's test is
none here: of five pairs its smallest two-sided p value is 0.0625.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from ntml_bench.records.cells import Cell
from ntml_bench.statistics import ALPHA, FEWEST
from ntml_bench.statistics.intervals import paired_t


def rivals_of(best: str | None, complete: Collection[str], cells: Sequence[Cell]) -> tuple[str, ...]:
    """Those of the `complete` defenses that are not distinguishable from `best` by DER, averaged over the attacks of `cells`.

    Nothing with fewer than three seeds: then nothing is tested, and a mark says no more than which mean is the highest.
    """
    if best is None:
        return ()
    ratings = _by_seed([cell for cell in cells if cell.defense in complete])
    rivals = [name for name in complete if name != best and name in ratings]
    found = []
    for name in rivals:
        seeds = sorted(ratings[best].keys() & ratings[name].keys())
        if len(seeds) < FEWEST:
            return ()
        differences = [ratings[best][seed] - ratings[name][seed] for seed in seeds]
        if paired_t(differences) >= ALPHA / len(rivals):
            found.append(name)
    return tuple(found)


def _by_seed(cells: Sequence[Cell]) -> Mapping[str, Mapping[int, float]]:
    """By defense and seed, the mean over the attacks, of the seeds that have all of them."""
    attacks = {cell.attack for cell in cells}
    found: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if cell.defense_effectiveness_rating is not None:
            found[cell.defense][cell.seed].append(cell.defense_effectiveness_rating)
    return {
        name: {seed: fmean(ratings) for seed, ratings in by_seed.items() if len(ratings) == len(attacks)}
        for name, by_seed in found.items()
    }
