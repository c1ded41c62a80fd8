"""What defenses do at each of their strengths: attack success over clean accuracy lost, for each attack.

Cells that were tuned at several prices chose among the same candidates, so that each of these counts once a seed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ntml_bench.records.cells import Cell
from ntml_bench.records.labels import option_of
from ntml_bench.records.numbers import Metrics
from ntml_bench.records.statistic import Statistic, statistic
from ntml_bench.records.summary import NONE, Block, Summary
from ntml_bench.records.tuned import Choice, Value

PRICE = "price="


@dataclass(frozen=True)
class Run:
    """One seed: the strengths of a defense, the model `before` it, and by price the value that was taken (None: none)."""

    seed: int
    before: Metrics
    choice: Choice
    taken: Mapping[float, Value | None]


@dataclass(frozen=True)
class Point:
    """What a defense did, over seeds, on the test set: points of ACC lost, ASR, RA. None: the metric has no meaning."""

    lost: Statistic
    attack_success_rate: Statistic | None
    robust_accuracy: Statistic | None


@dataclass(frozen=True)
class Curve:
    """One defense under one attack. `defense`: its label without the price."""

    dataset: str
    model: str
    attack: str
    defense: str
    runs: tuple[Run, ...]

    @property
    def setting(self) -> str:
        return self.runs[0].choice.setting

    @property
    def prices(self) -> tuple[float, ...]:
        """Ascending."""
        return tuple(sorted({price for run in self.runs for price in run.taken}))

    @property
    def start(self) -> Point:
        """The undefended model."""
        return _point((run.before, run.before) for run in self.runs)

    @property
    def points(self) -> dict[Value, Point]:
        """By strength, from weak to strong."""
        values = dict.fromkeys(found.value for run in self.runs for found in run.choice.candidates)
        return {
            value: _point((run.before, after_of(run, value)) for run in self.runs if value in _values(run)) for value in values
        }

    @property
    def taken(self) -> dict[float, Point]:
        """By price what was taken, each seed at the strength that it affords."""
        return {
            price: _point((run.before, after_of(run, run.taken[price])) for run in self.runs if price in run.taken)
            for price in self.prices
        }


def curves_of(summary: Summary, block: Block) -> list[Curve]:
    """The curves of a block in the order of its table; none where no cell that is done was tuned."""
    runs: dict[tuple[str, str], dict[int, list[Cell]]] = {}
    for cell in summary.cells_of(block):
        if cell.tuning is not None and cell.before.clean_accuracy is not None:
            runs.setdefault((cell.attack, unpriced(cell.defense)), {}).setdefault(cell.seed, []).append(cell)
    return [
        Curve(block.dataset, block.model, *place, tuple(_run(seed, by_seed[seed]) for seed in sorted(by_seed)))
        for place, by_seed in runs.items()
    ]


def attacked(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """Those that have an attack, by attack: what can be drawn."""
    found: dict[str, list[Curve]] = {}
    for curve in curves:
        if option_of(curve.attack) != NONE and curve.start.attack_success_rate is not None:
            found.setdefault(curve.attack, []).append(curve)
    return found


def unpriced(label: str) -> str:
    """The label of a defense without the price that tells it from itself at another."""
    kept = [text for text in _inside(label) if not text.startswith(PRICE)]
    return f"{option_of(label)} ({', '.join(kept)})" if kept else option_of(label)


def price_of(label: str) -> str | None:
    """The price that a label names, as text; None for one that names none, as in a sweep of a single price."""
    return next((text.removeprefix(PRICE) for text in _inside(label) if text.startswith(PRICE)), None)


def _inside(label: str) -> list[str]:
    text = label[len(option_of(label)) :].strip().removeprefix("(").removesuffix(")")
    return [part for part in text.split(", ") if part]


def after_of(run: Run, value: Value | None) -> Metrics:
    """The test metrics at a strength; of None those of the model before."""
    return next((found.after for found in run.choice.candidates if found.value == value), run.before)


def _run(seed: int, cells: Sequence[Cell]) -> Run:
    choices = [cell.tuning for cell in cells if cell.tuning is not None]
    return Run(seed, cells[0].before, choices[0], {choice.price: choice.chosen for choice in choices})


def _values(run: Run) -> list[Value]:
    return [found.value for found in run.choice.candidates]


def _point(models: Iterable[tuple[Metrics, Metrics]]) -> Point:
    pairs = list(models)
    lost = _statistic(
        None if before.clean_accuracy is None or after.clean_accuracy is None else before.clean_accuracy - after.clean_accuracy
        for before, after in pairs
    )
    assert lost is not None
    rates = ([getattr(after, name) for _, after in pairs] for name in ("attack_success_rate", "robust_accuracy"))
    return Point(lost, *map(_statistic, rates))


def _statistic(values: Iterable[float | None]) -> Statistic | None:
    return statistic([value for value in values if value is not None])
