"""The table as the page shows it: for each place the numbers of all metrics, and what is said of it when it is pointed at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ntml_bench.records.cells import Cell
from ntml_bench.records.labels import option_of
from ntml_bench.records.published.comparison import Line
from ntml_bench.records.published.reference import COMPARED
from ntml_bench.records.summary import METRICS, NONE, RETUNED, Block, Entry, Row, Summary
from ntml_bench.records.view import (
    LEGEND,
    NO_NUMBER,
    SHORT,
    Column,
    Shown,
    columns_of,
    counted,
    heading_of,
    shown_row,
    split_label,
)
from ntml_bench.report.data import Report
from ntml_bench.report.heat import Scale, scale_of

BETTER = {
    "clean_accuracy": "higher is better",
    "attack_success_rate": "lower is better",
    "robust_accuracy": "higher is better",
    "defense_effectiveness_rating": "higher is better",
    RETUNED: "lower is better",
}

BEST, RIVAL = "best of the row (highest mean DER)", "not distinguishable from the best of the row"


@dataclass(frozen=True)
class Metric:
    """A metric that the table can be switched to; `key` is its name in classes and values of the page."""

    name: str

    @property
    def short(self) -> str:
        return SHORT[self.name]

    @property
    def key(self) -> str:
        return self.short.lower()

    @property
    def legend(self) -> str:
        return LEGEND[self.short]

    @property
    def better(self) -> str:
        return BETTER[self.name]


SHOWN_METRICS = tuple(Metric(name) for name in METRICS)


def metrics_of(summary: Summary) -> tuple[Metric, ...]:
    """Those that the page of a sweep can be switched to."""
    return tuple(Metric(name) for name in summary.metrics)


@dataclass(frozen=True)
class Number:
    """One metric in one place; `value` and `step` are None where there is no number."""

    metric: Metric
    text: str
    deviation: str
    interval: str
    unstable: bool
    value: float | None
    step: int | None
    undefended: str
    published: str


@dataclass(frozen=True)
class Place:
    """A cell of the table. `sources`: the sweep's cells behind it; `standing`: what `best` says of it;
    `verdict`: beside a published number, in words."""

    id: str
    kind: str
    attack: str
    defense: str
    column: str
    numbers: tuple[Number, ...]
    state: str
    basis: str
    note: str
    best: bool
    standing: str
    verdict: str
    sources: tuple[Cell, ...] = field(hash=False)

    @property
    def any_published(self) -> bool:
        return any(number.published for number in self.numbers)


@dataclass(frozen=True)
class GridRow:
    """An attack, or the average."""

    name: str
    settings: tuple[str, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Grid:
    """A block of the table."""

    number: int
    heading: str
    columns: tuple[Column, ...]
    scales: Mapping[str, Scale] = field(hash=False)
    rows: tuple[GridRow, ...]
    average: GridRow | None


def grids_of(report: Report) -> list[Grid]:
    """The blocks of the sweep's table, in its order."""
    return [_Builder(report, number, block).grid() for number, block in enumerate(report.summary.blocks)]


class _Builder:
    def __init__(self, report: Report, number: int, block: Block) -> None:
        self.number, self.block = number, block
        self.cells = report.summary.cells_of(block)
        self.columns = columns_of(block)
        self.metrics = metrics_of(report.summary)
        self.scales = {metric.name: scale_of(block, metric.name) for metric in self.metrics}
        self.lines: dict[tuple[str, str], Line] = {}
        if report.comparison:
            compared = report.comparison.blocks[number]
            self.lines = {(line.attack, line.defense): line for line in compared.lines}

    def grid(self) -> Grid:
        rows = tuple(self._row(row, f"{self.number}-{index}") for index, row in enumerate(self.block.rows))
        average = self.block.average
        return Grid(
            number=self.number,
            heading=heading_of(self.block),
            columns=tuple(self.columns),
            scales={metric.key: self.scales[metric.name] for metric in self.metrics},
            rows=rows,
            average=self._row(average, f"{self.number}-average", average=True) if average else None,
        )

    def _row(self, row: Row, identity: str, *, average: bool = False) -> GridRow:
        shown = {metric: shown_row(row, (metric.name,), average=average) for metric in self.metrics}
        entries = [row.floor, row.undefended, *row.defenses.values()]
        names = ["", NONE, *row.defenses]
        places = tuple(
            self._place(
                f"{identity}-{position}",
                row,
                (names[position], column, entry),
                {metric: texts[position] for metric, texts in shown.items()},
                average,
            )
            for position, (column, entry) in enumerate(zip(self.columns, entries, strict=True))
        )
        name, settings = split_label(row.heading)
        return GridRow(name, settings, places)

    def _place(
        self, identity: str, row: Row, where: tuple[str, Column, Entry], shown: Mapping[Metric, Shown], average: bool
    ) -> Place:
        name, column, entry = where
        line = None if average else self.lines.get((row.attack, name))
        first = next(iter(shown.values()))
        return Place(
            id=identity,
            kind=column.kind,
            attack=row.attack,
            defense=name,
            column=column.heading,
            numbers=tuple(self._number(metric, text, entry, row, line) for metric, text in shown.items()),
            state="" if entry.done else first.numbers,
            basis=_basis(entry, column, average),
            note=first.note,
            best=first.best,
            standing="best of the row (highest mean DER)"
            if name == row.best
            else "not distinguishable from the best of the row",
            verdict=_verdict(line),
            sources=() if average else self._sources(row.attack, name),
        )

    def _number(self, metric: Metric, shown: Shown, entry: Entry, row: Row, line: Line | None) -> Number:
        value = entry.mean(metric.name)
        undefended = row.undefended.mean(metric.name)
        return Number(
            metric=metric,
            text=shown.numbers if entry.done else NO_NUMBER,
            deviation=shown.deviations,
            interval=shown.intervals,
            unstable=shown.unstable,
            value=value,
            step=None if value is None else self.scales[metric.name].step(value),
            undefended=NO_NUMBER if undefended is None else f"{undefended:.1f}",
            published=_published(line, metric.name),
        )

    def _sources(self, attack: str, defense: str) -> tuple[Cell, ...]:
        def belongs(cell: Cell) -> bool:
            return option_of(cell.defense) == NONE if defense == NONE else cell.defense == defense

        return tuple(cell for cell in self.cells if cell.attack == attack and belongs(cell))


def _basis(entry: Entry, column: Column, average: bool) -> str:
    if not entry.done:
        return "no such cell in this sweep" if not entry.planned else f"{entry.planned} planned"
    if average:
        return f"mean over {counted(entry.done, 'attack')}" + ("" if entry.complete else f" of {entry.planned}")
    if column.kind == "floor":
        return "a clean model under the same trigger; mean only"
    if entry.planned == 1:
        return "a single run, no deviation"
    done = counted(entry.done, "seed") if entry.complete else f"{entry.done} of {entry.planned} seeds"
    return f"mean over {done}" + (" and sample standard deviation" if entry.done > 1 else "")


def _published(line: Line | None, metric: str) -> str:
    """`91.3 (+0.5)`: the published number, and ours less it."""
    if line is None or metric not in COMPARED or (value := line.published_value(metric)) is None:
        return ""
    difference = line.difference(metric)
    return f"{value:.1f}" + ("" if difference is None else f" ({difference:+.1f})")


def _verdict(line: Line | None) -> str:
    if line is None:
        return ""
    return f"{line.verdict}: {line.reason}" if line.reason else line.verdict


def summary_counts(summary: Summary) -> list[tuple[str, str]]:
    """What the sweep is made of, a line a dimension: its name, and the options with their number."""

    def options(values: Sequence[str]) -> str:
        return ", ".join(dict.fromkeys(values))

    cells = summary.cells
    attacks = dict.fromkeys(cell.attack for cell in cells if option_of(cell.attack) != NONE)
    defenses = dict.fromkeys(cell.defense for cell in cells if option_of(cell.defense) != NONE)
    return [
        ("data", options([cell.dataset for cell in cells])),
        ("model", options([cell.model for cell in cells])),
        ("attacks", str(len(attacks))),
        ("defenses", str(len(defenses))),
        ("seeds", options([str(seed) for seed in sorted({cell.seed for cell in cells})])),
    ]
