"""The index of a site, from its lines."""

from collections.abc import Sequence

from ntml_bench.records.scatter import NO_NUMBER
from ntml_bench.records.view import DROP, DROP_POINTS, LEGEND, NEEDS
from ntml_bench.report.grid import SHOWN_METRICS
from ntml_bench.report.page import render
from ntml_bench.report.site.line import Line
from ntml_bench.report.site.tables import LeftOut
from ntml_bench.statistics import FEWEST

READING = (
    "Numbers are compared within a line only: data, nets, recipes and attacks differ from table to table.",
    "All numbers are percent, means over the attacks of the line and over its seeds. "
    + " ".join(f"{name}: {LEGEND[name]}." for name in ("ACC", "ASR", "DER")),
    f"Best: the highest mean DER. With {FEWEST} seeds or more [low, high] is the 95 % interval of the mean (Student t, of the"
    " seeds' own averages), and all defenses are named that are not distinguishable from the best (one-sided paired t test over"
    " the seeds at 5 % over the number of rivals). Of a single run the best may be best by chance.",
)

RANKING_READING = (
    f"{DROP}: ACC at least {DROP_POINTS:.0f} points below the undefended model. 'k of n': only k of n seeds or attacks are"
    f" done. Mean rank: by DER over (attack, seed) blocks, 1 is best, with {FEWEST} seeds or more.",
    "What a defense needs besides the model: "
    + "; ".join(f"{code}: {words}" for code, words in NEEDS.values())
    + "; 0: nothing.",
)


def render_index(lines: Sequence[Line], reconstructions: Sequence[str], left_out: Sequence[LeftOut]) -> str:
    """The page: the lines to sort, the ranking of each below them, and what was left out."""
    return render(
        "index.html",
        lines=lines,
        tables=len({line.page for line in lines}),
        metrics=SHOWN_METRICS,
        no_number=NO_NUMBER,
        reading=READING,
        ranking_reading=RANKING_READING,
        reconstructions=reconstructions,
        left_out=left_out,
    )
