"""The records of the cells as the page shows them: what was measured, how long it took, and the record itself as JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ntml_bench.records.cells import Cell, Metrics
from ntml_bench.records.numbers import NO_METRICS
from ntml_bench.records.view import NO_NUMBER, SHORT, STAGE_METRICS
from ntml_bench.report.data import Report, ReportCell
from ntml_bench.report.made import duration

WIDEST = 100
"""Characters of a line of JSON."""
DRAWN = "history"
"""The curves: long, drawn on the page where they are wanted, and whole in the record's file."""


@dataclass(frozen=True)
class ShownRecord:
    """`rows`: before, after and floor with a text a metric; `link`: where the file is, seen from the page, or nothing."""

    id: str
    cell: Cell
    headline: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    seconds: tuple[tuple[str, str], ...]
    json: str
    left_out: bool
    link: str


def record_id(cell: Cell) -> str:
    return f"record-{cell.key}"


def shown_records(report: Report, links: Mapping[str, str]) -> Iterator[ShownRecord]:
    """One a run, in the order of the grid: a run that stands in two places of the table has one record."""
    seen: set[str] = set()
    for entry in report.cells:
        if entry.cell.key not in seen:
            seen.add(entry.cell.key)
            yield _shown(entry, links.get(entry.cell.key, ""))


def _shown(entry: ReportCell, link: str) -> ShownRecord:
    cell, record = entry.cell, dict(entry.record or {})
    left_out = bool(record.pop(DRAWN, None))
    rows = [("before the defense", cell.before), ("after the defense", cell.after), ("floor", cell.floor)]
    retuned = (("after the defense, re-tuned", cell.retuned), ("floor, re-tuned", cell.retuned_floor))
    rows += [(name, found) for name, found in retuned if found != NO_METRICS]
    return ShownRecord(
        id=record_id(cell),
        cell=cell,
        headline=_headline(cell),
        columns=tuple(STAGE_METRICS.values()),
        rows=tuple((name, tuple(_text(values, metric) for metric in STAGE_METRICS)) for name, values in rows),
        seconds=tuple((name, duration(value)) for name, value in (record.get("seconds") or {}).items() if value is not None),
        json=narrow_json(record) if record else "",
        left_out=left_out,
        link=link,
    )


def _headline(cell: Cell) -> str:
    if cell.state != "done":
        return cell.state
    numbers = [
        f"{SHORT[name]} {value:.1f}"
        for name in ("clean_accuracy", "attack_success_rate", "robust_accuracy")
        if (value := getattr(cell.after, name)) is not None
    ]
    if cell.defense_effectiveness_rating is not None:
        numbers.append(f"DER {cell.defense_effectiveness_rating:.1f}")
    return ", ".join(numbers)


def _text(metrics: Metrics, name: str) -> str:
    value = getattr(metrics, name)
    return NO_NUMBER if value is None else f"{value:.2f}"


def narrow_json(value: Any, indent: int = 0) -> str:
    """JSON in which a list or object that fits on a line stands on one."""
    flat = json.dumps(value, ensure_ascii=False, sort_keys=True)
    if not isinstance(value, list | dict) or not value or len(flat) + indent <= WIDEST:
        return flat
    inner = indent + 1
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(str(key), ensure_ascii=False)}: {narrow_json(item, inner)}" for key, item in sorted(value.items())
        ]
        opening, closing = "{}"
    else:
        parts = [narrow_json(item, inner) for item in value]
        opening, closing = "[]"
    space = " " * inner
    return f"{opening}\n{space}" + f",\n{space}".join(parts) + f"\n{' ' * indent}{closing}"
