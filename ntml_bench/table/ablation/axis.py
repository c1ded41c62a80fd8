"""Where the values of a setting stand on its axis, and which of them get a label."""

from dataclasses import dataclass
from math import exp, log
from typing import Literal

from ntml_bench.table.ablation.settings import Setting, short

LABEL = 0.022
"""Share of the axis that one letter of a label takes, its margin included."""
SPARE = 0.05
"""Share of the axis before the first value and behind the last."""


@dataclass(frozen=True)
class Axis:
    """`positions` by value; `labels` for those values that have room for one."""

    kind: Literal["linear", "log", "categories"]
    positions: dict[str, float]
    limits: tuple[float, float]
    labels: dict[str, str]


def axis_of(setting: Setting) -> Axis:
    """`linear` or `log` for numbers, `categories` at equal distances for everything else."""
    numbers = setting.numbers
    if numbers is None:
        positions = {text: float(index) for index, text in enumerate(setting.values)}
        return Axis("categories", positions, (-0.5, len(positions) - 0.5), {text: text for text in setting.values})
    positions = dict(zip(setting.values, numbers, strict=True))
    places = [log(number) for number in numbers] if setting.logarithmic else list(numbers)
    low = min(places)
    # Where values are all but equal there is room around them all the same.
    span = max(max(places) - low, 1e-9 * max(map(abs, places))) or 1.0
    shares = [(place - low) / span for place in places]
    ends = low - SPARE * span, low + (1 + SPARE) * span
    labels: dict[str, str] = {}
    free = -1.0
    for value, share in zip(setting.values, shares, strict=True):
        text = short(value, 4)
        half = LABEL * (len(text) + 1) / 2
        if share - half >= free:
            labels[value] = text
            free = share + half
    if setting.logarithmic:
        return Axis("log", positions, (exp(ends[0]), exp(ends[1])), labels)
    return Axis("linear", positions, ends, labels)
