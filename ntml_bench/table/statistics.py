"""`statistics.md` and `statistics.json`: what several seeds say of the defenses. Fewer than three seeds: no such files."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from math import isfinite
from typing import Any

from ntml_bench.records.labels import option_of
from ntml_bench.records.scatter import interval_text
from ntml_bench.records.significance import Average, Ranking, Significance, significance_of
from ntml_bench.records.significance_view import (
    ABOUT_AVERAGES,
    ABOUT_RANKS,
    bootstrap_text,
    findings,
    heading_of_ranking,
    ranked_rows,
)
from ntml_bench.records.statistic import Statistic
from ntml_bench.records.summary import METRICS, NONE, Entry, Row, Summary
from ntml_bench.records.view import SHORT, heading_of, reconstructions
from ntml_bench.table.markdown import escaped, table_line

FILES = {"md": "statistics.md", "csv": "statistics.json"}
"""By the format of the table that they go with."""


def render_statistics(summary: Summary, formats: Iterable[str]) -> dict[str, bytes | None]:
    """The files of these formats; None for those of a sweep without seeds enough."""
    wanted = {name: file for name, file in FILES.items() if name in tuple(formats)}
    found = significance_of(summary) if wanted else []
    render = {"md": _markdown, "csv": _json}
    return {file: render[name](summary, found).encode() if found else None for name, file in wanted.items()}


def _markdown(summary: Summary, found: list[Significance]) -> str:
    lines = [f"# {escaped(summary.sweep)}: statistics", ""]
    for significance in found:
        lines += [f"## {escaped(heading_of(significance.block))}", ""]
        if significance.averages:
            lines += ["**Averages over attacks**", "", *_averages(significance), ""]
        for ranking in significance.rankings:
            lines += [f"**{escaped(heading_of_ranking(ranking))}**", "", *_ranking(ranking), ""]
    lines += [f"- {escaped(text)}" for text in (ABOUT_AVERAGES, ABOUT_RANKS, *reconstructions(summary))]
    return "\n".join(lines) + "\n"


def _averages(significance: Significance) -> list[str]:
    lines = [table_line(["defense", "metric", "attacks", "seeds", "mean", "deviation", "interval", "bootstrap"])]
    lines.append(table_line(["---", "---", *["---:"] * 6]))
    for average in significance.averages:
        statistic = average.statistic
        numbers = [f"{statistic.mean:.1f}", f"±{statistic.deviation or 0.0:.1f}", interval_text(statistic)]
        counts = [str(average.attacks), str(statistic.n)]
        names = [escaped(average.defense), SHORT[average.metric]]
        lines.append(table_line([*names, *counts, *numbers, bootstrap_text(average)]))
    return lines


def _ranking(ranking: Ranking) -> list[str]:
    lines = [table_line(["defense", "mean rank", f"p (Holm) against {escaped(ranking.best)}"]), "| --- | ---: | ---: |"]
    lines += [table_line([escaped(text) for text in row]) for row in ranked_rows(ranking)]
    return [*lines, "", *(f"- {escaped(text)}" for text in findings(ranking))]


def _json(summary: Summary, found: list[Significance]) -> str:
    content = {
        "sweep": summary.sweep,
        "blocks": [
            {
                "dataset": significance.block.dataset,
                "model": significance.block.model,
                "seeds": list(significance.block.seeds),
                "rows": [entry for row in significance.block.rows for entry in _entries(row)],
                "averages": [_average(average) for average in significance.averages],
                "rankings": [_plain(asdict(ranking)) for ranking in significance.rankings],
            }
            for significance in found
        ],
    }
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _entries(row: Row) -> list[dict[str, Any]]:
    columns: dict[str, Entry] = {NONE: row.undefended, **row.defenses}
    return [
        {
            "attack": row.attack,
            "defense": name,
            "metric": metric,
            "best_or_not_distinguishable": row.leads(name),
            **_numbers(statistic),
        }
        for name, entry in columns.items()
        if name == NONE or option_of(name) != NONE
        for metric in METRICS
        if (statistic := entry.values.get(metric)) is not None
    ]


def _average(average: Average) -> dict[str, Any]:
    about = {"defense": average.defense, "metric": average.metric, "attacks": average.attacks}
    return {**about, **_numbers(average.statistic), "bootstrap": list(average.bootstrap)}


def _numbers(statistic: Statistic) -> dict[str, Any]:
    interval = statistic.interval
    return {
        "mean": statistic.mean,
        "deviation": statistic.deviation,
        "seeds": statistic.n,
        "interval": None if interval is None else list(interval),
        "unstable": statistic.unstable,
    }


def _plain(value: Any) -> Any:
    """As JSON can have it: an infinite F, of blocks that all rank alike, is null."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not isfinite(value) else value
