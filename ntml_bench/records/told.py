"""What a record tells besides what was measured: times, versions, history. Somebody else can have written it."""

from collections.abc import Mapping
from typing import Any

from ntml_bench.records.numbers import read_number


def check_told(record: Mapping[str, Any]) -> None:
    """ValueError where something stands in another shape than the renderings show; what is not told at all is no mistake."""
    environment = _mapping(record, "environment")
    _mapping(environment, "packages")
    _mapping(record, "code")
    for value in _mapping(record, "seconds").values():
        read_number(value)
    history = record.get("history") or []
    if not isinstance(history, list) or not all(isinstance(epoch, Mapping) for epoch in history):
        raise ValueError(f"its history is {history!r:.80}")


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = values.get(name) or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"its {name} is {found!r:.80}")
    return found
