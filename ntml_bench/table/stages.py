"""`stages.md`: what a defense's models were like between its stages, where it had them measured.

For nt_ml these are the abstract's claims: a teacher that is accurate on clean data, a student that is surer of the true class
of triggered images. Measured for the record; no defense ever sees these numbers.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from ntml_bench.records.cells import Cell, Metrics
from ntml_bench.records.labels import option_of
from ntml_bench.records.statistic import Statistic, statistic
from ntml_bench.records.summary import NONE, Summary
from ntml_bench.records.view import STAGE_METRICS, heading_of
from ntml_bench.table.markdown import escaped, table_line

AVERAGE = "average"


@dataclass(frozen=True)
class StageRow:
    """A model of one stage: percent by metric, over the seeds that are done."""

    attack: str
    defense: str
    stage: str
    values: dict[str, Statistic | None]


def stage_rows(cells: Sequence[Cell]) -> Iterator[StageRow]:
    """In the order of the grid: the model before the defense, those it had measured, the one it returned."""
    done = [cell for cell in cells if cell.state == "done" and cell.stages]
    for attack, defense in dict.fromkeys((cell.attack, cell.defense) for cell in done):
        group = [_all_stages(cell) for cell in done if (cell.attack, cell.defense) == (attack, defense)]
        for stage in dict.fromkeys(name for stages in group for name in stages):
            found = [stages[stage] for stages in group if stage in stages]
            values = {metric: _statistic([getattr(metrics, metric) for metrics in found]) for metric in STAGE_METRICS}
            yield StageRow(attack, defense, stage, values)


def average_rows(rows: Sequence[StageRow], attacks: Collection[str]) -> Iterator[StageRow]:
    """The means over `attacks` (two or more) of each defense's stages that all of them have; without deviations."""
    for defense, stage in dict.fromkeys((row.defense, row.stage) for row in rows):
        group = [row for row in rows if (row.defense, row.stage) == (defense, stage) and row.attack in attacks]
        if len(group) == len(attacks) > 1:
            yield StageRow(
                AVERAGE, defense, stage, {metric: _mean([row.values[metric] for row in group]) for metric in STAGE_METRICS}
            )


def render_stages(summary: Summary) -> str | None:
    """The document, or None where no cell has stages."""
    lines = [f"# {escaped(summary.sweep)}: the stages of the defenses", ""]
    some = False
    for block in summary.blocks:
        cells = summary.cells_of(block)
        rows = list(stage_rows(cells))
        if not rows:
            continue
        rows += average_rows(rows, {cell.attack for cell in cells if option_of(cell.attack) != NONE})
        some = True
        lines += [f"## {escaped(heading_of(block))}", ""]
        lines += [table_line(["attack", "defense", "model", *STAGE_METRICS.values()])]
        lines += [table_line(["---"] * 3 + [":---:"] * len(STAGE_METRICS))]
        for row in rows:
            names = [escaped(name) for name in (row.attack, row.defense, row.stage)]
            lines.append(table_line([*names, *(_text(row.values[metric]) for metric in STAGE_METRICS)]))
        lines.append("")
    lines.append(
        "Percent; averages are over attacks. "
        "The true-class probability is the mean over triggered test images of the other classes than the target."
    )
    return "\n".join(lines) + "\n" if some else None


def _all_stages(cell: Cell) -> dict[str, Metrics]:
    return {"before the defense": cell.before, **cell.stages, "after the defense": cell.after}


def _statistic(values: Sequence[float | None]) -> Statistic | None:
    return statistic([value for value in values if value is not None])


def _mean(values: Sequence[Statistic | None]) -> Statistic | None:
    """The mean of the means; None where one is missing, or made of fewer seeds than another."""
    found = [value for value in values if value is not None]
    if len(found) < len(values) or len({value.n for value in found}) > 1:
        return None
    return Statistic(fmean(value.mean for value in found), None, len(found))


def _text(value: Statistic | None) -> str:
    if value is None:
        return ""
    return f"{value.mean:.1f}" if value.deviation is None else f"{value.mean:.1f} ± {value.deviation:.1f}"
