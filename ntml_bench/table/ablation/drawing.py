"""The plot of an ablation: a row of panels an attack, a column a metric, a line a defense.

As `table.png`, drawn in inches with the object interface: no pyplot, hence no global state and no display.
"""

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from math import ceil, nan
from textwrap import wrap

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from ntml_bench.records.statistic import Statistic
from ntml_bench.records.view import LEGEND, SHORT, Sections, reconstructions, searched, status
from ntml_bench.table.ablation.axis import Axis, axis_of
from ntml_bench.table.ablation.data import Ablation
from ntml_bench.table.ablation.lines import Line, Panel, Plot
from ntml_bench.table.ablation.styles import INK, QUIET, Style, label_of, styles_of

PANEL_WIDTH, PANEL_HEIGHT = 3.7, 2.15
MARGIN, LEFT, ACROSS, DOWN, LINE = 0.25, 0.62, 0.72, 0.56, 0.17
DOTS_PER_INCH = 160
GRID = "#e3e5e8"
LEAST_SPAN = 10.0
"""Percent that an axis covers at least: the noise of a few images shall not look like an effect."""
APART = 0.09
"""Between two lines at one category."""


def draw(plot: Plot, ablation: Ablation, sections: Sections, kind: str) -> bytes:
    """The image file, `png` or `pdf`."""
    file = BytesIO()
    # No date, so that the same table is the same file. 42: letters as fonts that journals take.
    with rc_context({"pdf.fonttype": 42}):
        metadata = {"Software": None} if kind == "png" else {"CreationDate": None}
        figure_of(plot, ablation, sections).savefig(file, format=kind, metadata=metadata)
    return file.getvalue()


def figure_of(plot: Plot, ablation: Ablation, sections: Sections) -> Figure:
    """The figure; its columns are the metrics of the first of the sections."""
    metrics, styles, axis = sections[0], styles_of(plot), axis_of(plot.across)
    rows, columns = len(plot.panels), len(metrics)
    width = max(LEFT + columns * (PANEL_WIDTH + ACROSS), 6.0)
    entries = max(1, int((width - 2 * MARGIN) / (0.75 + 0.085 * max(map(len, styles)))))
    notes = [line for text in _notes(plot, ablation, metrics) for line in wrap(text, int((width - 2 * MARGIN) * 15))]
    head = 0.75 + 0.2 * ceil(len(styles) / entries) + 0.3
    height = head + rows * (PANEL_HEIGHT + DOWN) + 0.1 + LINE * len(notes) + MARGIN / 2

    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)

    def write(x: float, y: float, text: str, size: float, colour: str = INK, weight: str = "normal") -> None:
        at = (x / width, 1 - y / height)
        figure.text(*at, text, fontsize=size, color=colour, fontweight=weight, va="baseline", parse_math=False)

    write(MARGIN, 0.36, ablation.summary.sweep, 13, weight="bold")
    write(MARGIN, 0.58, status(ablation.summary), 8.5, QUIET)
    handles = [Line2D([], [], **style.drawn) for style in styles.values()]
    place = {"loc": "upper left", "bbox_to_anchor": ((MARGIN - 0.05) / width, 1 - 0.68 / height), "borderpad": 0}
    legend = figure.legend(handles, list(styles), ncols=entries, fontsize=9, frameon=False, handlelength=2.8, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)
    for column, metric in enumerate(metrics):
        limits = _limits(metric, plot)
        for row, panel in enumerate(plot.panels):
            left, bottom = LEFT + column * (PANEL_WIDTH + ACROSS), height - head - row * (PANEL_HEIGHT + DOWN) - PANEL_HEIGHT
            axes = figure.add_axes((left / width, bottom / height, PANEL_WIDTH / width, PANEL_HEIGHT / height))
            _draw_panel(axes, panel, metric, axis, [(line, styles[label_of(line, plot)]) for line in panel.lines])
            axes.set(xlim=axis.limits, ylim=limits)
            axes.set_ylabel(f"{SHORT[metric]} (%)", fontsize=9, color=INK)
            if column == 0:
                axes.set_title(_title(panel, plot), loc="left", fontsize=10, fontweight="bold", color=INK, parse_math=False)
            if row == rows - 1:
                axes.set_xlabel(plot.across.name, fontsize=9, color=INK, parse_math=False)
    for index, line in enumerate(notes):
        write(MARGIN, height - MARGIN / 2 - LINE * (len(notes) - 1 - index), line, 7.5, QUIET)
    return figure


def _draw_panel(axes: Axes, panel: Panel, metric: str, axis: Axis, lines: Sequence[tuple[Line, Style]]) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axis.kind == "log":
        axes.set_xscale("log")
    defenses = [line for line, _ in lines if line.kind == "defense"]
    for line, style in lines:
        constant = line.constant(metric)
        if line.kind != "defense" and constant is not None:
            axes.axhline(constant, color=style.colour, linestyle=style.dashes, linewidth=1.5)
        elif found := line.statistics(metric):
            shift = 0.0
            if axis.kind == "categories" and line in defenses:
                shift = APART * (defenses.index(line) - (len(defenses) - 1) / 2)
            _draw_line(axes, [(axis.positions[value] + shift, one) for value, one in found], style, axis)
    axes.set_xticks([axis.positions[value] for value in axis.labels], list(axis.labels.values()))
    axes.set_xticks([position for value, position in axis.positions.items() if value not in axis.labels], minor=True)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=8, colors=INK)


def _draw_line(axes: Axes, points: list[tuple[float, Statistic]], style: Style, axis: Axis) -> None:
    drawn = style.drawn
    if axis.kind == "categories":
        drawn |= {"linestyle": "none", "marker": style.marker or "_"}  # nothing lies between two categories
    axes.errorbar(
        [position for position, _ in points],
        [found.mean for _, found in points],
        # Nothing, not a bar of length 0, where a value has one seed only.
        yerr=[nan if found.deviation is None else found.deviation for _, found in points],
        capsize=2.5,
        elinewidth=1,
        **drawn,
    )


def _limits(metric: str, plot: Plot) -> tuple[float, float]:
    """One axis for all panels of a metric: ASR from 0 to 100, the others as far as their numbers go."""
    reach = [
        found.mean + sign * (found.deviation or 0.0)
        for panel in plot.panels
        for line in panel.lines
        for _, found in line.statistics(metric)
        for sign in (-1, 1)
    ]
    if metric == "attack_success_rate" or not reach:
        return -3.0, 103.0
    low, high = min(reach), max(reach)
    spare = max(LEAST_SPAN - (high - low), 0.1 * (high - low)) / 2
    return low - spare, min(high + spare, 103.0)


def _title(panel: Panel, plot: Plot) -> str:
    block = panel.part.block
    places = {(other.part.block.dataset, other.part.block.model) for other in plot.panels}
    where = f" ({block.dataset}, {block.model})" if len(places) > 1 else ""
    return panel.part.attack + (f": {panel.defense}" if panel.defense else "") + where


def _notes(plot: Plot, ablation: Ablation, metrics: Sequence[str]) -> list[str]:
    """The caption."""
    blocks = [part.block for part in ablation.parts]
    places = "; ".join(dict.fromkeys(f"{block.dataset}, {block.model}" for block in blocks))
    seeds = sorted({seed for block in blocks for seed in block.seeds})
    if len(seeds) == 1:
        bars = f"1 seed ({seeds[0]}): single runs, no error bars."
    else:
        bars = f"{len(seeds)} seeds ({', '.join(map(str, seeds))}): means, the bars are sample standard deviations."
    steps = "; logarithmic axis" if plot.across.logarithmic else ""
    return [
        f"{places}; {bars} Over {plot.across.name}{steps}.",
        " ".join(f"{SHORT[metric]}: {LEGEND[SHORT[metric]]}." for metric in metrics),
        *searched(ablation.summary),
        *reconstructions(replace(ablation.summary, blocks=tuple(blocks))),
    ]
