"""A kept table as the index shows it, a line a data set and net: what it is, what came out, how and when it was made."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ntml_bench.records.labels import option_of
from ntml_bench.records.scatter import NO_NUMBER, repeated
from ntml_bench.records.significance import rankings_of
from ntml_bench.records.significance_view import ranked_rows
from ntml_bench.records.summary import METRICS, NONE, Block, Entry, Row
from ntml_bench.records.view import Column, Shown, columns_of, counted, shown_row, split_label
from ntml_bench.report.data import Report, ReportCell
from ntml_bench.report.made import moment_of

RATING = "defense_effectiveness_rating"
BEFORE_DEFENSES = 2
"""Columns of a table before its defenses: floor and undefended."""


@dataclass(frozen=True)
class Number:
    """`value` is None where there is no number."""

    text: str
    value: float | None


@dataclass(frozen=True)
class Standing:
    """A defense within its table. `place`: 1 is the highest mean DER; empty where it is not done, so that it has none.

    `numbers`: by metric; `best`: the highest DER, or not distinguishable from it; `rank`: the mean rank by DER, with three
    seeds or more.
    """

    place: str
    column: Column
    numbers: Mapping[str, Shown] = field(hash=False)
    rating: float | None
    rank: str
    best: bool

    @property
    def shown(self) -> Shown:
        """Its DER."""
        return self.numbers[RATING]


@dataclass(frozen=True)
class Line:
    """A block of a table. `page`: its report, seen from the index; `where`: its folder, where another has the same name.

    `scatter`: why it has no intervals, where it has none; `computed`: device and precision in words, `machines`: which ones,
    both the most frequent first; `finished`: when its newest record was.
    """

    id: str
    name: str
    where: str
    page: str
    dataset: tuple[str, tuple[str, ...]]
    model: tuple[str, tuple[str, ...]]
    attacks: int
    defenses: int
    seeds: tuple[int, ...]
    accuracy: Number
    success: Number
    standings: tuple[Standing, ...]
    scatter: str
    computed: tuple[str, ...]
    machines: tuple[str, ...]
    versions: tuple[str, ...]
    finished: datetime | None
    done: int
    planned: int

    @property
    def best(self) -> tuple[Standing, ...]:
        """The defense of the highest DER, and those that are not distinguishable from it."""
        return tuple(standing for standing in self.standings if standing.best)


def lines_of(report: Report, page: str, where: str, first: int) -> list[Line]:
    """A line a block; `first`: the number of lines that the index has already."""
    return [_line(report, block, page, where, f"ranking-{first + index}") for index, block in enumerate(report.summary.blocks)]


def _line(report: Report, block: Block, page: str, where: str, identity: str) -> Line:
    cells = [entry for entry in report.cells if (entry.cell.dataset, entry.cell.model) == (block.dataset, block.model)]
    records = [entry.record for entry in cells if entry.record is not None]
    environments = [record.get("environment") or {} for record in records]
    moments = [found for made in environments if (found := moment_of(str(made.get("finished")))) is not None]
    attacked = [row for row in block.rows if option_of(row.attack) != NONE]
    # Averages where there are several attacks; a lone one stands for itself.
    row, average = (block.average, True) if block.average else (attacked[0] if attacked else None, False)
    return Line(
        id=identity,
        name=report.summary.sweep,
        where=where,
        page=page,
        dataset=split_label(block.dataset),
        model=split_label(block.model),
        attacks=len(attacked),
        defenses=len(block.defenses),
        seeds=block.seeds,
        accuracy=_number(row, "clean_accuracy"),
        success=_number(row, "attack_success_rate"),
        standings=() if row is None else tuple(_standings(block, row, cells, average=average)),
        scatter=_scatter(block),
        computed=_frequent(entry.cell.computed for entry in cells),
        machines=_frequent(_machine(made) for made in environments),
        versions=_versions(records),
        finished=max(moments, default=None),
        done=sum(entry.cell.state == "done" for entry in cells),
        planned=len(cells),
    )


def _number(row: Row | None, metric: str) -> Number:
    """Of the undefended models."""
    value = row.undefended.mean(metric) if row else None
    return Number(NO_NUMBER if value is None else f"{value:.1f}", value)


def _standings(block: Block, row: Row, cells: Iterable[ReportCell], *, average: bool) -> Iterable[Standing]:
    """The highest DER first, as `best_defense` orders them; those that are not done come last, in the order of the table."""
    shown = {metric: shown_row(row, (metric,), average=average)[BEFORE_DEFENSES:] for metric in METRICS}
    ranks = {
        name: rank
        for ranking in rankings_of(block, [entry.cell for entry in cells])
        if ranking.metric == RATING
        for name, rank, _ in ranked_rows(ranking)
    }

    def order(position: int) -> tuple[bool, float, float, int]:
        entry = entries[position]
        rated = _rated(entry)
        return rated is None, -(rated or 0), -(entry.mean("clean_accuracy") or 0), position

    names, entries = list(row.defenses), list(row.defenses.values())
    columns = columns_of(block)[BEFORE_DEFENSES:]
    for place, position in enumerate(sorted(range(len(entries)), key=order), start=1):
        rating = _rated(entries[position])
        yield Standing(
            place="" if rating is None else str(place),
            column=columns[position],
            numbers={metric: found[position] for metric, found in shown.items()},
            rating=rating,
            rank=ranks.get(names[position], ""),
            best=row.leads(names[position]),
        )


def _rated(entry: Entry) -> float | None:
    return entry.mean(RATING) if entry.complete else None


def _scatter(block: Block) -> str:
    """What is missing for intervals, if anything is."""
    if repeated(block):
        return ""
    return "single run" if len(block.seeds) == 1 else f"{counted(len(block.seeds), 'seed')}, no interval"


def _frequent(words: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(word for word, _ in Counter(word for word in words if word).most_common())


def _machine(environment: Mapping[str, Any]) -> str | None:
    """The GPU, or the processor."""
    device = environment.get("device")
    found = environment.get("processor") if device in (None, "cpu") else device
    return None if found is None else str(found)


def _versions(records: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Of the package, and of the engine that its keys name; older records say less."""
    packages, engines = [], []
    for record in records:
        version = ((record.get("environment") or {}).get("packages") or {}).get("ntml-bench")
        engine = (record.get("code") or {}).get("engine")
        packages.append(None if version is None else str(version))
        engines.append(None if engine is None else f"engine {engine}")
    return (*_frequent(packages), *_frequent(engines))
