"""A sweep as groups of runs that differ in their seed only, with what must be equal for two groups to be comparable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ntml_bench.files import StorageError
from ntml_bench.integrity import DamagedError
from ntml_bench.records.cells import Cell, read_sweep
from ntml_bench.records.labels import Labels, code_text, flat_settings
from ntml_bench.records.manifest import SweepFolder

NAMES_ONLY = ("presets", "training.name")
"""Settings that name other settings and change nothing by themselves."""
HOW_COMPUTED = ("precision", "deterministic")
"""Settings that a result ought to survive: a difference is said, and compared nonetheless."""
FINGERPRINT = "data fingerprint"


@dataclass
class Group:
    """Runs of one place of the table. `labels`: as this sweep's table has them; `options`: the options behind them.

    `compared`: what must be the same on both sides, by dotted key, as text. `runs`: the cells that are done, by seed.
    """

    labels: Labels
    options: Labels
    compared: dict[str, str]
    runs: dict[int, Cell] = field(default_factory=dict)


@dataclass(frozen=True)
class Runs:
    """One side. `engines`: versions of the shared code that its manifest names, None among them for a cell that names none.

    `planned`: cells, done or not. `facts`: what is said of where and how the runs were computed, each with all its values.
    """

    name: str
    groups: tuple[Group, ...]
    engines: frozenset[int | None]
    planned: int
    facts: Mapping[str, frozenset[str]]


def read_runs(folder: Path) -> Runs:
    """The runs of the sweep in `folder`; UserError as `read_sweep`."""
    sweep, source = read_sweep(folder), SweepFolder.open(folder)
    entries = {entry["key"]: entry for entry in source.entries}
    groups: dict[tuple[Labels, tuple[tuple[str, str], ...]], Group] = {}
    facts: dict[str, set[str]] = {}
    for cell in sweep.cells:
        entry = entries[cell.key]
        record = _record(source, entry) if cell.state == "done" else None
        labels = Labels(cell.dataset, cell.model, cell.attack, cell.defense)
        compared = _compared(cell, entry)
        group = groups.setdefault((labels, tuple(sorted(compared.items()))), Group(labels, cell.options, compared))
        if record is not None:
            group.runs.setdefault(cell.seed, cell)
            for name, value in _facts(cell, record).items():
                facts.setdefault(name, set()).add(value)
    engines = frozenset((entry.get("code") or {}).get("engine") for entry in source.entries)
    frozen = {name: frozenset(values) for name, values in facts.items()}
    return Runs(sweep.name, tuple(groups.values()), engines, len(sweep.cells), frozen)


def _record(source: SweepFolder, entry: Mapping[str, Any]) -> Mapping[str, Any] | None:
    try:
        return source.record(entry)
    except (DamagedError, StorageError):
        return None  # it was removed in this moment


def _compared(cell: Cell, entry: Mapping[str, Any]) -> dict[str, str]:
    found = {key: value for key, value in flat_settings(cell.settings).items() if key not in (*NAMES_ONLY, *HOW_COMPUTED)}
    if "clean_budget" not in cell.needs:
        found.pop("clean_budget", None)
    code = entry.get("code") or {}
    found |= {f"{group} code": code_text(code[group]) for group in ("attack", "defense", "model") if group in code}
    if entry.get("data"):
        found[FINGERPRINT] = entry["data"]["whole"]
    return found


def _facts(cell: Cell, record: Mapping[str, Any]) -> dict[str, str]:
    environment = record.get("environment") or {}
    packages = environment.get("packages") or {}
    found = {
        "device": environment.get("device"),
        "half precision": environment.get("half_precision"),
        "torch": packages.get("torch"),
        **{key: cell.settings.get(key) for key in HOW_COMPUTED},
    }
    return {name: str(value) for name, value in found.items() if value is not None}
