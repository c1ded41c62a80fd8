"""What of a record goes into a W&B run: its summary, its training curves, the rows of the table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ntml_bench.table.delimited import COLUMNS, row_of
from ntml_bench.table.summary import Summary

if TYPE_CHECKING:
    from wandb import Run

METRICS = ("clean_accuracy", "attack_success_rate", "robust_accuracy")
TEXTS = ("dataset", "model", "attack", "defense", "state", "key")


def summary_of(record: Mapping[str, Any]) -> dict[str, float]:
    """ACC, ASR, RA after the defense (percent) under their own names, the others below `before/` and `floor/`; seconds."""
    found = {metric: record["after"][metric] for metric in METRICS}
    found["defense_effectiveness_rating"] = record["defense_effectiveness_rating"]
    for place in ("before", "floor"):
        measured = record.get(place) or {}
        found.update({f"{place}/{metric}": measured.get(metric) for metric in METRICS})
    found.update({f"seconds/{stage}": value for stage, value in record["seconds"].items()})
    return {name: value for name, value in found.items() if value is not None}


def log_history(run: "Run", history: Sequence[Mapping[str, Any]]) -> None:
    """Training curves as `STAGE/loss` over `STAGE/epoch`: each stage counts its own epochs."""
    for stage in dict.fromkeys(str(entry["stage"]) for entry in history):
        run.define_metric(f"{stage}/epoch")
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
    for entry in history:
        run.log({f"{entry['stage']}/{name}": value for name, value in entry.items() if name != "stage"})


def table_rows(summary: Summary) -> list[list[Any]]:
    """The rows of `cells.csv` with their numbers as numbers, None where there is none."""

    def typed(name: str, text: str) -> Any:
        if name in TEXTS:
            return text
        if not text:
            return None
        return int(text) if name == "seed" else float(text)

    return [[typed(*pair) for pair in zip(COLUMNS, row_of(cell), strict=True)] for cell in summary.cells]
