"""`table.png`: the table at a glance. Colour is the attack success rate, the numbers stand in the cells.

Drawn in inches on one canvas with the object interface: no pyplot, hence no global state and no display.
"""

from collections.abc import Sequence
from io import BytesIO
from textwrap import wrap

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ntml_bench.records.summary import Block, Row, Summary
from ntml_bench.records.view import (
    NO_NUMBER,
    Column,
    Sections,
    Shown,
    columns_of,
    heading_of,
    legend,
    shown_row,
    split_label,
    status,
    title_of,
)

CELL_WIDTH, CELL_HEIGHT = 1.36, 0.56
MARGIN, GAP, LINE = 0.35, 0.16, 0.17
DOTS_PER_INCH = 160
HEAT = colormaps["YlOrBr"]
"""One hue from pale to dark: readable with every kind of colour blindness and in grey print."""
INK, QUIET, EMPTY, BEST = "#1c1c1e", "#5f6368", "#eceef0", "#0b4fa8"


def render_png(summary: Summary, sections: Sections) -> bytes:
    """The image file; the cells show the first of the sections."""
    section = sections[0]
    label_width = max(0.9, 0.095 * max((len(_longest(row)) for block in summary.blocks for row in block.rows), default=0))
    columns = max((len(columns_of(block)) for block in summary.blocks), default=2)
    longest = max((len(heading_of(block)) for block in summary.blocks), default=0)
    width = max(2 * MARGIN + label_width + columns * CELL_WIDTH + 2 * GAP, 2 * MARGIN + 0.095 * longest, 7.5)
    notes = [line for text in [*legend(summary, sections[:1], "★"), ""] for line in wrap(text, int((width - 2 * MARGIN) * 16))]
    heights = [_height(block) for block in summary.blocks]
    height = MARGIN + 0.55 + sum(heights) + 0.62 + LINE * len(notes) + MARGIN / 2

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    _write(axes, MARGIN, MARGIN, summary.sweep, size=15, weight="bold", across="left")
    _write(axes, MARGIN, MARGIN + 0.28, status(summary), size=9, colour=QUIET, across="left")
    top = MARGIN + 0.55
    for block, block_height in zip(summary.blocks, heights, strict=True):
        _draw_block(axes, block, section, top, label_width)
        top += block_height
    _draw_scale(axes, MARGIN + label_width, top + 0.05)
    for index, line in enumerate(notes):
        _write(axes, MARGIN, top + 0.62 + LINE * index, line, size=8, colour=QUIET, across="left")
    file = BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _longest(row: Row) -> str:
    name, settings = split_label(row.heading)
    return max([name, *settings], key=len)


def _head_height(block: Block) -> float:
    return 0.42 + LINE * max(len(column.settings) + bool(column.needs) for column in columns_of(block))


def _height(block: Block) -> float:
    rows = len(block.rows) + (1 if block.average else 0)
    return _head_height(block) + 0.1 + rows * CELL_HEIGHT + (GAP if block.average else 0) + 0.35


def _draw_block(axes: Axes, block: Block, section: Sequence[str], top: float, label_width: float) -> None:
    columns = columns_of(block)
    # The floor and the undefended model stand apart from the defenses: they are what these are measured against.
    lefts = [MARGIN + label_width + index * CELL_WIDTH + GAP * min(index, 2) for index in range(len(columns))]
    _write(axes, MARGIN, top, heading_of(block), size=10, weight="bold", across="left")
    under_head = top + _head_height(block)
    _write(axes, MARGIN, under_head, title_of(section), size=9, colour=QUIET, across="left")
    for column, left in zip(columns, lefts, strict=True):
        _draw_head(axes, column, left + CELL_WIDTH / 2, under_head)
    upper = under_head + 0.1
    for row in block.rows:
        _draw_row(axes, row.heading, shown_row(row, section), lefts, upper)
        upper += CELL_HEIGHT
    if block.average:
        _draw_row(axes, "average", shown_row(block.average, section, average=True), lefts, upper + GAP)


def _draw_head(axes: Axes, column: Column, middle: float, bottom: float) -> None:
    lines = [*column.settings, *([f"needs {column.needs}"] if column.needs else [])]
    for index, line in enumerate(reversed(lines)):
        _write(axes, middle, bottom - LINE * index, line, size=8, colour=QUIET)
    _write(axes, middle, bottom - LINE * len(lines) - 0.02, column.name, size=11, weight="bold")


def _draw_row(axes: Axes, label: str, cells: Sequence[Shown], lefts: Sequence[float], upper: float) -> None:
    name, settings = split_label(label)
    middle = upper + CELL_HEIGHT / 2
    start = middle - LINE * len(settings) / 2
    _write(axes, MARGIN, start, name, size=11, weight="bold", across="left", up="center")
    for index, setting in enumerate(settings):
        _write(axes, MARGIN, start + LINE * (index + 1), setting, size=8, colour=QUIET, across="left", up="center")
    for shown, left in zip(cells, lefts, strict=True):
        _draw_cell(axes, shown, left, upper)


def _draw_cell(axes: Axes, shown: Shown, left: float, upper: float) -> None:
    rate = shown.attack_success_rate
    colour = EMPTY if rate is None else HEAT(0.04 + 0.86 * min(max(rate, 0.0), 100.0) / 100)
    red, green, blue = (0.93, 0.93, 0.94) if isinstance(colour, str) else colour[:3]
    dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
    ink = "white" if dark else INK
    inset = 0.02
    box = (left + inset, upper + inset), CELL_WIDTH - 2 * inset, CELL_HEIGHT - 2 * inset
    axes.add_patch(Rectangle(*box, facecolor=colour, edgecolor="none"))
    if shown.best:
        frame = (left + 0.035, upper + 0.035), CELL_WIDTH - 0.07, CELL_HEIGHT - 0.07
        axes.add_patch(Rectangle(*frame, facecolor="none", edgecolor=BEST, linewidth=2.2))
    small = ", ".join(text for text in (shown.deviations, *shown.remarks) if text)
    middle = upper + CELL_HEIGHT / 2
    numbers = f"★ {shown.numbers}" if shown.best else shown.numbers
    is_number = any(character.isdigit() for character in numbers)
    _write(
        axes,
        left + CELL_WIDTH / 2,
        middle - (0.08 if small else 0),
        numbers,
        size=11 if is_number or numbers == NO_NUMBER else 9,
        weight="bold" if shown.best else "normal",
        colour=ink if is_number else QUIET,
        up="center",
    )
    if small:
        _write(axes, left + CELL_WIDTH / 2, middle + 0.12, small, size=7.5, colour=ink, up="center")


def _draw_scale(axes: Axes, left: float, top: float) -> None:
    """The colour scale: ASR from 0 to 100, its ticks below."""
    steps, width, height = 100, 2.4, 0.13
    for step in range(steps):
        colour = HEAT(0.04 + 0.86 * (step + 0.5) / steps)
        axes.add_patch(
            Rectangle((left + width * step / steps, top), width / steps * 1.2, height, facecolor=colour, linewidth=0)
        )
    for tick in (0, 25, 50, 75, 100):
        _write(axes, left + width * tick / 100, top + height + 0.16, str(tick), size=8, colour=QUIET)
    _write(
        axes,
        left + width + 0.2,
        top + height - 0.01,
        "colour: ASR in percent; pale: little is left of the attack",
        size=8,
        colour=QUIET,
        across="left",
    )


def _write(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float,
    weight: str = "normal",
    colour: str = INK,
    across: str = "center",
    up: str = "baseline",
) -> None:
    # Names may hold a dollar sign; it is no formula.
    axes.text(x, y, text, fontsize=size, fontweight=weight, color=colour, ha=across, va=up, parse_math=False)
