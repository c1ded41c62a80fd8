"""The critical difference diagram: mean ranks on a line, bars over what is not distinguishable.

J. Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 7 (2006), section 3.2.4 and figure 1.
"""

from collections.abc import Iterator
from math import ceil

from matplotlib.figure import Figure

from ntml_bench.figures.canvas import SINGLE, SIZE, SMALL, Canvas
from ntml_bench.figures.colours import ACCENT, INK, QUIET
from ntml_bench.figures.text import shortened
from ntml_bench.records.significance import Ranking, rankings_of
from ntml_bench.records.significance_view import at_price, findings, heading_of_ranking, ranked_rows
from ntml_bench.records.view import SHORT
from ntml_bench.report.figures.drawing import Drawing
from ntml_bench.report.figures.places import Place

SIDE = 1.12
"""Inches on either side of the line of ranks, for the names."""
HEAD, BAR, NAME = 0.62, 0.09, 0.16
"""Down to the line of ranks, from a bar to the next, from a name to the next."""
TICK = 0.05


def rankings(place: Place) -> Iterator[Drawing]:
    """A figure a metric (and price, of several) that defenses are ranked by; none of fewer than three seeds or defenses."""
    block = place.block
    for ranking in rankings_of(block, [entry.cell for entry in place.cells]):
        if ranking.critical_difference is None:
            continue
        short = SHORT[ranking.metric]
        rows = ", ".join(f"{name} {rank}" for name, rank, _ in ranked_rows(ranking))
        yield Drawing(
            name=place.new_name("ranks", short.lower(), *([f"price_{ranking.price}"] if ranking.price else [])),
            kind="ranks",
            dataset=block.dataset,
            model=block.model,
            title=f"Mean ranks of the defenses by {short}{at_price(ranking)}{place.where}",
            alt=f"{heading_of_ranking(ranking)}: {rows}. {' '.join(findings(ranking))}",
            draw=lambda ranking=ranking, difference=ranking.critical_difference: _figure(ranking, difference),
        )


def _figure(ranking: Ranking, difference: float) -> Figure:
    count = len(ranking.defenses)
    order = sorted(range(count), key=lambda index: ranking.mean_ranks[index])
    below = HEAD + 0.1 + BAR * len(ranking.groups)
    canvas = Canvas(SINGLE, below + NAME * ceil(count / 2) + 0.24)
    sheet = canvas.sheet

    def at(rank: float) -> float:
        return SIDE + (rank - 1) / (count - 1) * (SINGLE - 2 * SIDE)

    canvas.head(
        0.13, f"Mean rank by {SHORT[ranking.metric]}{at_price(ranking)}", f"{ranking.blocks} (attack, seed) blocks; 1 is best"
    )
    # A difference wider than the line of ranks ends with it: then nothing differs.
    reach = at(min(1 + difference, count))
    sheet.plot([at(1), at(1), reach, reach], [0.36 + TICK, 0.36, 0.36, 0.36 + TICK], color=QUIET, linewidth=0.8)
    canvas.write((at(1) + reach) / 2, 0.32, f"CD {difference:.2f}", size=SMALL, colour=QUIET, across="center")
    sheet.plot([at(1), at(count)], [HEAD, HEAD], color=INK, linewidth=0.8)
    for rank in range(1, count + 1):
        sheet.plot([at(rank)] * 2, [HEAD, HEAD - TICK], color=INK, linewidth=0.8)
        canvas.write(at(rank), HEAD - TICK - 0.03, str(rank), size=SMALL, colour=QUIET, across="center")
    for number, group in enumerate(ranking.groups):
        ends = [at(ranking.mean_ranks[group[0]]) - 0.03, at(ranking.mean_ranks[group[-1]]) + 0.03]
        sheet.plot(ends, [HEAD + 0.09 + BAR * number] * 2, color=ACCENT, linewidth=2.2, solid_capstyle="butt")
    left = ceil(count / 2)
    for place, index in enumerate(order):
        rank, on_left = ranking.mean_ranks[index], place < left
        y = below + NAME * ((place if on_left else count - 1 - place) + 0.6)
        end = SIDE - 0.08 if on_left else SINGLE - SIDE + 0.08
        sheet.plot([at(rank), at(rank), end], [HEAD, y, y], color=INK, linewidth=0.6)
        number = f"{rank:.2f}"
        label = shortened(ranking.defenses[index], SIZE, SIDE - 0.4)
        text = f"{label}  {number}" if on_left else f"{number}  {label}"
        across = "right" if on_left else "left"
        canvas.write(end + (-0.04 if on_left else 0.04), y, text, across=across, up="center_baseline")
    canvas.write(
        0.04,
        canvas.height - 0.05,
        "Bars: not distinguishable (Nemenyi, 5 %).",
        size=SMALL,
        colour=QUIET,
    )
    return canvas.figure
