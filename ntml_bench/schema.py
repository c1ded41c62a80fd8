"""Typed settings: a frozen dataclass is the schema, a YAML file holds the values.

A schema gives no defaults, so every value that a method works with stands in a YAML file. `build` checks the
values against the schema and answers a mistake with a `UserError` that names the key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache
from math import isfinite
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from ntml_bench.errors import UserError, unknown

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """What a value must satisfy, and how to say it."""

    holds: Callable[[Any], bool]
    allowed: str


def number(
    *, above: float | None = None, at_least: float | None = None, at_most: float | None = None, below: float | None = None
) -> Any:
    """A dataclass field for a number in a range."""
    bounds = []
    if above is not None:
        bounds.append(f"more than {above}")
    if at_least is not None:
        bounds.append(f"at least {at_least}")
    if at_most is not None:
        bounds.append(f"at most {at_most}")
    if below is not None:
        bounds.append(f"less than {below}")

    def holds(value: float) -> bool:
        # Written so that NaN fails every bound.
        return (
            (above is None or value > above)
            and (at_least is None or value >= at_least)
            and (at_most is None or value <= at_most)
            and (below is None or value < below)
        )

    return field(metadata={"check": Check(holds, " and ".join(bounds))})


def one_of(*names: str) -> Any:
    """A dataclass field for one of a few names."""
    return field(metadata={"check": Check(lambda value: value in names, ", ".join(names))})


KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true, false", NoneType: "null"}


def _words(kind: Any, value: Any) -> str:
    """What values of a type are called, and how one is written."""
    if get_origin(kind) is list:
        inside = KINDS.get(get_args(kind)[0], "a value")
        return f"a list, each {inside}: [{value}]" if isinstance(value, int | float | str) else f"a list, each {inside}"
    return " or ".join(KINDS.get(one, "a group of settings") for one in get_args(kind) or (kind,))


_kinds = cache(get_type_hints)


def _is_of(kind: Any, value: Any) -> bool:
    """Whether OmegaConf would take a value as it is: most are, and its structures take long to make."""
    if isinstance(value, str):
        return kind is str and "${" not in value and value != "???"
    return get_origin(kind) is not list and type(value) in (get_args(kind) or (kind,))


def build(schema: type[T], values: Mapping[str, Any], where: str) -> T:
    """An instance of `schema` from plain values; `where` is the dotted name of the group, for messages.

    Raises UserError for an unknown key (with the nearest one), a missing key, a wrong type, a value out of range,
    a number that is not finite.
    """
    # Here, because the schemas are of use where OmegaConf is missing: a machine lent for timing has PyTorch and little else.
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    prefix = f"{where}." if where else ""
    names = [entry.name for entry in fields(cast(Any, schema))]
    for key in values:
        if key not in names:
            raise unknown(f"key in {where or 'the settings'}:", prefix + str(key), [prefix + name for name in names])
    missing = [prefix + name for name in names if name not in values]
    if missing:
        raise UserError(f"missing setting: {', '.join(missing)} (every value stands in a YAML file)")
    kinds = _kinds(schema)
    structure: Any = None
    converted: dict[str, Any] = {}
    for entry in fields(cast(Any, schema)):
        name, value = entry.name, values[entry.name]
        if is_dataclass(kinds[name]):
            if not isinstance(value, Mapping):
                raise UserError(f"{prefix}{name} is {value!r}; it is a group of settings")
            converted[name] = build(cast(Any, kinds[name]), value, prefix + name)
            continue
        if kinds[name] is bool and not isinstance(value, bool):
            raise UserError(f"{prefix}{name} is {value!r}; allowed: true, false")
        if type(value) is int and float in (kinds[name], *get_args(kinds[name])):
            value = float(value)  # OmegaConf does the same, but 2.4 warns of it
        check = cast("Check | None", entry.metadata.get("check"))
        if _is_of(kinds[name], value):
            converted[name] = value
        else:
            if structure is None:
                structure = OmegaConf.structured(schema)
                OmegaConf.set_readonly(structure, None)
            try:
                structure[name] = value
            except OmegaConfBaseException:
                bounds = f", {check.allowed}" if check is not None else ""
                raise UserError(f"{prefix}{name} is {value!r}; allowed: {_words(kinds[name], value)}{bounds}") from None
            plain = structure[name]
            converted[name] = OmegaConf.to_container(plain) if OmegaConf.is_config(plain) else plain
        items = converted[name] if isinstance(converted[name], list) else [converted[name]]
        if any(isinstance(item, float) and not isfinite(item) for item in items):
            raise UserError(f"{prefix}{name} is {converted[name]!r}; allowed: finite numbers")
        if check is not None and converted[name] is not None and not check.holds(converted[name]):
            raise UserError(f"{prefix}{name} is {converted[name]!r}; allowed: {check.allowed}")
    return schema(**converted)
