"""What a record says of a defense that was tuned at a price: its strengths, what each did, and which of them was taken."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ntml_bench.records.numbers import Metrics, read_count, read_metrics, read_number

Value = int | float | str | bool


@dataclass(frozen=True)
class Candidate:
    """A defense at one of its strengths. Percent and points.

    `accuracy`, `fall`, `standard_error`: on the validation images, the last two of what was lost there; `after`: on the test
    set, which nothing is chosen by.
    """

    value: Value
    accuracy: float
    fall: float
    standard_error: float
    after: Metrics


@dataclass(frozen=True)
class Choice:
    """The strengths of a defense from weak to strong, values of `setting`, and the one that is `chosen` at a price in points.

    `chosen` is None where the price affords none of them, so that the model stays as it was.
    """

    setting: str
    price: float
    validation_images: int
    accuracy_before: float
    chosen: Value | None
    candidates: tuple[Candidate, ...]


def read_choice(values: Mapping[str, Any]) -> Choice:
    """The `tuning` of a record. Raises ValueError, KeyError, TypeError or AttributeError where it is damaged."""
    if not isinstance(values["setting"], str):
        raise ValueError(f"{values['setting']!r:.80} is not a setting")
    candidates = tuple(_candidate(found) for found in values["candidates"])
    chosen = values["chosen"]
    if chosen is not None and _value(chosen) not in [found.value for found in candidates]:
        raise ValueError(f"the chosen {chosen!r:.80} is none of its strengths")
    images = read_count(values["validation_images"])
    if not candidates or not images:
        raise ValueError("its tuning has no strengths or no validation images")
    return Choice(values["setting"], _number(values["price"]), images, _number(values["accuracy_before"]), chosen, candidates)


def _candidate(values: Mapping[str, Any]) -> Candidate:
    accuracy, fall, error = (_number(values[name]) for name in ("accuracy", "fall", "standard_error"))
    after = read_metrics(values["after"])
    _number(after.clean_accuracy)
    return Candidate(_value(values["value"]), accuracy, fall, error, after)


def _number(value: Any) -> float:
    number = read_number(value)
    if number is None:
        raise ValueError("a number of its tuning is missing")
    return number


def _value(value: Any) -> Value:
    if not isinstance(value, Value):
        raise ValueError(f"{value!r:.80} is not the value of a setting")
    return value
