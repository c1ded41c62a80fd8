"""The scale of the heat map: one hue, the darker the higher, as steps that the style sheet has a rule for.

Colours are mixed by the browser (`report.css`), so that the light and the dark page share the numbers that stand here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor

from ntml_bench.records.summary import RETUNED, Block, Entry

STEPS = 100
ROUND_TO = 5
NARROWEST = 20
"""Points that a scale spans at least: a narrower one would make much of little."""
NO_EFFECT = 50
"""DER of a defense that changes nothing; its scale begins there, or where a defense is worse."""
WHOLE = ("attack_success_rate", "robust_accuracy", RETUNED)
"""Metrics whose scale is all of 0 to 100."""


@dataclass(frozen=True)
class Scale:
    """Percent at the pale and at the dark end."""

    low: float
    high: float

    def step(self, value: float) -> int:
        """0 to STEPS, also for what lies beyond an end."""
        share = (value - self.low) / (self.high - self.low)
        return round(STEPS * min(1.0, max(0.0, share)))


def scale_of(block: Block, metric: str) -> Scale:
    """One scale for the whole block, its averages included."""
    if metric in WHOLE:
        return Scale(0, 100)
    values = [value for entry in _entries(block) if (value := entry.mean(metric)) is not None]
    if metric == "defense_effectiveness_rating":
        return Scale(min([NO_EFFECT, *(_down(value) for value in values)]), 100)
    high = max((_up(value) for value in values), default=100)
    low = min((_down(value) for value in values), default=0)
    if high - low < NARROWEST:
        low = max(0, high - NARROWEST)
        high = max(high, low + NARROWEST)
    return Scale(low, high)


def step_rules() -> str:
    """The rules of the style sheet that say how far along the scale a cell is."""
    return "".join(f".h{step}{{--h:{step}}}" for step in range(STEPS + 1))


def _entries(block: Block) -> Iterator[Entry]:
    for row in (*block.rows, *([block.average] if block.average else [])):
        yield from (row.floor, row.undefended, *row.defenses.values())


def _down(value: float) -> int:
    return floor(value / ROUND_TO) * ROUND_TO


def _up(value: float) -> int:
    return ceil(value / ROUND_TO) * ROUND_TO
