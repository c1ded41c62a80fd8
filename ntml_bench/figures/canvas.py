"""A sheet in inches, from its upper left corner, to place panels, words and marks on.

The object interface of matplotlib: no pyplot, hence no global state and no display.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ntml_bench.figures.colours import INK, QUIET
from ntml_bench.figures.text import clean, shortened, width_of

SINGLE, DOUBLE = 3.35, 7.0
"""Inches: a column of a two-column paper, and both."""
SIZE, SMALL = 7.0, 6.0
LINE = 0.135
"""Between two lines of text."""
MARK, GAP = 0.22, 0.16
"""The width of a legend's mark, and what is between two entries."""


Mark = dict[str, Any]
"""A mark or line as matplotlib is told it."""


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    mark: Mark
    meaning: str


class Canvas:
    """`figure` is what was placed on it so far."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))
        FigureCanvasAgg(self.figure)
        self.sheet = self.figure.add_axes((0, 0, 1, 1))
        self.sheet.set(xlim=(0, width), ylim=(height, 0))
        self.sheet.set_axis_off()

    def panel(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes whose frame is that rectangle."""
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(place)
        axes.patch.set_visible(False)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        return axes

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = SIZE,
        colour: str = INK,
        weight: str = "normal",
        across: str = "left",
        up: str = "baseline",
        turned: bool = False,
    ) -> None:
        """Text at that place; `turned` is read from below."""
        more: dict[str, Any] = {"rotation": 90, "rotation_mode": "anchor"} if turned else {}
        self.sheet.text(x, y, clean(text), fontsize=size, color=colour, fontweight=weight, ha=across, va=up, **more)

    def picture(self, left: float, top: float, width: float, height: float, pixels: NDArray[np.uint8], smooth: str) -> None:
        """Pixels uint8 [height, width, 3] in that rectangle."""
        edges = (left, left + width, top + height, top)
        self.sheet.imshow(pixels, extent=edges, aspect="auto", interpolation=smooth).set_clip_path(None)

    def head(self, y: float, name: str, more: str, left: float = 0.04) -> None:
        """A line that says what the figure shows: the name in bold, the rest beside it."""
        rest = width_of(more, SMALL)
        name = shortened(name, SIZE, self.width - 2 * left - rest - 0.1, "bold")
        self.write(left, y, name, weight="bold")
        self.write(left + width_of(name, SIZE, "bold") + 0.08, y, more, size=SMALL, colour=QUIET)

    def legend(self, left: float, top: float, lines: Sequence[Sequence[Key]]) -> None:
        """The keys as `flowed` put them on lines."""
        for row, line in enumerate(lines):
            x, y = left, top + LINE * (row + 0.5)
            for key in line:
                if "marker" in key.mark:
                    self.sheet.plot([x + MARK / 2], [y], **key.mark)
                else:
                    self.sheet.plot([x, x + MARK - 0.03], [y, y], **key.mark)
                self.write(x + MARK, y, key.meaning, size=SMALL, up="center_baseline")
                x += _width(key)


def flowed(keys: Sequence[Key], width: float) -> list[list[Key]]:
    """The keys on as many lines of that width as they need."""
    lines: list[list[Key]] = []
    left = 0.0
    for key in keys:
        entry = Key(key.mark, shortened(key.meaning, SMALL, width - MARK))
        if not lines or left < _width(entry) - GAP:
            lines.append([])
            left = width
        lines[-1].append(entry)
        left -= _width(entry)
    return lines


def _width(key: Key) -> float:
    return MARK + width_of(key.meaning, SMALL) + GAP
