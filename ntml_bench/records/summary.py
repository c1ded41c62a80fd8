"""The table as data: means over seeds, the best defense of a row, averages over attacks, floors, what is unfinished.

Nothing is formatted here. All numbers are percent, 0 to 100, but for counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ntml_bench.records.cells import Cell, Metrics, Sweep
from ntml_bench.records.labels import option_of, with_words
from ntml_bench.records.rates import rate_remark
from ntml_bench.records.rivals import rivals_of
from ntml_bench.records.statistic import Statistic, statistic

NONE = "none"
METRICS = ("clean_accuracy", "attack_success_rate", "robust_accuracy", "defense_effectiveness_rating")
RETUNED = "retuned_attack_success_rate"
"""Of models that were re-tuned on a few poisons; a metric of sweeps that ask for it."""
MEASURED = (*METRICS, RETUNED)


@dataclass(frozen=True)
class Entry:
    """One place of the table: its statistics by metric (None: no such number) and how far its seeds have come."""

    values: Mapping[str, Statistic | None]
    planned: int
    done: int
    running: int = 0
    failed: int = 0

    @property
    def complete(self) -> bool:
        return self.planned > 0 and self.done == self.planned

    @property
    def state(self) -> str:
        """`done`, `done 2 of 3`, `failed`, `running`, `missing`, or `` where the grid has no such cell."""
        if self.planned == 0 or self.complete:
            return "done" if self.planned else ""
        if self.done:
            return f"done {self.done} of {self.planned}"
        return "failed" if self.failed else "running" if self.running else "missing"

    def mean(self, metric: str) -> float | None:
        found = self.values.get(metric)
        return None if found is None else found.mean


@dataclass(frozen=True)
class Row:
    """One attack: the undefended model, the floor, and an entry a defense; `best` names the one of the highest rating, if any.

    `rivals`: those that the seeds do not tell apart from it, where there are three or more. `rate`: its poisoning rate in words
    where that is far from the publication's; what is shown of the row begins with `heading`, what is paired goes by `attack`.
    """

    attack: str
    undefended: Entry
    floor: Entry
    defenses: Mapping[str, Entry]
    best: str | None
    rivals: tuple[str, ...]
    rate: str = ""

    @property
    def heading(self) -> str:
        return with_words(self.attack, self.rate)

    def leads(self, name: str) -> bool:
        """Whether a defense is the best of the row, or is not told apart from it."""
        return name == self.best or name in self.rivals


@dataclass(frozen=True)
class Block:
    """One dataset and model. `average` is the row of averages over attacks (None with fewer than two attacks).

    In the row of averages `planned` and `done` of an entry count attacks instead of seeds.
    """

    dataset: str
    model: str
    seeds: tuple[int, ...]
    defenses: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]]
    rows: tuple[Row, ...]
    average: Row | None


@dataclass(frozen=True)
class Summary:
    """All that a rendering shows."""

    sweep: str
    cells: tuple[Cell, ...]
    blocks: tuple[Block, ...]
    objective: str | None = None
    """What was searched for, where the cells are the trials of a search."""

    def count(self, state: str) -> int:
        return sum(cell.state == state for cell in self.cells)

    def cells_of(self, block: Block) -> list[Cell]:
        return [cell for cell in self.cells if (cell.dataset, cell.model) == (block.dataset, block.model)]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that the sweep measured."""
        retuned = any(cell.retuned.attack_success_rate is not None for cell in self.cells)
        return MEASURED if retuned else METRICS

    @property
    def unfinished(self) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.state != "done")


def summarise(sweep: Sweep) -> Summary:
    """The table of a sweep; blocks, rows and columns in the order of the grid."""
    places = dict.fromkeys((cell.dataset, cell.model) for cell in sweep.cells)
    blocks = [_block(*place, [cell for cell in sweep.cells if (cell.dataset, cell.model) == place]) for place in places]
    return Summary(sweep.name, sweep.cells, tuple(blocks), sweep.objective)


def _block(dataset: str, model: str, cells: Sequence[Cell]) -> Block:
    defenses = tuple(dict.fromkeys(cell.defense for cell in cells if option_of(cell.defense) != NONE))
    needs = needs_of(cells, defenses)
    by_attack = {attack: [cell for cell in cells if cell.attack == attack] for attack in dict.fromkeys(c.attack for c in cells)}
    rows = tuple(row_of(attack, group, defenses) for attack, group in by_attack.items())
    real = {attack: group for attack, group in by_attack.items() if option_of(attack) != NONE}
    average = _average(real, [row for row in rows if row.attack in real], defenses) if len(real) > 1 else None
    return Block(dataset, model, tuple(sorted({cell.seed for cell in cells})), defenses, needs, rows, average)


def needs_of(cells: Sequence[Cell], defenses: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What each defense uses besides the model."""
    return {
        defense: tuple(dict.fromkeys(need for cell in cells if cell.defense == defense for need in cell.needs))
        for defense in defenses
    }


def row_of(attack: str, cells: Sequence[Cell], defenses: Sequence[str]) -> Row:
    """The row of an attack's cells."""
    entries = {name: _entry([cell for cell in cells if cell.defense == name], _after) for name in defenses}
    seeds = len({cell.seed for cell in cells})
    floors = _floors(cells)
    # The clean model may be one for all seeds, so a deviation over them would claim repetitions that there were not.
    means = {metric: found and Statistic(found.mean, None, found.n) for metric, found in _statistics(floors).items()}
    floor = Entry(means, len(floors), len(floors))
    best = best_defense(entries)
    rivals = rivals_of(best, _complete(entries), cells)
    return Row(attack, _undefended(cells, seeds), floor, entries, best, rivals, rate_remark(cells))


def _entry(cells: Sequence[Cell], numbers: Callable[[Cell], Mapping[str, float | None]]) -> Entry:
    done = [cell for cell in cells if cell.state == "done"]
    return Entry(
        _statistics([numbers(cell) for cell in done]),
        planned=len(cells),
        done=len(done),
        running=sum(cell.state == "running" for cell in cells),
        failed=sum(cell.state == "failed" for cell in cells),
    )


def _undefended(cells: Sequence[Cell], seeds: int) -> Entry:
    """The backdoored model itself: each defended cell measured it too, so the column stands without `defense=none`."""
    planned = [cell for cell in cells if option_of(cell.defense) == NONE]
    before = _first_by_seed(cells, lambda cell: cell.before)
    if len(before) == seeds or not planned:
        return Entry(_values(before.values()), seeds, len(before))
    entry = _entry(planned, _after)
    return Entry(_values(before.values()), seeds, len(before), entry.running, entry.failed)


def _first_by_seed(cells: Sequence[Cell], metrics: Callable[[Cell], Metrics]) -> dict[int, Metrics]:
    found: dict[int, Metrics] = {}
    for cell in cells:
        if cell.state == "done" and metrics(cell).clean_accuracy is not None:
            found.setdefault(cell.seed, metrics(cell))
    return found


def _floors(cells: Sequence[Cell]) -> list[dict[str, float | None]]:
    """Of each seed: the clean model under the trigger, and once it was re-tuned."""
    retuned = _first_by_seed(cells, lambda cell: cell.retuned_floor)
    return [
        {**_plain(found), RETUNED: retuned[seed].attack_success_rate if seed in retuned else None}
        for seed, found in _first_by_seed(cells, lambda cell: cell.floor).items()
    ]


def _plain(metrics: Metrics) -> dict[str, float | None]:
    return {metric: getattr(metrics, metric) for metric in METRICS[:3]}


def _after(cell: Cell) -> Mapping[str, float | None]:
    rating, retuned = cell.defense_effectiveness_rating, cell.retuned.attack_success_rate
    return {**_plain(cell.after), "defense_effectiveness_rating": rating, RETUNED: retuned}


def _values(metrics: Iterable[Metrics]) -> dict[str, Statistic | None]:
    return _statistics([_plain(entry) for entry in metrics])


def _statistics(numbers: Sequence[Mapping[str, float | None]]) -> dict[str, Statistic | None]:
    return {metric: statistic([value for entry in numbers if (value := entry.get(metric)) is not None]) for metric in MEASURED}


def best_defense(entries: Mapping[str, Entry]) -> str | None:
    """The complete entry of the highest mean DER; of equal ones that of higher ACC, then the one further left."""
    rated = [
        (rating, entry.mean("clean_accuracy") or 0.0, -position, name)
        for position, (name, entry) in enumerate(entries.items())
        if entry.complete and (rating := entry.mean("defense_effectiveness_rating")) is not None
    ]
    return max(rated)[3] if rated else None


def _complete(entries: Mapping[str, Entry]) -> list[str]:
    return [name for name, entry in entries.items() if entry.complete]


def _average(by_attack: Mapping[str, Sequence[Cell]], rows: Sequence[Row], defenses: Sequence[str]) -> Row:
    """Averages over attacks, of complete entries only.

    The deviation is that of the seeds' own averages, so it says how far a repetition of the whole column would land.
    """

    def column(
        pick: Callable[[Row], Entry], numbers: Callable[[Sequence[Cell]], dict[int, Mapping[str, float | None]]]
    ) -> Entry:
        complete = [row for row in rows if pick(row).complete]
        planned = len(rows) if any(pick(row).planned for row in rows) else 0
        by_seed = [numbers(by_attack[row.attack]) for row in complete]
        values = {metric: _average_of(metric, [pick(row) for row in complete], by_seed) for metric in MEASURED}
        return Entry(values, planned, len(complete))

    def of_defense(name: str) -> Entry:
        return column(
            lambda row: row.defenses[name],
            lambda cells: {cell.seed: _after(cell) for cell in cells if cell.defense == name and cell.state == "done"},
        )

    entries = {name: of_defense(name) for name in defenses}
    undefended = column(
        lambda row: row.undefended,
        lambda cells: {seed: _plain(found) for seed, found in _first_by_seed(cells, lambda cell: cell.before).items()},
    )
    floor = column(lambda row: row.floor, lambda cells: {})
    best = best_defense(entries)
    cells = [cell for group in by_attack.values() for cell in group]
    return Row("average", undefended, floor, entries, best, rivals_of(best, _complete(entries), cells))


def _average_of(
    metric: str, entries: Sequence[Entry], by_seed: Sequence[Mapping[int, Mapping[str, float | None]]]
) -> Statistic | None:
    means = [mean for entry in entries if (mean := entry.mean(metric)) is not None]
    # An average in which one attack lacks the number would be an average of something else.
    if not means or len(means) < len(entries):
        return None
    seeds = set(by_seed[0])
    if len(seeds) < 2 or any(set(entry) != seeds for entry in by_seed):
        return Statistic(fmean(means), None, min(len(entry) for entry in by_seed) if by_seed else 0)
    averages: list[float] = []
    for seed in sorted(seeds):
        values = [value for entry in by_seed if (value := entry[seed].get(metric)) is not None]
        if len(values) < len(by_seed):
            return Statistic(fmean(means), None, 1)
        averages.append(fmean(values))
    return statistic(averages)
