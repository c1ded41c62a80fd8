"""A leaderboard as data: its results, the settings behind them, and what is known to keep them from being compared."""

import csv
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isclose
from pathlib import Path
from typing import Any, NamedTuple

from ntml_bench.errors import unknown
from ntml_bench.records.labels import METHOD_GROUPS
from ntml_bench.records.numbers import Metrics
from ntml_bench.records.summary import METRICS

FOLDER = Path(__file__).parent
COMPARED = METRICS[:3]
"""The metrics that leaderboards have."""
SAME_RATE = 1e-9


class Place(NamedTuple):
    """Names as the leaderboard has them."""

    dataset: str
    model: str
    attack: str
    defense: str


@dataclass(frozen=True)
class Option:
    """What is known of one data set, model, attack or defense of the leaderboard.

    Two things keep a result from a verdict: `not_comparable`, a reason why no setting of ours makes the numbers mean the
    same, and a difference of settings (`settings` by dotted key, and `differs`, one that no setting holds).
    `note` is to be known beside the numbers and changes no verdict.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    differs: str = ""
    not_comparable: str = ""
    note: str = ""
    stands_for: str = ""
    """Its name on the leaderboard where that is another."""


@dataclass(frozen=True)
class Reference:
    """A leaderboard. `tolerance`: points by metric; `results`: percent, 0 to 100, by place and poisoning rate (a share).

    `oddities`: what is strange in the results and was left as it is. `model`: the one of its models whose results stand beside
    those of any model of ours; None: beside those of the same model.
    """

    name: str
    title: str
    citation: str
    source: str
    numbers: str
    oddities: str
    tolerance: Mapping[str, float]
    tolerance_reason: str
    settings: Mapping[str, Any]
    options: Mapping[str, Mapping[str, Option]]
    results: Mapping[Place, Mapping[float, Metrics]]
    model: str | None = None

    def option(self, group: str, name: str) -> Option:
        return self.options[group].get(name, Option())

    def settings_of(self, names: Mapping[str, str]) -> dict[str, Any]:
        """The published settings of a cell by dotted key; those of its options go before the general ones."""
        merged = dict(self.settings)
        for group, name in names.items():
            merged.update(self.option(group, name).settings)
        return merged

    def find(self, place: Place, poisoning_rate: float | None) -> tuple[Metrics | None, str]:
        """The result of that place and rate, or None and the reason in a few words."""
        by_rate = self.results.get(place)
        if by_rate is None:
            return None, self._missing(place)
        for rate, metrics in by_rate.items():
            if poisoning_rate is not None and isclose(rate, poisoning_rate, rel_tol=0, abs_tol=SAME_RATE):
                return metrics, ""
        given = "not recorded" if poisoning_rate is None else f"{poisoning_rate:g}"
        return None, f"rate {given} (published: {', '.join(f'{rate:g}' for rate in sorted(by_rate))})"

    def _missing(self, place: Place) -> str:
        """The first name of the place that has no result behind the names before it."""
        lengths = range(1, len(place) + 1)
        length = next(n for n in lengths if all(known[:n] != place[:n] for known in self.results))
        name, before = place[length - 1], place[: length - 1]
        elsewhere = any(known[length - 1] == name for known in self.results)
        return f"no {METHOD_GROUPS[length - 1]} {name}" + (f" for {', '.join(before)}" if elsewhere else "")


def reference_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read_reference(text: str) -> Reference:
    """The reference `NAME`, or `NAME:MODEL` for the results of one of its models beside any model of ours.

    UserError with the nearest name where there is none of that name, or it has no such model.
    """
    name, colon, model = text.partition(":")
    if name not in reference_names():
        raise unknown("reference", name, reference_names())
    about = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    about["options"] = {
        group: {option: Option(**values) for option, values in about["options"][group].items()} for group in METHOD_GROUPS
    }
    results = _read_results(FOLDER / f"{name}.csv")
    models = sorted({place.model for place in results})
    if colon and model not in models:
        raise unknown(f"model of the reference {name}", model, models)
    return Reference(name=name, results=results, model=model if colon else None, **about)


def _read_results(path: Path) -> dict[Place, dict[float, Metrics]]:
    results: dict[Place, dict[float, Metrics]] = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            by_rate = results[Place(row["dataset"], row["model"], row["attack"], row["defense"])]
            rate = float(row["poisoning_rate"])
            if rate in by_rate:
                raise ValueError(f"{path.name} has two results for {row}")
            by_rate[rate] = Metrics(*(float(row[metric]) for metric in COMPARED))
    return dict(results)
