"""What a report shows, as data: the table of a sweep, and what its cells left to look at."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntml_bench.records.against.check import Check
from ntml_bench.records.cells import Cell
from ntml_bench.records.published.comparison import Comparison
from ntml_bench.records.summary import Summary


@dataclass(frozen=True)
class Gallery:
    """Test images under the trigger of an attack.

    `clean`, `triggered`: uint8 [K, height, width, channels] with 1 or 3 channels; `classes`: their true classes by name.
    The distances are means over `images` test images of other classes than the target: PSNR in decibels (of those that are
    changed at all; infinite where none is), SSIM (at most 1; as published it looks at the inner part of an image, so that a
    trigger in a corner hardly counts), L-inf in steps of 255.
    """

    dataset: str
    attack: str
    """As the table labels it."""
    target: str | None
    """The name of the target class; None where each class has its own."""
    clean: NDArray[np.uint8]
    triggered: NDArray[np.uint8]
    classes: tuple[str, ...]
    images: int
    psnr: float
    ssim: float
    linf: float


@dataclass(frozen=True)
class Exhibit:
    """What one model makes of some clean test images (of all classes) and of triggered ones (of other classes than the target).

    The map, float32 [N, 2] and [M, 2], is a plane through the model's features (what its last layer reads): to the right is
    where clean images of the target class differ from the others, upwards is the largest spread of the clean ones besides.
    Where each class has its own target (`target_class` is None), both are the directions of the largest spread.
    `true_class_probability`: float32 [M], percent, of the triggered images.
    """

    clean_map: NDArray[np.float32]
    clean_labels: NDArray[np.int64]
    triggered_map: NDArray[np.float32]
    triggered_labels: NDArray[np.int64]
    true_class_probability: NDArray[np.float32]
    target_class: int | None


@dataclass(frozen=True)
class ReportCell:
    """A cell of the sweep; record and exhibits are None where it is not done, exhibits where the store has them no longer."""

    cell: Cell
    record: Mapping[str, Any] | None
    before: Exhibit | None
    after: Exhibit | None


@dataclass(frozen=True)
class Report:
    """All that the page and the figures are made from. Galleries: one a data set and attack, in the order of the grid."""

    summary: Summary
    comparison: Comparison | None
    """Beside published numbers, where there are any for these settings."""
    galleries: tuple[Gallery, ...]
    cells: tuple[ReportCell, ...]
    command: str | None
    """What made the sweep, as it was typed; None where that was not written down."""
    check: Check | None = None
    """Against a kept sweep, where that was asked for."""
