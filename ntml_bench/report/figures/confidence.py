"""How sure a model is of the truth under the trigger: the probability of the true class, before and after each defense."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ntml_bench.figures.canvas import LINE, SINGLE, SIZE, SMALL, Canvas, Key, Mark, flowed
from ntml_bench.figures.colours import INK, PAPER, QUIET, RULE, SERIES
from ntml_bench.figures.text import shortened, width_of, wrapped
from ntml_bench.records.view import split_label
from ntml_bench.report.figures.drawing import Drawing
from ntml_bench.report.figures.places import Place, by_defense
from ntml_bench.report.figures.strips import Strip, floor_of, strips_of

TOP, RIGHT, INDENT = 0.22, 0.12, 0.08
HEIGHTS = {"before": 0.18, "after": 0.18, "stage": 0.14}
MOST_LEFT = 1.4
"""Inches for the labels; one that needs more gets further lines."""
NEXT_LINE = 0.09
PLAIN: Mark = {"linestyle": "none", "markeredgecolor": "none"}
MEAN = PLAIN | {"marker": "D", "markersize": 3.2, "color": PAPER, "markeredgecolor": INK, "markeredgewidth": 0.8}
STAGE = PLAIN | {"marker": "^", "markersize": 4, "color": QUIET}
FLOOR: Mark = {"color": QUIET, "linestyle": (0, (1, 1.6)), "linewidth": 1.0}
HALF: Mark = {"color": SERIES[0], "linewidth": 4, "alpha": 0.35, "solid_capstyle": "butt"}
MOST: Mark = {"color": SERIES[0], "linewidth": 1.0, "solid_capstyle": "butt"}


def confidences(place: Place) -> Iterator[Drawing]:
    """A figure an attack."""
    for attack, cells in place.attacks.items():
        seed, found = by_defense(cells, lambda entry: entry.cell.after.true_class_probability is not None)
        if seed is None:
            continue
        strips, floor = strips_of(list(found.values())), floor_of(list(found.values()))
        yield Drawing(
            name=place.new_name("confidence", attack),
            kind="confidence",
            dataset=place.block.dataset,
            model=place.block.model,
            attack=attack,
            title=f"Probability of the true class under the trigger of {attack}{place.where}",
            alt=_alt(strips, floor, attack, seed),
            draw=lambda strips=strips, floor=floor, attack=attack, seed=seed: _figure(strips, floor, attack, seed),
        )


def _figure(strips: Sequence[Strip], floor: float | None, attack: str, seed: int) -> Figure:
    labels = [_lines(strip) for strip in strips]
    heights = [HEIGHTS[strip.kind] + NEXT_LINE * (len(lines) - 1) for strip, lines in zip(strips, labels, strict=True)]
    left = min(MOST_LEFT, 0.14 + max(_width(strip, lines) for strip, lines in zip(strips, labels, strict=True)))
    legend = flowed(_keys(strips, floor), SINGLE - 0.1)
    bottom = TOP + sum(heights) + 0.36
    canvas = Canvas(SINGLE, bottom + LINE * len(legend) + 0.04)
    canvas.head(0.13, attack, f"triggered test images, seed {seed}")
    axes = canvas.panel(left, TOP, SINGLE - left - RIGHT, sum(heights))
    # Inches downwards, as on the sheet.
    axes.set(xlim=(0, 100), ylim=(sum(heights), 0), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=RULE, linewidth=0.4)
    axes.tick_params(labelsize=SMALL)
    if floor is not None:
        axes.plot([floor, floor], [0, sum(heights)], **FLOOR, clip_on=False)
    top = 0.0
    for strip, lines, height in zip(strips, labels, heights, strict=True):
        _draw(axes, strip, top + height / 2)
        _label(canvas, strip, lines, TOP + top + height / 2, left)
        top += height
    canvas.write(left + (SINGLE - left - RIGHT) / 2, bottom - 0.08, "probability of the true class (%)", across="center")
    canvas.legend(0.06, bottom, legend)
    return canvas.figure


def _keys(strips: Sequence[Strip], floor: float | None) -> list[Key]:
    keys = [Key(MEAN, "mean")]
    if any(strip.quantiles for strip in strips):
        keys += [Key(HALF, "half of the images, bar: median"), Key(MOST, "5 to 95 % of them")]
    if any(strip.kind == "stage" for strip in strips):
        keys.append(Key(STAGE, "mean between the stages of a defense"))
    return keys if floor is None else [*keys, Key(FLOOR, "mean of a clean model")]


def _lines(strip: Strip) -> tuple[str, ...]:
    """The label; of a defense with settings that would leave no room for the figure its name, and the settings below it."""
    name, settings = split_label(strip.label)
    if strip.kind != "after" or not settings or width_of(strip.label, SIZE) + 0.14 <= MOST_LEFT:
        return (strip.label,)
    return name, *wrapped(", ".join(settings), SMALL, MOST_LEFT - 0.1, most=3)


def _width(strip: Strip, lines: Sequence[str]) -> float:
    if strip.kind == "stage":
        return INDENT + width_of(lines[0], SMALL)
    return max(width_of(line, SMALL if row else SIZE) for row, line in enumerate(lines))


def _label(canvas: Canvas, strip: Strip, lines: Sequence[str], middle: float, left: float) -> None:
    indent = 0.05 + INDENT * (strip.kind == "stage")
    for row, line in enumerate(lines):
        size, colour = (SMALL, QUIET) if row or strip.kind == "stage" else (SIZE, INK)
        y = middle + 0.1 * (row - (len(lines) - 1) / 2)
        canvas.write(indent, y, shortened(line, size, left - 0.05 - indent), size=size, colour=colour, up="center_baseline")


def _draw(axes: Axes, strip: Strip, y: float) -> None:
    colour = QUIET if strip.kind == "before" else SERIES[0]
    if strip.quantiles:
        low, lower, median, upper, high = strip.quantiles
        axes.plot([low, high], [y, y], color=colour, linewidth=1.0, solid_capstyle="butt", clip_on=False)
        box = (lower, y - 0.045), upper - lower, 0.09
        axes.add_patch(Rectangle(*box, facecolor=colour, alpha=0.35, linewidth=0, clip_on=False))
        axes.plot([median, median], [y - 0.06, y + 0.06], color=colour, linewidth=1.6, solid_capstyle="butt", clip_on=False)
    axes.plot([strip.mean], [y], **(STAGE if strip.kind == "stage" else MEAN), clip_on=False)


def _alt(strips: Sequence[Strip], floor: float | None, attack: str, seed: int) -> str:
    def text(strip: Strip) -> str:
        median = f" (median {strip.quantiles[2]:.1f})" if strip.quantiles else ""
        return f"{'after ' if strip.kind == 'after' else ''}{strip.label} {strip.mean:.1f}{median}"

    clean = "" if floor is None else f" A clean model has {floor:.1f}."
    return (
        f"Mean probability of the true class of test images under the trigger of {attack}, in percent, seed {seed}: "
        f"{'; '.join(map(text, strips))}.{clean}"
    )
