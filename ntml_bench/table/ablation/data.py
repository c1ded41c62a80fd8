"""An ablation as data: for each attack, the row of its table at each combination of the varying settings' values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ntml_bench.records.cells import Cell
from ntml_bench.records.labels import option_of
from ntml_bench.records.summary import NONE, Block, Summary, needs_of, row_of
from ntml_bench.table.ablation.settings import Setting, varying_settings

Values = tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One attack on one data set and model: `block` has a row for each of `steps`, the combinations of values."""

    attack: str
    steps: tuple[Values, ...]
    block: Block


@dataclass(frozen=True)
class Ablation:
    """What varies in a sweep, and its parts in grid order. `outside` counts cells that have no place in it."""

    summary: Summary
    settings: tuple[Setting, ...]
    parts: tuple[Part, ...]
    outside: int


def ablation_of(summary: Summary) -> Ablation | None:
    """The ablation that a sweep is, or None where no setting varies within its options."""
    settings, values = varying_settings(summary.cells)
    if not settings:
        return None
    by_part: dict[tuple[str, str, str], list[tuple[Values, Cell]]] = {}
    for cell, found in zip(summary.cells, values, strict=True):
        if found is not None:
            options = cell.options
            # Under the plain names, so that one defense is one column at all values.
            plain = replace(cell, **options._asdict())
            by_part.setdefault((options.dataset, options.model, options.attack), []).append((found, plain))
    order = [{text: position for position, text in enumerate(setting.values)} for setting in settings]
    parts = tuple(_part(*place, cells, order) for place, cells in by_part.items())
    return Ablation(summary, settings, parts, sum(found is None for found in values))


def _part(
    dataset: str, model: str, attack: str, cells: Sequence[tuple[Values, Cell]], order: Sequence[Mapping[str, int]]
) -> Part:
    everything = [cell for _, cell in cells]
    defenses = tuple(dict.fromkeys(cell.defense for cell in everything if option_of(cell.defense) != NONE))
    steps = sorted(
        {values for values, _ in cells}, key=lambda values: [ranks[text] for ranks, text in zip(order, values, strict=True)]
    )
    rows = [row_of(attack, [cell for values, cell in cells if values == step], defenses) for step in steps]
    if len(defenses) == 1:
        rows = [replace(row, best=None) for row in rows]  # the best of one says nothing
    seeds = tuple(sorted({cell.seed for cell in everything}))
    needs = needs_of(everything, defenses)
    return Part(attack, tuple(steps), Block(dataset, model, seeds, defenses, needs, tuple(rows), None))
