"""What every rendering says of defenses that were tuned at a price."""

from collections.abc import Iterable, Sequence

from ntml_bench.records.cells import Cell
from ntml_bench.records.labels import TUNING, flat_settings, option_of
from ntml_bench.records.summary import NONE

READING = (
    "A curve goes from the undefended model through the strengths of a defense, weak to strong, and better is further down,"
    " where less is left of the attack, and further to the left, where less clean accuracy is lost; a ring is what is taken at"
    " a price, each seed at the strength that it affords, so that it may lie beside the curve, and a curve that leaves its"
    " panel goes on to strengths that lose more."
)
"""How the figure of the curves is read."""


def is_tuned(cell: Cell) -> bool:
    """Whether it was planned to be, done or not."""
    return flat_settings(cell.settings).get(TUNING) == "price"


def all_tuned(cells: Iterable[Cell]) -> bool:
    """Whether there are defenses, and all of them are tuned."""
    defended = [cell for cell in cells if option_of(cell.defense) != NONE]
    return bool(defended) and all(map(is_tuned, defended))


def tuning_lines(cells: Iterable[Cell]) -> list[str]:
    """How the strengths were chosen, and how often there was nothing to choose; nothing where no cell was tuned."""
    tuned = [cell for cell in cells if is_tuned(cell)]
    if not tuned:
        return []
    settings = [flat_settings(cell.settings) for cell in tuned]
    prices, shares = (
        " or ".join(dict.fromkeys(values.get(f"defense.{name}", "unknown") for values in settings))
        for name in ("price", "validation_share")
    )
    choices = [cell.tuning for cell in tuned if cell.tuning is not None]
    images = _range([choice.validation_images for choice in choices])
    kept = sum(choice.chosen is None for choice in choices)
    return [
        f"Tuned at a price of {prices} points: such a defense is taken at the strongest of its strengths whose accuracy on"
        f" {images}validation images (a share of {shares} of the clean budget, on which it does not train) has fallen by no"
        " more than the price and one standard error of that fall; nothing else is looked at. No strength was affordable in"
        f" {kept} of {len(choices)} cells, which keep the model as it was."
    ]


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    return f"{low} " if low == high else f"{low} to {high} "
