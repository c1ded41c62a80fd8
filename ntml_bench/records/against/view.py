"""The check in words, for every rendering."""

from collections import defaultdict

from ntml_bench.records.against.cells import SHOWN, Ranged
from ntml_bench.records.against.check import Check
from ntml_bench.records.against.columns import Tested
from ntml_bench.records.against.pairing import Difference, differences_of
from ntml_bench.records.view import SHORT, counted
from ntml_bench.statistics import FEWEST

COLUMN_HEADINGS = (
    "column",
    "metric",
    "attacks",
    "new",
    "kept",
    "mean of new",
    "mean of kept",
    "expected",
    "verdict",
    "seen at 80 %",
)
LEGEND = (
    "Verdict: by the averages over attacks of each column, ACC and ASR. expected: the interval that the mean of the new seeds"
    " lies in, from the mean and the deviation of the kept seeds (Student's prediction interval, mean ± t s sqrt(1/new +"
    " 1/kept)), at 5 % over the number of tests (Bonferroni): where nothing has changed, some column lies outside in at most"
    " 5 % of all checks, if averages are normal. As they need not be, the new seeds must also stand out among all runs in a"
    " permutation of whole runs (of the largest studentized difference over all columns; p at most 0.05, or the smallest that"
    " there can be, 1/(kept + 1) for one new seed). Seeds that both sides have are left out of the kept ones.",
    "seen at 80 %: the shift of that average, in points, that would have been found outside in four cases of five; a smaller"
    " one can go unnoticed.",
    "Range: with n kept seeds a new run of the same kind lies outside the range of a number with probability 2/(n + 1), so"
    " that some cells outside say nothing. p: among the new run and the kept ones, each held against all others, the share"
    " that has as many numbers outside or more; no part of the verdict.",
    "Equal digits: ACC, ASR and RA before and after the defense are those of the kept run of the same seed, to the last bit.",
)


def title(check: Check) -> str:
    return f"{check.ours.name} against the kept {check.theirs.name}"


def brief(check: Check) -> list[str]:
    """The verdict and what it rests on, in three lines at most."""
    lines = [f"{check.verdict}: {_reason(check)}"]
    if check.verdict != "not comparable":
        lines.append(_cells(check))
    if check.counts:
        lines.append(_ranges(check))
    return lines


def _reason(check: Check) -> str:
    name = check.theirs.name
    if check.refused:
        return check.refused
    if not check.compared:
        if texts := [difference_text(found) for found in differences_of(check.unpaired)]:
            return f"no cell that is done has the settings of '{name}': {', '.join(texts)}"
        return f"'{name}' has no cell of these names, or none of ours is done"
    if check.all_equal:
        return f"all {counted(check.compared, 'cell')} equal the kept runs of their seeds in '{name}' to the last digit"
    if not check.tested:
        return f"'{name}' has fewer than {FEWEST} seeds besides the sweep's own, so only digits can be compared"
    if check.failed:
        failures = "; ".join(map(_failure, check.failed))
        if check.verdict == "not reproduced" or check.standing is None:
            return failures
        return f"{failures}; but kept runs stand out among the others as much (p {check.standing.p:.2f})"
    kept = sorted({column.average.kept.n for column in check.tested})
    runs = " to ".join(map(str, dict.fromkeys((kept[0], kept[-1]))))
    return (
        f"all {len(check.tested)} averages over attacks (ACC and ASR of {_columns(check)} columns) within the 95 % interval of"
        f" {runs} kept seeds of '{name}'"
    )


def _columns(check: Check) -> int:
    return len({(one.average.dataset, one.average.model, one.average.column) for one in check.tested})


def _failure(column: Tested) -> str:
    average = column.average
    return (
        f"{average.column} {SHORT[average.metric]} average {average.value:.1f}, expected {column.low:.1f} to {column.high:.1f}"
    )


def _cells(check: Check) -> str:
    parts = [f"{check.compared} of {check.ours.planned} cells are compared"]
    if check.repeated:
        equal = sum(cell.equal for cell in check.repeated)
        parts.append(f"{equal} of {len(check.repeated)} with a kept seed equal it to the last digit")
    else:
        parts.append("none has a kept seed")
    return "; ".join(parts) + "."


def _ranges(check: Check) -> str:
    """How many of the new runs' numbers lie within the range of the kept ones."""
    parts, expected = [], 0.0
    for metric in SHOWN:
        found = [ranged for ranged in check.ranged if ranged.metric == metric]
        total = sum(len(ranged.ours) for ranged in found)
        inside = total - sum(ranged.outside for ranged in found)
        expected = sum(len(ranged.ours) * (1 - 2 / (ranged.kept.n + 1)) for ranged in found)
        parts.append(f"{SHORT[metric]} {inside} of {total}")
    p = ", ".join(f"{count.p:.2f} (seed {count.seed})" for count in check.counts)
    return f"Within the range of the kept seeds: {', '.join(parts)}; some {expected:.0f} are expected. p {p}."


def difference_text(difference: Difference) -> str:
    return f"{difference.key} {difference.ours} (reference: {difference.theirs})"


def not_compared(check: Check) -> list[str]:
    """A line a reason, with the places that it keeps out."""
    places: dict[str, list[str]] = defaultdict(list)
    for each in check.unpaired:
        texts = ", ".join(map(difference_text, each.differences)) or "the reference has none of that name"
        places[texts].append(f"{each.labels.attack} x {each.labels.defense}")
    return [f"not compared: {reason}: {', '.join(found)}" for reason, found in places.items()]


def facts(check: Check) -> list[str]:
    """What else is the same or not about how the two sides were computed."""
    lines = []
    for name in dict.fromkeys((*check.ours.facts, *check.theirs.facts)):
        here, there = (", ".join(sorted(side.facts.get(name, ()))) or "not recorded" for side in (check.ours, check.theirs))
        lines.append(f"{name}: {here} on both sides" if here == there else f"{name}: {here} here, {there} in the reference")
    return lines


def column_row(tested: Tested, *, several_blocks: bool) -> list[str]:
    """In the order of COLUMN_HEADINGS."""
    average = tested.average
    place = f"{average.dataset}, {average.model}, " if several_blocks else ""
    return [
        place + average.column,
        SHORT[average.metric],
        str(len(average.attacks)),
        str(average.new),
        str(average.kept.n),
        f"{average.value:.1f}",
        f"{average.kept.mean:.1f} ±{average.kept.deviation or 0.0:.1f}",
        f"{tested.low:.1f} to {tested.high:.1f}",
        "inside" if tested.inside else "OUTSIDE",
        f"{tested.detectable:.1f}",
    ]


def several_blocks(check: Check) -> bool:
    return len({(one.average.dataset, one.average.model) for one in check.tested}) > 1


def range_text(ranged: Ranged) -> str:
    """`91.4 in 90.1 ±0.8 [88.9, 91.6]`, or `out of`."""
    ours = ", ".join(f"{value:.1f}" for value in ranged.ours)
    word = "out of" if ranged.outside else "in"
    return f"{ours} {word} {ranged.kept.mean:.1f} ±{ranged.kept.deviation or 0.0:.1f} [{ranged.low:.1f}, {ranged.high:.1f}]"
