"""What several seeds of a block say of its defenses together: ranks with their tests, intervals of the averages.

Blocks of the ranks are (attack, seed): Demšar's data sets (JMLR 7 (2006), section 3). The seeds of one attack are repetitions
and not new attacks, so that the tests speak of these attacks only; `over_attacks` ranks the means over seeds, an attack a
block, which is the stricter question. Defenses that were tuned at several prices are ranked within each price.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntml_bench.records.cells import Cell
from ntml_bench.records.curves import price_of, unpriced
from ntml_bench.records.labels import option_of
from ntml_bench.records.scatter import repeated
from ntml_bench.records.statistic import Statistic
from ntml_bench.records.summary import METRICS, NONE, Block, Summary
from ntml_bench.statistics import FEWEST
from ntml_bench.statistics.intervals import stratified_bootstrap
from ntml_bench.statistics.ranks import (
    FEWEST_METHODS,
    Friedman,
    block_ranks,
    critical_difference,
    friedman,
    groups_within,
    holm,
    wilcoxon,
)

RANKED = {"defense_effectiveness_rating": 1, "attack_success_rate": -1}
"""What defenses are ranked by, and the sign that makes more better."""


@dataclass(frozen=True)
class Ranking:
    """The defenses in the order of the table, by one metric; those of one `price`, where there are several (else None).

    `p_values`: of each against the one of the best mean rank, Wilcoxon's, adjusted by Holm; that one has none.
    `left_out`: blocks that lack a defense. `groups`: indices of defenses whose mean ranks lie within `critical_difference`
    (Nemenyi, 5 %). Tests of all defenses want three of them: else None.
    """

    metric: str
    price: str | None
    defenses: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    best: str
    p_values: Mapping[str, float]
    blocks: int
    left_out: int
    friedman: Friedman | None
    over_attacks: Friedman | None
    critical_difference: float | None
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Average:
    """A defense's average over `attacks` attacks: of the seeds' own averages, and the interval of the stratified bootstrap."""

    defense: str
    metric: str
    attacks: int
    statistic: Statistic
    bootstrap: tuple[float, float]


@dataclass(frozen=True)
class Significance:
    """Of a block with three seeds or more. `rankings`: those that have three complete blocks or more."""

    block: Block
    rankings: tuple[Ranking, ...]
    averages: tuple[Average, ...]


def significance_of(summary: Summary) -> list[Significance]:
    """Of the blocks that have seeds enough."""
    return [_of_block(block, summary.cells_of(block)) for block in summary.blocks if repeated(block)]


def rankings_of(block: Block, cells: Sequence[Cell]) -> tuple[Ranking, ...]:
    """Of `cells`, which are the block's; nothing without seeds enough, or fewer than three complete blocks."""
    if not repeated(block):
        return ()
    found = (
        _ranking(metric, sign, price, block, _attacked(cells)) for price in _prices(block) for metric, sign in RANKED.items()
    )
    return tuple(ranking for ranking in found if ranking)


def _prices(block: Block) -> list[str | None]:
    prices = dict.fromkeys(price for defense in block.defenses if (price := price_of(defense)) is not None)
    return [*sorted(prices, key=float)] if len(prices) > 1 else [None]


def _of_block(block: Block, cells: Sequence[Cell]) -> Significance:
    return Significance(block, rankings_of(block, cells), tuple(_averages(block, _attacked(cells))))


def _attacked(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.state == "done" and option_of(cell.attack) != NONE]


def _ranking(metric: str, sign: int, price: str | None, block: Block, cells: Sequence[Cell]) -> Ranking | None:
    attacks = [row.attack for row in block.rows if option_of(row.attack) != NONE]
    # What has no strengths has no price, and stands beside the others at each.
    columns = [name for name in block.defenses if price is None or price_of(name) in (None, price)]
    defenses = columns if price is None else [unpriced(name) for name in columns]
    numbers = {(cell.attack, cell.seed, cell.defense): number_of(cell, metric) for cell in cells}
    places = [(attack, seed) for attack in attacks for seed in block.seeds]
    rows = [[numbers.get((*place, name)) for name in columns] for place in places]
    complete = [index for index, row in enumerate(rows) if None not in row]
    if len(complete) < FEWEST or len(defenses) < 2:
        return None
    scores = sign * np.array([rows[index] for index in complete], float)
    mean_ranks = block_ranks(scores).mean(0)
    best = int(mean_ranks.argmin())
    others = [index for index in range(len(defenses)) if index != best]
    p_values = holm([wilcoxon(scores[:, best], scores[:, index]) for index in others])
    several = len(defenses) >= FEWEST_METHODS
    difference = critical_difference(len(complete), len(defenses)) if several else None
    return Ranking(
        metric=metric,
        price=price,
        defenses=tuple(defenses),
        mean_ranks=tuple(map(float, mean_ranks)),
        best=defenses[best],
        p_values={defenses[index]: p for index, p in zip(others, p_values, strict=True)},
        blocks=len(complete),
        left_out=len(places) - len(complete),
        friedman=friedman(scores) if several else None,
        over_attacks=_over_attacks(scores, [places[index][0] for index in complete]) if several else None,
        critical_difference=difference,
        groups=() if difference is None else tuple(groups_within(list(mean_ranks), difference)),
    )


def _over_attacks(scores: NDArray[np.float64], attacks: Sequence[str]) -> Friedman | None:
    names = list(dict.fromkeys(attacks))
    if len(names) < FEWEST:
        return None
    return friedman([scores[[attack == name for attack in attacks]].mean(0) for name in names])


def _averages(block: Block, cells: Sequence[Cell]) -> list[Average]:
    found = []
    average = block.average
    for defense, entry in average.defenses.items() if average else ():
        for metric in METRICS:
            statistic = entry.values.get(metric)
            # An average over some of the attacks is not to be held against one over all.
            if not entry.complete or statistic is None or statistic.interval is None:
                continue
            values: dict[str, list[float]] = {}
            for cell in cells:
                number = number_of(cell, metric)
                if cell.defense == defense and number is not None:
                    values.setdefault(cell.attack, []).append(number)
            found.append(Average(defense, metric, len(values), statistic, stratified_bootstrap(list(values.values()))))
    return found


def number_of(cell: Cell, metric: str) -> float | None:
    """After the defense."""
    return cell.defense_effectiveness_rating if metric == METRICS[3] else getattr(cell.after, metric)
