"""What the figure of the confidences shows, as data: a strip a model, in the order in which they stand below each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ntml_bench.records.labels import option_of
from ntml_bench.records.summary import NONE
from ntml_bench.report.data import Exhibit, ReportCell

QUANTILES = (5, 25, 50, 75, 95)
BEFORE = "before any defense"


@dataclass(frozen=True)
class Strip:
    """The mean probability of the true class in percent, and its quantiles where the single images are at hand."""

    label: str
    kind: Literal["before", "after", "stage"]
    """`stage`: a model between the stages of the defense above it."""
    mean: float
    quantiles: tuple[float, ...] | None


def strips_of(cells: Sequence[ReportCell]) -> list[Strip]:
    """Of one attack and seed: the model before, then each defense with the models between its stages below it."""
    # The model before is the same for all defenses; one that has its images at hand says more.
    first = next((cell for cell in cells if cell.before), cells[0])
    strips = list(_strip(BEFORE, "before", first.cell.before.true_class_probability, first.before))
    for entry in cells:
        cell = entry.cell
        if option_of(cell.defense) != NONE:
            strips += _strip(cell.defense, "after", cell.after.true_class_probability, entry.after)
            for stage, metrics in cell.stages.items():
                strips += _strip(stage, "stage", metrics.true_class_probability, None)
    return strips


def floor_of(cells: Sequence[ReportCell]) -> float | None:
    """The mean of the clean model."""
    return next((found for entry in cells if (found := entry.cell.floor.true_class_probability) is not None), None)


def _strip(
    label: str, kind: Literal["before", "after", "stage"], mean: float | None, exhibit: Exhibit | None
) -> Iterator[Strip]:
    if mean is not None:
        values = exhibit.true_class_probability if exhibit else np.empty(0)
        quantiles = tuple(float(value) for value in np.percentile(values, QUANTILES)) if len(values) else None
        yield Strip(label, kind, mean, quantiles)
