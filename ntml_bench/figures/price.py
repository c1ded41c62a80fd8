"""What clean accuracy buys: attack success over accuracy lost, a curve a defense through its strengths, a panel an attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntml_bench.figures.canvas import DOUBLE, LINE, SINGLE, SIZE, SMALL, Canvas, Key, Mark, flowed
from ntml_bench.figures.colours import QUIET, RULE
from ntml_bench.figures.marks import BEFORE, marks_of
from ntml_bench.figures.text import shortened
from ntml_bench.records.curves import Curve, Point
from ntml_bench.records.summary import Block

LEFT, RIGHT, HEAD, DOWN = 0.42, 0.1, 0.26, 0.2
LEAST_SPAN = 5.0
"""Points of accuracy that the axis covers at least: the noise of a few images shall not look like an effect."""
FAR = 25.0
"""Points; strengths that lose more would press all others into a corner, so that a curve leaves its panel on the way there."""
RINGS = (("o", 5.5), ("s", 7.0), ("D", 7.5), ("^", 11.0), ("v", 12.5))
"""Around what is taken at the first price, at the second, and so on, and their sizes: all are seen where they coincide."""
Place = tuple[float, float]


@dataclass(frozen=True)
class Panel:
    """The curves of one attack, which all have one."""

    title: str
    curves: tuple[Curve, ...]


def averaged(block: Block) -> str:
    """What a point of the block's curves is."""
    return "a single run" if len(block.seeds) == 1 else f"means over {len(block.seeds)} seeds"


def figure_of(panels: Sequence[Panel], about: str) -> Figure:
    """The figure in inches of a paper, to be drawn in `plain_style`; `about`: what it is of, for its head."""
    columns = 1 if len(panels) == 1 else 3 if len(panels) in (3, 5, 9) or len(panels) > 10 else 2
    lines = ceil(len(panels) / columns)
    width = SINGLE if columns == 1 else DOUBLE
    across = (width - LEFT - RIGHT * columns) / columns
    down = min(2.0, across)
    curves = [curve for panel in panels for curve in panel.curves]
    marks = marks_of(list(dict.fromkeys(curve.defense for curve in curves)))
    rings = _rings(sorted({price for curve in curves for price in curve.prices}))
    limits = _limits(curves)
    keys = [Key(BEFORE, "undefended"), *(Key(mark, name) for name, mark in marks.items())]
    small: Mark = {"markeredgecolor": QUIET, "markersize": 6}
    keys += [Key(ring | small, f"taken at a price of {price:g}") for price, ring in rings.items()]
    legend = flowed(keys, width - 0.1)
    bottom = 0.22 + lines * (HEAD + down + DOWN) + 0.2
    canvas = Canvas(width, bottom + LINE * len(legend) + 0.06)
    canvas.head(0.13, "ASR over ACC lost", shortened(about, SMALL, width - 1.4))
    for index, panel in enumerate(panels):
        line, column = divmod(index, columns)
        left, top = LEFT + column * (across + RIGHT), 0.22 + line * (HEAD + down + DOWN) + HEAD
        canvas.write(left, top - 0.08, shortened(panel.title, SIZE, across, "bold"), weight="bold")
        axes = canvas.panel(left, top, across, down)
        axes.set(xlim=limits, ylim=(-4, 104), yticks=[0, 25, 50, 75, 100])
        _draw(axes, panel, marks, rings)
        axes.tick_params(labelsize=SMALL, labelleft=column == 0)
    canvas.write(
        LEFT + (width - LEFT - RIGHT) / 2, bottom - 0.12, "clean accuracy lost on the test set (points)", across="center"
    )
    canvas.write(0.11, 0.22 + (bottom - 0.2) / 2, "attack success rate, ASR (%)", across="center", turned=True)
    canvas.legend(0.06, bottom, legend)
    return canvas.figure


def _rings(prices: Sequence[float]) -> dict[float, Mark]:
    plain: Mark = {"color": "none", "linestyle": "none", "markeredgewidth": 0.8}
    shapes = [RINGS[index % len(RINGS)] for index in range(len(prices))]
    return {price: plain | {"marker": marker, "markersize": size} for price, (marker, size) in zip(prices, shapes, strict=True)}


def _draw(axes: Axes, panel: Panel, marks: dict[str, Mark], rings: dict[float, Mark]) -> None:
    axes.grid(color=RULE, linewidth=0.4)
    axes.axvline(0, color=QUIET, linewidth=0.6)
    right = axes.get_xlim()[1]
    for curve in panel.curves:
        mark = marks[curve.defense]
        places = [place for point in (curve.start, *curve.points.values()) if (place := _place(point))]
        axes.plot(*_columns(_within(places, right)), color=mark["color"], linewidth=0.9, alpha=0.7, clip_on=False)
        shown = [place for place in places[1:] if place[0] <= right]
        small: Mark = {**mark, "markersize": 2.8}
        axes.plot(*_columns(shown), **small, clip_on=False)
    for curve in panel.curves:
        for price, point in curve.taken.items():
            if place := _place(point):
                ring: Mark = {**rings[price], "markeredgecolor": marks[curve.defense]["color"]}
                axes.plot(*place, **ring, clip_on=False)
    for curve in panel.curves:
        if start := _place(curve.start):
            axes.plot(*start, **BEFORE, clip_on=False)


def _place(point: Point) -> Place | None:
    """(ACC lost, ASR), means over seeds."""
    found = point.attack_success_rate
    return None if found is None else (point.lost.mean, found.mean)


def _columns(places: Sequence[Place]) -> tuple[list[float], list[float]]:
    return [across for across, _ in places], [up for _, up in places]


def _within(places: Sequence[Place], right: float) -> list[Place]:
    """The line up to where it first crosses the right edge."""
    line: list[Place] = []
    for place in places:
        if place[0] > right:
            if line:
                across, up = line[-1]
                share = (right - across) / (place[0] - across)
                line.append((right, up + share * (place[1] - up)))
            break
        line.append(place)
    return line


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Of all panels, so that they can be compared: all points that lose less than FAR, and all that are taken."""
    points = [point.lost.mean for curve in curves for point in curve.points.values()]
    taken = [point.lost.mean for curve in curves for point in curve.taken.values()]
    reach = [0.0, *taken, *(lost for lost in points if lost <= FAR)]
    low, high = min(reach), max(reach)
    spare = max(LEAST_SPAN - (high - low), 0.12 * (high - low)) / 2
    return low - spare, high + spare
