"""How the numbers of a sweep were made, from what its cells were planned with and what their records wrote down."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ntml_bench.records.cells import Cell
from ntml_bench.records.labels import flat_settings, option_of
from ntml_bench.records.summary import NONE
from ntml_bench.report.data import Report

METHODS = ("attack", "defense")
Pairs = tuple[tuple[str, str], ...]
UNKNOWN = "not recorded"
REVISION = 12
"""Characters of a commit's name that are shown; the records have all."""


@dataclass(frozen=True)
class Made:
    """All as texts. `methods`: label and settings, attacks first; `times`: what took how long, over all cells."""

    family: str
    command: str | None
    common: Pairs
    varying: Pairs
    methods: tuple[tuple[str, str, Pairs], ...] = field(hash=False)
    machine: Pairs
    packages: Pairs
    times: Pairs


def made_of(report: Report) -> Made:
    """From the cells (their settings) and the records of those that are done (the rest)."""
    cells = report.summary.cells
    flat = [flat_settings(cell.settings) for cell in cells]
    shared = _values(flat, lambda key: key.split(".")[0] not in METHODS)
    records = [entry.record for entry in report.cells if entry.record is not None]
    environments = [record.get("environment") or {} for record in records]
    families = dict.fromkeys(str(cell.settings["presets"]) for cell in cells if "presets" in cell.settings)
    return Made(
        family=", ".join(families),
        command=report.command,
        common=tuple((key, values[0]) for key, values in shared.items() if len(values) == 1),
        varying=tuple((key, ", ".join(values)) for key, values in shared.items() if len(values) > 1),
        methods=(*_methods(cells, "attack"), *_methods(cells, "defense")),
        machine=_machine(environments),
        packages=tuple(_common([environment.get("packages") or {} for environment in environments])),
        times=_times(report),
    )


def _values(flat: Sequence[Mapping[str, str]], wanted: Any) -> dict[str, list[str]]:
    """The values that each wanted key takes; a cell without the key counts as one."""
    keys = dict.fromkeys(key for settings in flat for key in settings if wanted(key))
    return {key: list(dict.fromkeys(settings.get(key, "not set") for settings in flat)) for key in keys}


def _methods(cells: Iterable[Cell], group: str) -> list[tuple[str, str, Pairs]]:
    """The settings of each attack or each defense; one that follows the data set or the attack has several values."""
    by_label: dict[str, list[dict[str, str]]] = {}
    for cell in cells:
        label = getattr(cell, group)
        if option_of(label) != NONE:
            by_label.setdefault(label, []).append(flat_settings({group: cell.settings.get(group) or {}}))
    return [
        (
            group,
            label,
            tuple((key.removeprefix(f"{group}."), " | ".join(values)) for key, values in _values(flat, _always).items()),
        )
        for label, flat in by_label.items()
    ]


def _always(key: str) -> bool:
    return True


def _machine(environments: Sequence[Mapping[str, Any]]) -> Pairs:
    plain = [
        {key: value for key, value in environment.items() if key not in ("packages", "finished")}
        for environment in environments
    ]
    for environment in plain:
        if revision := environment.get("git_revision"):
            environment["git_revision"] = str(revision)[:REVISION]
    finished = sorted(str(environment["finished"]) for environment in environments if environment.get("finished"))
    dates: Pairs = (
        (("finished", " to ".join(dict.fromkeys((_moment(finished[0]), _moment(finished[-1]))))),) if finished else ()
    )
    return (*((key.replace("_", " "), text) for key, text in _common(plain)), *dates)


def _common(tables: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each key with its value, or with its values and in how many cells each of them is."""
    lines = []
    for key in dict.fromkeys(key for table in tables for key in table):
        counts = Counter(_word(table.get(key)) for table in tables)
        text = ", ".join(
            value if len(counts) == 1 else f"{value} ({count} {'cell' if count == 1 else 'cells'})"
            for value, count in counts.most_common()
        )
        lines.append((str(key), text))
    return lines


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | dict):
        words = value if isinstance(value, list) else [f"{key}={item}" for key, item in value.items()]
        return ", ".join(map(str, words)) or "none"
    return UNKNOWN if value is None else str(value)


def _moment(text: str) -> str:
    """A moment as records have it, to the minute; what is none as it stands."""
    found = moment_of(text)
    return text if found is None else f"{found:%Y-%m-%d %H:%M} UTC"


def moment_of(text: str) -> datetime | None:
    """A moment as records have it, in UTC; None for what is none."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _times(report: Report) -> Pairs:
    """Sums over the cells. A backdoored model is trained once and shared, so its time counts once."""
    attacks: dict[tuple[str, str, str, int], float] = {}
    sums: Counter[str] = Counter()
    for entry in report.cells:
        seconds = (entry.record or {}).get("seconds") or {}
        cell = entry.cell
        if "attack" in seconds:
            attacks[(cell.dataset, cell.model, cell.attack, cell.seed)] = seconds["attack"]
        sums.update({name: seconds[name] for name in ("defense", "evaluation") if seconds.get(name) is not None})
    parts = [("training of the attacked models", sum(attacks.values()))] if attacks else []
    names = {"defense": "defenses", "evaluation": "evaluation"}
    return tuple(
        (name, duration(value)) for name, value in (*parts, *((names[key], sums[key]) for key in names if key in sums))
    )


def duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
