"""The numbers of both sides, column by column of the table: floor, undefended model, defenses."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ntml_bench.records.against.pairing import Pair
from ntml_bench.records.cells import Cell, Metrics
from ntml_bench.records.labels import option_of
from ntml_bench.records.summary import NONE

FLOOR = "floor"


@dataclass(frozen=True)
class Series:
    """A place of the table, by seed. `kept` leaves out the seeds that `ours` has: a repetition is no independent check.

    `test_images`: how many the numbers are shares of, at least; None where that was not written down.
    """

    dataset: str
    model: str
    attack: str
    column: str
    ours: Mapping[int, Metrics]
    kept: Mapping[int, Metrics]
    test_images: int | None

    @property
    def block(self) -> tuple[str, str]:
        return self.dataset, self.model


def series_of(pairs: Sequence[Pair]) -> list[Series]:
    """In the order of the table, the floor and the undefended model of each attack first; only what is done on both sides."""
    rows = dict.fromkeys((pair.ours.labels.dataset, pair.ours.labels.model, pair.ours.labels.attack) for pair in pairs)
    ours_seeds = {row: {seed for pair in _of(pairs, row) for seed in pair.ours.runs} for row in rows}
    found = []
    for row in rows:
        inside = _of(pairs, row)
        # Every cell of a row measured the model before any defense, and the floor.
        columns: list[tuple[str, list[Pair], Callable[[Cell], Metrics]]] = [
            (FLOOR, inside, lambda cell: cell.floor),
            (NONE, inside, lambda cell: cell.before),
        ]
        columns += [
            (pair.ours.labels.defense, [pair], lambda cell: cell.after)
            for pair in inside
            if option_of(pair.ours.labels.defense) != NONE
        ]
        for name, chosen, metrics in columns:
            ours = _by_seed((pair.ours.runs for pair in chosen), metrics)
            kept = _by_seed((pair.theirs.runs for pair in chosen), metrics)
            kept = {seed: value for seed, value in kept.items() if seed not in ours_seeds[row]}
            if ours:
                images = [cell.test_images for pair in chosen for cell in pair.ours.runs.values() if cell.test_images]
                found.append(Series(*row, name, ours, kept, min(images, default=None)))
    return found


def _of(pairs: Sequence[Pair], row: tuple[str, str, str]) -> list[Pair]:
    return [pair for pair in pairs if pair.ours.labels[:3] == row]


def _by_seed(runs: Iterable[Mapping[int, Cell]], metrics: Callable[[Cell], Metrics]) -> dict[int, Metrics]:
    found: dict[int, Metrics] = {}
    for cells in runs:
        for seed, cell in cells.items():
            if metrics(cell).clean_accuracy is not None:
                found.setdefault(seed, metrics(cell))
    return found
