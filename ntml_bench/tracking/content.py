"""What of a record goes into a W&B run: its summary, its training curves, the rows of the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ntml_bench.objective import HOLDOUT, ORACLE
from ntml_bench.records.rows import columns_of, rows_of
from ntml_bench.records.summary import Summary

if TYPE_CHECKING:
    from wandb import Run

METRICS = ("clean_accuracy", "attack_success_rate", "robust_accuracy")
TEXTS = ("dataset", "model", "attack", "defense", "state", "key")


@dataclass(frozen=True, kw_only=True)
class Content:
    """All that is written into a run. It is put together before the run is opened, so that only W&B can fail behind that."""

    summary: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]] = ()
    stages: Sequence[str] = ()
    """Each counts its own epochs: `STAGE/loss` over `STAGE/epoch`."""


def content_of_cell(record: Mapping[str, Any], prefix: str = "") -> Content:
    """`prefix` stands before the name of every measure."""
    return Content(
        summary=summary_of(record, prefix),
        history=[
            {f"{entry['stage']}/{name}": value for name, value in entry.items() if name != "stage"}
            for entry in record["history"]
        ],
        stages=list(dict.fromkeys(str(entry["stage"]) for entry in record["history"])),
    )


def content_of_trial(record: Mapping[str, Any]) -> Content:
    """The same for a run whose numbers choose settings: each measure is named after the images that it reads."""
    return content_of_cell(record, HOLDOUT if record["settings"]["dataset"].get("holdout") else ORACLE)


def summary_of(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """ACC, ASR, RA after the defense (percent) under their own names, the others below `before/` and `floor/`; seconds.

    Of models that were re-tuned the same below `retuned/after/` and `retuned/floor/`; of a defense that was tuned also the
    strength that was taken and what it was seen to cost, below `tuning/`.
    """
    found = {prefix + metric: record["after"][metric] for metric in METRICS}
    found[prefix + "defense_effectiveness_rating"] = record["defense_effectiveness_rating"]
    for place in ("before", "floor"):
        measured = record.get(place) or {}
        found.update({f"{place}/{prefix}{metric}": measured.get(metric) for metric in METRICS})
    for place, measured in (record.get("retuned") or {}).items():
        found.update({f"retuned/{place}/{prefix}{metric}": measured.get(metric) for metric in METRICS})
    found.update({f"seconds/{stage}": value for stage, value in record["seconds"].items()})
    return {name: value for name, value in {**found, **_taken(record.get("tuning"))}.items() if value is not None}


def _taken(tuning: Mapping[str, Any] | None) -> dict[str, Any]:
    if tuning is None or tuning["chosen"] is None:
        return {}
    (taken,) = (candidate for candidate in tuning["candidates"] if candidate["value"] == tuning["chosen"])
    return {"tuning/chosen": taken["value"], **{f"tuning/{name}": taken[name] for name in ("fall", "standard_error")}}


def fill(run: "Run", content: Content) -> None:
    """Write into an open run. Of a run that is resumed, the steps of the history that the server has are left out."""
    for stage in content.stages:
        run.define_metric(f"{stage}/epoch")
        run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")
    for row in content.history[run.starting_step :]:
        run.log(dict(row))
    run.summary.update(dict(content.summary))


def table_rows(summary: Summary) -> list[list[Any]]:
    """The rows of `cells.csv` with their numbers as numbers, None where there is none."""

    def typed(name: str, text: str) -> Any:
        if name in TEXTS:
            return text
        if not text:
            return None
        return int(text) if name == "seed" else float(text)

    return [[typed(*pair) for pair in zip(columns_of(summary), row, strict=True)] for row in rows_of(summary)]
