"""How every figure is drawn, whatever the reader's own matplotlib settings are."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from matplotlib import style

from ntml_bench.figures.colours import INK, PAPER, QUIET

FONT = "DejaVu Sans"
"""The one that comes with matplotlib: the same bytes on every machine."""
SETTINGS = {
    "font.family": FONT,
    "font.size": 7,
    "text.color": INK,
    # Labels may hold a dollar sign; it is no formula.
    "text.parse_math": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.2,
    "ytick.major.size": 2.2,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    # Letters as fonts that journals take in PDF, and as letters in SVG.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "ntml-bench",
}


@contextmanager
def plain_style() -> Iterator[None]:
    """Inside, matplotlib draws by these settings only."""
    with warnings.catch_warnings(), style.context(["default", SETTINGS]):
        # A label in a script that the font has not: boxes in PNG and PDF, the reader's own font in SVG.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield
