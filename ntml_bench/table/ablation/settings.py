"""The settings that vary in a sweep beyond the options of its grid: what an ablation is over."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ntml_bench.records.cells import Cell
from ntml_bench.records.labels import METHOD_GROUPS, Labels, flat_settings, without_precision

WIDE = 20.0
"""From this ratio of the largest value to the smallest on, a linear axis hides the small values."""


@dataclass(frozen=True)
class Setting:
    """A setting as it is named on the command line, and its values as texts: ascending numbers, else in grid order."""

    name: str
    values: tuple[str, ...]

    @property
    def numbers(self) -> tuple[float, ...] | None:
        """The values as numbers; None where one of them is no number."""
        return _numbers(self.values)

    @property
    def logarithmic(self) -> bool:
        """Whether its axis is better a logarithmic one."""
        numbers = self.numbers
        return numbers is not None and min(numbers) > 0 and max(numbers) >= WIDE * min(numbers)


def varying_settings(cells: Sequence[Cell]) -> tuple[tuple[Setting, ...], list[tuple[str, ...] | None]]:
    """The settings that take two values among cells of the same options, by name, and their values in each cell.

    A value that follows an option (one of a data set, or of a named variant) does not vary, and the seed is none of them. The
    values are None for a cell that lacks such a setting, or whose setting of that name is another method's.
    """
    places = [(cell.seed, cell.options) for cell in cells]
    flat = without_precision(places, [flat_settings(cell.settings) for cell in cells])
    seen: dict[tuple[Labels, str], set[str]] = defaultdict(set)
    for cell, settings in zip(cells, flat, strict=True):
        for name, text in settings.items():
            seen[cell.options, name].add(text)
    owners = {(name, _owner(options, name)) for (options, name), texts in seen.items() if len(texts) > 1}
    names = sorted({name for name, _ in owners})

    def values(cell: Cell, settings: dict[str, str]) -> tuple[str, ...] | None:
        if not all(name in settings and (name, _owner(cell.options, name)) in owners for name in names):
            return None
        return tuple(settings[name] for name in names)

    by_cell = [values(cell, settings) for cell, settings in zip(cells, flat, strict=True)]
    columns = zip(*(found for found in by_cell if found is not None), strict=True)
    return tuple(Setting(name, _ordered(dict.fromkeys(column))) for name, column in zip(names, columns, strict=False)), by_cell


def short(text: str, digits: int = 6) -> str:
    """A value as it is shown: long numbers with so many digits."""
    numbers = _numbers((text,))
    return text if numbers is None or len(text) <= digits else f"{numbers[0]:.{digits}g}"


def _ordered(texts: dict[str, None]) -> tuple[str, ...]:
    numbers = _numbers(tuple(texts))
    return tuple(texts) if numbers is None else tuple(text for _, text in sorted(zip(numbers, texts, strict=True)))


def _numbers(texts: tuple[str, ...]) -> tuple[float, ...] | None:
    parsed = [_parsed(text) for text in texts]
    numbers = [float(value) for value in parsed if isinstance(value, int | float) and not isinstance(value, bool)]
    return tuple(numbers) if len(numbers) == len(parsed) else None


def _owner(options: Labels, name: str) -> str:
    """The option that a setting belongs to; one of the training, or of no group, is everyone's."""
    group = name.partition(".")[0]
    return str(getattr(options, group)) if group in METHOD_GROUPS else ""


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
