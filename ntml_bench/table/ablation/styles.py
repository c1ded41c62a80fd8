"""How the lines of a plot are told apart: by colour, and by marker where colours are lost."""

from dataclasses import dataclass
from typing import Any

from matplotlib import colormaps
from matplotlib.colors import to_hex

from ntml_bench.records.summary import NONE
from ntml_bench.table.ablation.lines import Line, Plot
from ntml_bench.table.ablation.settings import short

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, without the yellow that is lost on white: told apart with every kind of colour blindness."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
SCALE = colormaps["viridis"]
"""For the values of a second setting that are numbers: darker is less, in grey print too."""
INK, QUIET = "#1c1c1e", "#5f6368"
DASHES, DOTS = (0, (5, 2.5)), (0, (1, 1.6))
NAMES = {"floor": "floor (clean model)", NONE: "none (undefended)"}


@dataclass(frozen=True)
class Style:
    colour: str
    marker: str
    dashes: Any

    @property
    def drawn(self) -> dict[str, Any]:
        """What matplotlib is told."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dashes, "linewidth": 1.5, "markersize": 5.5}


def label_of(line: Line, plot: Plot) -> str:
    """The line's name in the legend."""
    if line.kind == "defense":
        return line.name if plot.second is None else _of(plot.second.name, line.second)
    return NAMES[line.name] + ("" if plot.second is None or line.second is None else f", {_of(plot.second.name, line.second)}")


def styles_of(plot: Plot) -> dict[str, Style]:
    """A style for each label, in the order of the legend."""
    lines = {label_of(line, plot): line for panel in plot.panels for line in panel.lines}
    defended = [label for label, line in lines.items() if line.kind == "defense"]
    if plot.second is not None:
        order = {_of(plot.second.name, value): index for index, value in enumerate(plot.second.values)}
        defended.sort(key=order.__getitem__)
    styles = {}
    for index, label in enumerate(defended):
        styles[label] = Style(_colour(index, len(defended), plot), MARKERS[index % len(MARKERS)], "-")
    for label, line in lines.items():
        if line.kind != "defense":
            # A reference that is not the same at all values of the second setting has the colour of its value.
            same = styles.get(_of(plot.second.name, line.second)) if plot.second else None
            colour = same.colour if same else INK if line.kind == "undefended" else QUIET
            styles[label] = Style(colour, "", DASHES if line.kind == "undefended" else DOTS)
    return styles


def _of(name: str, value: str | None) -> str:
    return f"{name}={short(value or '')}"


def _colour(index: int, count: int, plot: Plot) -> str:
    if plot.second is not None and plot.second.numbers is not None:
        return to_hex(SCALE(0.85 * index / max(1, count - 1)))
    return COLOURS[index % len(COLOURS)]
