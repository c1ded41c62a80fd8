"""The colours of the figures, by the names that the page knows them by: one SVG then serves light and dark.

A figure is drawn in `LIGHT`; an SVG for the page says `var(--NAME)` instead, and the page gives the names their values.
"""

LIGHT = {
    "ink": "#1c1c1e",
    "quiet": "#5f6368",
    "line": "#d5d7da",
    "paper": "#ffffff",
    "accent": "#0b4fa8",
    "series-1": "#0072b2",
    "series-2": "#d55e00",
    "series-3": "#009e73",
    "series-4": "#cc79a7",
    "series-5": "#e69f00",
    "series-6": "#56b4e9",
    "series-7": "#882255",
}
"""The series are Okabe and Ito's, told apart with every kind of colour blindness; a dark red of Tol's stands for their black,
which would be lost among the axes, and for their yellow, which is lost on white."""
DARK = {
    "ink": "#ececee",
    "quiet": "#a2a6ab",
    "line": "#3c4043",
    "paper": "#17181a",
    "accent": "#7fb2f5",
    "series-1": "#4c9fe0",
    "series-2": "#f0843f",
    "series-3": "#2fc39a",
    "series-4": "#e6a5cb",
    "series-5": "#f2b84b",
    "series-6": "#9bd8f8",
    "series-7": "#e0709f",
}
"""The same names on dark paper."""
INK, QUIET, RULE, PAPER, ACCENT = (LIGHT[name] for name in ("ink", "quiet", "line", "paper", "accent"))
SERIES = tuple(colour for name, colour in LIGHT.items() if name.startswith("series"))
NAMES = {colour: name for name, colour in LIGHT.items()}
