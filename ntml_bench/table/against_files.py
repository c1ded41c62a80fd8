"""`against.md` and `against.json`: a sweep held against a kept one."""

import json
from pathlib import Path
from typing import Any

from ntml_bench.files import write_file
from ntml_bench.records.against.cells import SHOWN, Ranged
from ntml_bench.records.against.check import Check
from ntml_bench.records.against.columns import Tested
from ntml_bench.records.against.view import (
    COLUMN_HEADINGS,
    LEGEND,
    brief,
    column_row,
    facts,
    not_compared,
    range_text,
    several_blocks,
    title,
)
from ntml_bench.records.view import SHORT
from ntml_bench.table.markdown import escaped, table_line


def write_check(check: Check, target: Path) -> list[Path]:
    """Write both files into `target`; their paths."""
    texts = {"against.md": check_markdown(check), "against.json": check_json(check)}
    for name, text in texts.items():
        write_file(target / name, text.encode())
    return [target / name for name in texts]


def check_markdown(check: Check) -> str:
    """The whole document."""
    lines = [f"# {escaped(title(check))}", "", *(escaped(line) + "<br>" for line in brief(check)), ""]
    if check.tested:
        lines += ["## Averages over attacks", "", table_line(list(COLUMN_HEADINGS))]
        lines.append(table_line(["---"] * 2 + ["---:"] * (len(COLUMN_HEADINGS) - 2)))
        several = several_blocks(check)
        lines += [table_line([escaped(text) for text in column_row(one, several_blocks=several)]) for one in check.tested]
        lines.append("")
    if check.ranged:
        lines += ["## Cells", "", "New runs, and the kept runs' mean, deviation and range.", ""]
        lines += [table_line(["attack", "column", *(SHORT[metric] for metric in SHOWN)]), table_line(["---"] * 5)]
        lines += [table_line([escaped(text) for text in row]) for row in cell_rows(check)]
        lines.append("")
    lines += [f"- {escaped(text)}" for text in (*not_compared(check), *facts(check), *LEGEND)]
    return "\n".join(lines) + "\n"


def cell_rows(check: Check) -> list[list[str]]:
    """A row a cell: attack, column, and the three metrics in words."""
    places: dict[tuple[str, str, str, str], dict[str, Ranged]] = {}
    for ranged in check.ranged:
        series = ranged.series
        places.setdefault((*series.block, series.attack, series.column), {})[ranged.metric] = ranged
    return [
        [*place[2:], *(range_text(found[metric]) if metric in found else "" for metric in SHOWN)]
        for place, found in places.items()
    ]


def check_json(check: Check) -> str:
    """All numbers unrounded."""
    content = {
        "sweep": check.ours.name,
        "reference": check.theirs.name,
        "verdict": check.verdict,
        "in_words": brief(check),
        "refused": check.refused,
        "cells": {
            "planned": check.ours.planned,
            "compared": check.compared,
            "with_a_kept_seed": len(check.repeated),
            "equal_to_the_last_digit": sum(cell.equal for cell in check.repeated),
        },
        "not_compared": [
            {**each.labels._asdict(), "differences": [vars(difference) for difference in each.differences]}
            for each in check.unpaired
        ],
        "facts": {
            side: {name: sorted(values) for name, values in runs.facts.items()}
            for side, runs in (("sweep", check.ours), ("reference", check.theirs))
        },
        "standing": None if check.standing is None else vars(check.standing),
        "columns": [_column(tested) for tested in check.tested],
        "ranges": [_ranged(ranged) for ranged in check.ranged],
        "runs": [vars(count) for count in check.counts],
        "repeated": [
            {**cell.labels._asdict(), "seed": cell.seed, "largest_difference": cell.largest} for cell in check.repeated
        ],
    }
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _column(tested: Tested) -> dict[str, Any]:
    average = tested.average
    return {
        **{name: getattr(average, name) for name in ("dataset", "model", "column", "metric", "new", "value")},
        "attacks": list(average.attacks),
        "kept": vars(average.kept),
        "expected": [tested.low, tested.high],
        "inside": tested.inside,
        "shift_seen_at_80_percent": tested.detectable,
    }


def _ranged(ranged: Ranged) -> dict[str, Any]:
    series = ranged.series
    return {
        **{name: getattr(series, name) for name in ("dataset", "model", "attack", "column")},
        "metric": ranged.metric,
        "new": list(ranged.ours),
        "kept": vars(ranged.kept),
        "range": [ranged.low, ranged.high],
        "outside": ranged.outside,
    }
