"""What a defense costs and what it buys: clean accuracy against attack success, an arrow a cell from before to after."""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ntml_bench.figures.canvas import DOUBLE, LINE, SINGLE, SIZE, SMALL, Canvas, Key, Mark, flowed
from ntml_bench.figures.colours import ACCENT, QUIET, RULE
from ntml_bench.figures.marks import BEFORE, marks_of
from ntml_bench.figures.text import shortened
from ntml_bench.records.labels import option_of
from ntml_bench.records.summary import NONE, Block, Entry, Row
from ntml_bench.report.figures.drawing import Drawing
from ntml_bench.report.figures.places import Place

ACC, ASR = "clean_accuracy", "attack_success_rate"
LEFT, RIGHT, HEAD, DOWN = 0.42, 0.08, 0.26, 0.26
LEAST_SPAN = 10.0
"""Percent of accuracy that the axis covers at least: the noise of a few images shall not look like an effect."""
FLOOR: Mark = BEFORE | {"marker": "d", "markeredgecolor": QUIET}
"""Hollow, as the model before: no defense made them."""


def planes(place: Place) -> Iterator[Drawing]:
    """One figure, a panel an attack; none where no attack has a cell that is done."""
    block = place.block
    rows = [row for row in block.rows if option_of(row.attack) != NONE and _point(row.undefended)]
    if rows:
        yield Drawing(
            name=place.new_name("plane"),
            kind="plane",
            dataset=block.dataset,
            model=block.model,
            title=f"Clean accuracy against attack success, before and after each defense{place.where}",
            alt=_alt(block, rows),
            draw=lambda: _figure(block, rows),
        )


def _point(entry: Entry) -> tuple[float, float] | None:
    """(ASR, ACC), means over the seeds that are done."""
    across, up = entry.mean(ASR), entry.mean(ACC)
    return None if across is None or up is None else (across, up)


def _figure(block: Block, rows: Sequence[Row]) -> Figure:
    columns = len(rows) if len(rows) <= 4 else 3 if len(rows) in (5, 6, 9) else 4
    lines = ceil(len(rows) / columns)
    width = SINGLE if columns == 1 else DOUBLE
    across = (width - LEFT - RIGHT * columns) / columns
    down = min(1.75, across)
    marks = {
        defense: mark
        for defense, mark in marks_of(block.defenses).items()
        if any(_point(row.defenses[defense]) for row in rows)
    }
    keys = [Key(BEFORE, "before any defense")]
    if any(_point(row.floor) for row in rows):
        keys.append(Key(FLOOR, "floor: a clean model"))
    legend = flowed([*keys, *(Key(mark, defense) for defense, mark in marks.items())], width - 0.1)
    bottom = 0.22 + lines * (HEAD + down) + 0.36
    canvas = Canvas(width, bottom + LINE * len(legend) + 0.04)
    canvas.sheet.annotate("", (0.05, 0.05), (0.16, 0.16), arrowprops=_arrow(ACCENT))
    canvas.write(0.21, 0.14, "better: towards the upper left, accurate and rid of the backdoor", size=SMALL, colour=QUIET)
    limits = _limits(block, rows)
    for index, row in enumerate(rows):
        line, column = divmod(index, columns)
        left, top = LEFT + column * (across + RIGHT), 0.22 + line * (HEAD + down) + HEAD
        canvas.write(left, top - 0.06, shortened(row.attack, SIZE, across, "bold"), weight="bold")
        axes = canvas.panel(left, top, across, down)
        axes.set(xlim=(-4, 104), ylim=limits, xticks=[0, 25, 50, 75, 100])
        _draw(axes, row, marks)
        lowest = index + columns >= len(rows)
        axes.tick_params(labelsize=SMALL, labelleft=column == 0, labelbottom=lowest)
    canvas.write(LEFT + (width - LEFT - RIGHT) / 2, bottom - 0.1, "attack success rate, ASR (%)", across="center")
    canvas.write(0.11, 0.22 + (bottom - 0.36) / 2, "clean accuracy, ACC (%)", across="center", turned=True)
    canvas.legend(0.06, bottom, legend)
    return canvas.figure


def _draw(axes: Axes, row: Row, marks: dict[str, Mark]) -> None:
    axes.grid(color=RULE, linewidth=0.4)
    start = _point(row.undefended)
    assert start is not None
    ends = {defense: end for defense in marks if (end := _point(row.defenses[defense]))}
    for defense, end in ends.items():
        axes.annotate("", end, start, arrowprops=_arrow(marks[defense]["color"], ends=3.0), annotation_clip=False)
    if floor := _point(row.floor):
        axes.plot(*floor, **FLOOR, clip_on=False)
    for defense, end in ends.items():
        axes.plot(*end, **marks[defense], clip_on=False)
    axes.plot(*start, **BEFORE, clip_on=False)


def _arrow(colour: str, ends: float = 0.0) -> dict[str, Any]:
    style = {"arrowstyle": "-|>", "mutation_scale": 5, "linewidth": 0.8, "alpha": 0.85}
    return {**style, "color": colour, "shrinkA": ends, "shrinkB": ends}


def _limits(block: Block, rows: Sequence[Row]) -> tuple[float, float]:
    """Of all panels, so that they can be compared."""
    entries = [entry for row in rows for entry in (row.undefended, row.floor, *map(row.defenses.__getitem__, block.defenses))]
    reach = [point[1] for entry in entries if (point := _point(entry))]
    low, high = min(reach), max(reach)
    spare = max(LEAST_SPAN - (high - low), 0.16 * (high - low)) / 2
    return low - spare, high + spare


def _alt(block: Block, rows: Sequence[Row]) -> str:
    def text(entry: Entry) -> str:
        across, up = _point(entry) or (0.0, 0.0)
        return f"ACC {up:.1f}, ASR {across:.1f}"

    parts = []
    for row in rows:
        best = f"; after {row.best}, the best by DER, {text(row.defenses[row.best])}" if row.best else ""
        parts.append(f"{row.attack}: {text(row.undefended)} before{best}")
    seeds = "a single run" if len(block.seeds) == 1 else f"means over {len(block.seeds)} seeds"
    return (
        "An arrow for each defense from accuracy (upwards) and attack success (to the right) before it to those after it, "
        f"in percent, {seeds}. {'. '.join(parts)}."
    )
