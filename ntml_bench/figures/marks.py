"""How defenses are told apart in a figure: by colour, and by marker where colours are lost."""

from collections.abc import Sequence

from ntml_bench.figures.canvas import Mark
from ntml_bench.figures.colours import INK, PAPER, SERIES

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BEFORE: Mark = {"marker": "o", "color": PAPER, "markeredgecolor": INK, "markersize": 5, "linestyle": "none"}
"""The undefended model; hollow, as what no defense made."""


def marks_of(defenses: Sequence[str]) -> dict[str, Mark]:
    """A colour and a marker for each defense; no two share both."""
    return {
        defense: {
            "color": SERIES[index % len(SERIES)],
            "marker": MARKERS[index % len(MARKERS)],
            "markersize": 5,
            "markeredgecolor": "none",
            "linestyle": "none",
        }
        for index, defense in enumerate(defenses)
    }
