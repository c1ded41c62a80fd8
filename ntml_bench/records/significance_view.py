"""The significance of differences in words, for every rendering."""

from ntml_bench.records.scatter import NO_NUMBER
from ntml_bench.records.significance import Average, Ranking
from ntml_bench.records.view import SHORT
from ntml_bench.statistics import ALPHA
from ntml_bench.statistics.intervals import RESAMPLES
from ntml_bench.statistics.ranks import Friedman

ABOUT_RANKS = (
    "Ranks over (attack, seed) blocks, 1 is best, after Demšar (JMLR 7, 2006). Friedman's test asks whether the defenses are"
    " all the same (F: Iman and Davenport's form). Holm: Wilcoxon's signed ranks test of each defense against the one of the"
    " best mean rank, p adjusted by Holm; at 0.05 or above the two are not distinguishable. CD: mean ranks that are closer"
    " are not distinguishable by Nemenyi's test of all pairs. Seeds repeat an attack and are no new attacks, so this speaks"
    " of these attacks only."
)
ABOUT_AVERAGES = (
    "Averages over attacks: of the seeds' own averages the mean, the sample standard deviation and Student's 95 % interval;"
    f" bootstrap: 95 % percentile interval, seeds drawn anew within each attack ({RESAMPLES} times; Agarwal et al., NeurIPS"
    " 2021). With fewer than ten seeds the bootstrap's is too narrow."
)


def heading_of_ranking(ranking: Ranking) -> str:
    """`Ranks by DER at a price of 2 points over 30 (attack, seed) blocks, 2 incomplete left out`."""
    left_out = f", {ranking.left_out} incomplete left out" if ranking.left_out else ""
    return f"Ranks by {SHORT[ranking.metric]}{at_price(ranking)} over {ranking.blocks} (attack, seed) blocks{left_out}"


def at_price(ranking: Ranking) -> str:
    """Which of several prices it is of; nothing where there is one."""
    return "" if ranking.price is None else f" at a price of {ranking.price} point{'s' * (float(ranking.price) != 1)}"


def findings(ranking: Ranking) -> list[str]:
    """What the tests of a ranking found, a sentence each."""
    lines = []
    if ranking.friedman:
        lines.append(f"Friedman: {_friedman(ranking.friedman)}: {_answer(ranking.friedman)}.")
    if ranking.over_attacks:
        found = ranking.over_attacks
        lines.append(f"Over the {found.blocks} attacks alone (means over seeds): {_friedman(found)}: {_answer(found)}.")
    same = [name for name, p in ranking.p_values.items() if p >= ALPHA]
    lines.append(f"Not distinguishable from {ranking.best}, the best mean rank (Holm): {', '.join(same) or 'none'}.")
    if ranking.critical_difference is not None:
        groups = [", ".join(ranking.defenses[index] for index in group) for group in ranking.groups]
        lines.append(f"CD {ranking.critical_difference:.2f}; groups within it: {'; '.join(groups) or 'none'}.")
    return lines


def ranked_rows(ranking: Ranking) -> list[tuple[str, str, str]]:
    """Defense, mean rank and adjusted p value, the best rank first."""
    order = sorted(range(len(ranking.defenses)), key=lambda index: ranking.mean_ranks[index])
    return [
        (name, f"{ranking.mean_ranks[index]:.2f}", p_text(ranking.p_values[name]) if name in ranking.p_values else NO_NUMBER)
        for index in order
        for name in [ranking.defenses[index]]
    ]


def bootstrap_text(average: Average) -> str:
    low, high = average.bootstrap
    return f"[{low:.1f}, {high:.1f}]"


def p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _friedman(found: Friedman) -> str:
    return f"chi2({found.methods - 1}) = {found.chi2:.2f}, p {_p(found.p)}; F = {found.f:.2f}, p {_p(found.f_p)}"


def _p(p: float) -> str:
    return p_text(p).replace("<", "< ") if p < 0.001 else f"= {p_text(p)}"


def _answer(found: Friedman) -> str:
    return "the defenses differ" if found.f_p < ALPHA else "no difference is shown"
