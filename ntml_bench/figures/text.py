"""Text in figures: labels that may hold any character, and how wide they get."""

import unicodedata
from bisect import bisect_right
from functools import cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from ntml_bench.figures.style import FONT

ELLIPSIS = "…"
NOTHING = "\N{REPLACEMENT CHARACTER}"


def clean(text: str) -> str:
    """On one line, without what no XML may hold: control characters, halves of characters, places of no character."""
    return " ".join("".join(NOTHING if _impossible(character) else character for character in text).split())


def _impossible(character: str) -> bool:
    return not character.isspace() and (unicodedata.category(character) in ("Cc", "Cs") or ord(character) & 0xFFFE == 0xFFFE)


@cache
def width_of(text: str, size: float, weight: str = "normal") -> float:
    """Inches."""
    text = clean(text)
    properties = FontProperties(family=FONT, size=size, weight=weight)
    return TextToPath().get_text_width_height_descent(text, properties, ismath=False)[0] / 72


def shortened(text: str, size: float, width: float, weight: str = "normal") -> str:
    """The text, or as much of it as fits: the middle goes, as settings that tell two labels apart stand at their ends."""
    if width_of(text, size, weight) <= width:
        return text

    def of(kept: int) -> str:
        return text[: (kept + 1) // 2].rstrip() + ELLIPSIS + text[len(text) - kept // 2 :].lstrip()

    fitting = bisect_right(range(1, len(text)), width, key=lambda kept: width_of(of(kept), size, weight))
    return of(fitting)


def wrapped(text: str, size: float, width: float, most: int = 2) -> list[str]:
    """The text on lines of that width, broken between words; what is left over at the `most`-th ends in an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (width_of(longer, size) <= width or len(lines) == most):
            lines[-1] = longer
        else:
            lines.append(word)
    return [shortened(line, size, width) for line in lines]
