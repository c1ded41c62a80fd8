"""`cells.csv`: one row a cell, the machine-readable form of the table."""

import csv
from collections.abc import Iterable, Sequence
from io import StringIO

from ntml_bench.records.cells import Cell
from ntml_bench.records.summary import Summary

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


def row_of(cell: Cell) -> list[str]:
    """The texts of a cell's row; numbers with two decimals, nothing where there is no number."""
    numbers = (
        cell.after.clean_accuracy,
        cell.after.attack_success_rate,
        cell.after.robust_accuracy,
        cell.defense_effectiveness_rating,
        cell.before.clean_accuracy,
        cell.before.attack_success_rate,
        cell.seconds,
    )
    texts = ["" if value is None else f"{value:.2f}" for value in numbers]
    return [cell.dataset, cell.model, cell.attack, cell.defense, str(cell.seed), *texts, cell.state, cell.key]


def render_csv(summary: Summary) -> str:
    """All cells in grid order."""
    return csv_text(COLUMNS, (row_of(cell) for cell in summary.cells))


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A file with a header, lines ended by a line feed."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
