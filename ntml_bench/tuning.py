"""Tuning at a price: a defense runs at each of its strengths, and the strongest that clean accuracy affords is taken.

A defense that is tuned harder removes more of an attack and costs more accuracy; a comparison is fair where all pay the same.
The defender keeps a part of the clean budget for validation, purifies with the rest at each value of the defense's strength,
and takes the last value, from weak to strong, at which accuracy on the validation part has fallen by no more than the price.
Nothing else is looked at: no trigger, no attack success, no test image.

A few dozen images measure accuracy coarsely. The fall is that of two models on the same images, so its standard error comes
from the images on which they differ; a fall is held to be above the price where it is so by more than one standard error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor

from ntml_bench.errors import UserError, unknown
from ntml_bench.seeding import generator, stratified

Value = int | float | str | bool


@dataclass(frozen=True)
class Strength:
    """The setting of a defense that is tuned, dotted, and its values from weak to strong."""

    setting: str
    values: tuple[Value, ...]

    def applied(self, values: Mapping[str, Any], value: Value) -> dict[str, Any]:
        """The defense's settings with that value in place of the one that is written.

        Raises UserError where they have no such setting.
        """
        changed = _changed(values, self.setting.split("."), value)
        if changed is None:
            raise unknown("setting of the defense in defense.strength.setting", self.setting, _names(values))
        return changed


def read_strength(values: Any) -> Strength:
    """The `strength` of a defense's YAML: `setting` names one of its settings, `values` go from weak to strong.

    Raises UserError.
    """
    shape = "{setting: KEY, values: [WEAK, ..., STRONG]}"
    if not isinstance(values, Mapping) or values.keys() != {"setting", "values"}:
        raise UserError(f"defense.strength is {values!r}; allowed: {shape}")
    setting, found = values["setting"], values["values"]
    if not isinstance(setting, str):
        raise UserError(f"defense.strength.setting is {setting!r}; it names a setting of the defense")
    if not isinstance(found, Sequence) or isinstance(found, str) or not found:
        raise UserError(f"defense.strength.values is {found!r}; allowed: a list, from weak to strong, of at least one value")
    for value in found:
        if not isinstance(value, Value) or (isinstance(value, float) and not isfinite(value)):
            raise UserError(f"defense.strength.values holds {value!r}; allowed: finite numbers, texts, true, false")
    if len(set(map(repr, found))) < len(found):
        raise UserError(f"defense.strength.values is {list(found)!r}; each value stands there once")
    return Strength(setting, tuple(found))


def _changed(values: Mapping[str, Any], path: Sequence[str], value: Value) -> dict[str, Any] | None:
    name, *rest = path
    if name not in values or isinstance(values[name], Mapping) != bool(rest):
        return None
    inner = _changed(values[name], rest, value) if rest else value
    return None if inner is None else {**values, name: inner}


def _names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    names: list[str] = []
    for name, value in values.items():
        names += _names(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [prefix + name]
    return names


def parted(budget: Tensor, labels: Tensor, validation_share: float, seed: int) -> tuple[Tensor, Tensor]:
    """The clean budget (indices int64 [B], on the CPU) as the part to purify with and the part to validate on.

    `labels` int64 [N], of all training images. Both parts keep the shares of the classes. UserError where one would be empty.
    """
    of_budget = labels.cpu()[budget]
    count = round(validation_share * len(budget))
    if not 0 < count < len(budget):
        raise UserError(
            f"validation_share is {validation_share:g} of a clean budget of {len(budget)} images; allowed: a share that leaves "
            "at least one image on either side"
        )
    chosen = stratified(of_budget, count, generator(seed, "tuning/validation"))
    validates = torch.zeros(len(budget), dtype=torch.bool)
    validates[chosen] = True
    return budget[~validates], budget[validates]


def fall(before: Tensor, after: Tensor) -> tuple[float, float]:
    """How many points of accuracy are lost from one model to the other on the same images, and the standard error of that.

    `before`, `after` bool [N]: which images each classifies right. With l images lost and g gained, the difference of an
    image is 1, -1 or 0: its mean is (l - g) / N and its variance (l + g) / N - ((l - g) / N)^2 (as in McNemar's test).
    """
    difference = before.double() - after.double()
    count = len(difference)
    mean = float(difference.mean())
    variance = float(difference.square().mean()) - mean**2
    return 100 * mean, 100 * sqrt(max(0.0, variance) / count)


def affordable(lost: float, standard_error: float, price: float) -> bool:
    """Whether a fall in accuracy is not above the price by more than its standard error; all in points."""
    return lost <= price + standard_error


def strongest(falls: Sequence[tuple[float, float]], price: float) -> int | None:
    """The last of the strengths that the price affords, by its index; None where it affords none.

    `falls`: of each strength, from weak to strong, the fall in accuracy and its standard error, in points.
    """
    return max((index for index, (lost, error) in enumerate(falls) if affordable(lost, error, price)), default=None)
