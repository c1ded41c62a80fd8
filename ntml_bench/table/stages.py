"""`stages.md`: what a defense's models were like between its stages, where it had them measured.

For nt_ml these are the abstract's claims: a teacher that is accurate on clean data, a student that is surer of the true class
of triggered images. Measured for the record; no defense ever sees these numbers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ntml_bench.table.cells import Cell, Metrics
from ntml_bench.table.markdown import escaped, table_line
from ntml_bench.table.summary import METRICS, Statistic, Summary, statistic
from ntml_bench.table.view import SHORT, heading_of

COLUMNS = {metric: SHORT[metric] for metric in METRICS[:3]} | {"true_class_probability": "true-class probability"}


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
            values = {metric: _statistic([getattr(metrics, metric) for metrics in found]) for metric in COLUMNS}
            yield StageRow(attack, defense, stage, values)


def render_stages(summary: Summary) -> str | None:
    """The document, or None where no cell has stages."""
    lines = [f"# {escaped(summary.sweep)}: the stages of the defenses", ""]
    some = False
    for block in summary.blocks:
        rows = list(stage_rows(summary.cells_of(block)))
        if not rows:
            continue
        some = True
        lines += [f"## {escaped(heading_of(block))}", ""]
        lines += [table_line(["attack", "defense", "model", *COLUMNS.values()])]
        lines += [table_line(["---"] * 3 + [":---:"] * len(COLUMNS))]
        for row in rows:
            names = [escaped(name) for name in (row.attack, row.defense, row.stage)]
            lines.append(table_line([*names, *(_text(row.values[metric]) for metric in COLUMNS)]))
        lines.append("")
    lines.append(
        "Percent. The true-class probability is the mean over triggered test images of the other classes than the target."
    )
    return "\n".join(lines) + "\n" if some else None


def _all_stages(cell: Cell) -> dict[str, Metrics]:
    return {"before the defense": cell.before, **cell.stages, "after the defense": cell.after}


def _statistic(values: Sequence[float | None]) -> Statistic | None:
    return statistic([value for value in values if value is not None])


def _text(value: Statistic | None) -> str:
    if value is None:
        return ""
    return f"{value.mean:.1f}" if value.deviation is None else f"{value.mean:.1f} ± {value.deviation:.1f}"
