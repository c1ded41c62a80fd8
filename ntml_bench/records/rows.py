"""`cells.csv`: one row a cell, the machine-readable form of the table."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO

from ntml_bench.records.cells import Cell
from ntml_bench.records.summary import RETUNED, Summary

COLUMNS = (
    "dataset",
    "model",
    "attack",
    "defense",
    "seed",
    "clean_accuracy",
    "attack_success_rate",
    "robust_accuracy",
    "defense_effectiveness_rating",
    "undefended_clean_accuracy",
    "undefended_attack_success_rate",
    "seconds",
    "state",
    "key",
)


def columns_of(summary: Summary) -> tuple[str, ...]:
    """What is measured only where it is asked for stands behind what is always there."""
    return (*COLUMNS, *((RETUNED,) if RETUNED in summary.metrics else ()))


def rows_of(summary: Summary) -> list[list[str]]:
    """The texts of all cells' rows in grid order; numbers with two decimals, nothing where there is no number."""
    retuned = RETUNED in summary.metrics
    more = [[_text(cell.retuned.attack_success_rate)] if retuned else [] for cell in summary.cells]
    return [[*_row_of(cell), *texts] for cell, texts in zip(summary.cells, more, strict=True)]


def _row_of(cell: Cell) -> list[str]:
    numbers = (
        cell.after.clean_accuracy,
        cell.after.attack_success_rate,
        cell.after.robust_accuracy,
        cell.defense_effectiveness_rating,
        cell.before.clean_accuracy,
        cell.before.attack_success_rate,
        cell.seconds,
    )
    texts = map(_text, numbers)
    return [cell.dataset, cell.model, cell.attack, cell.defense, str(cell.seed), *texts, cell.state, cell.key]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def render_csv(summary: Summary) -> str:
    """All cells in grid order."""
    return csv_text(columns_of(summary), rows_of(summary))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A file with a header, lines ended by a line feed."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
