"""Numbers as they stand in records: a text that reads as one is none, and damaged ones are refused with a ValueError."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LARGEST_NUMBER = 1e15


@dataclass(frozen=True)
class Metrics:
    """Percent, 0 to 100; None where a metric has no meaning (ASR and RA without an attack)."""

    clean_accuracy: float | None
    attack_success_rate: float | None
    robust_accuracy: float | None
    true_class_probability: float | None = None
    """Mean over triggered images."""


NO_METRICS = Metrics(None, None, None)


def read_metrics(values: Mapping[str, Any]) -> Metrics:
    """The metrics of a model."""
    probability = read_number(values.get("true_class_probability"))
    clean, attack, robust = (read_number(values[name]) for name in ("clean_accuracy", "attack_success_rate", "robust_accuracy"))
    return Metrics(clean, attack, robust, probability)


def read_number(value: Any) -> float | None:
    """A number, or None where there is none; not one that no computer holds."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST_NUMBER:
        raise ValueError(f"{value!r:.80} is not a number")
    return float(value)


def read_count(value: Any) -> int | None:
    """A whole number, or None where there is none."""
    number = read_number(value)
    return None if number is None else int(number)
