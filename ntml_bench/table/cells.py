"""A sweep folder as typed cells, in the order of its grid: what is done, with its numbers, and what is not."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ntml_bench.errors import UserError
from ntml_bench.store import RECORD, Store
from ntml_bench.table.family import family_of
from ntml_bench.table.labels import Labels, label_cells

MANIFEST = "manifest.json"
RECORDS = "records"
State = Literal["done", "running", "failed", "missing"]


@dataclass(frozen=True)
class Metrics:
    """Percent, 0 to 100; None where a metric has no meaning (ASR and RA without an attack)."""

    clean_accuracy: float | None
    attack_success_rate: float | None
    robust_accuracy: float | None
    true_class_probability: float | None = None
    """Mean over triggered images."""


NO_METRICS = Metrics(None, None, None)
NO_OPTIONS = Labels("", "", "", "")


@dataclass(frozen=True)
class Cell:
    """One cell: labels of its place in the table, its state and, where it is done, its numbers."""

    key: str
    dataset: str
    model: str
    attack: str
    defense: str
    seed: int
    needs: tuple[str, ...]
    state: State
    before: Metrics = NO_METRICS
    """The backdoored model."""
    after: Metrics = NO_METRICS
    """The same model after the defense."""
    floor: Metrics = NO_METRICS
    """A clean model of the same recipe under the same trigger."""
    defense_effectiveness_rating: float | None = None
    """Percent; 50 is no effect."""
    seconds: float | None = None
    error: str = ""
    """One line; empty unless the cell failed."""
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Resolved settings by group, as planned."""
    training_images: int | None = None
    """As counted in the run, and so is the next; None where that was not written down."""
    test_images: int | None = None
    stages: Mapping[str, Metrics] = field(default_factory=dict, hash=False)
    """Models between the stages of the defense, which it had measured."""
    options: Labels = NO_OPTIONS
    """The names of the chosen options, without the settings that the labels tell cells apart by."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's name and its cells in grid order."""

    name: str
    cells: tuple[Cell, ...]
    objective: str | None = None
    """What was searched for, where the cells are the trials of a search."""


def read_sweep(folder: Path) -> Sweep:
    """The cells of the sweep in `folder`; committed records (`records/`) come before those in the store.

    Raises UserError where the folder holds no manifest, one that cannot be read, or cells of two families of values.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
        entries = manifest["cells"]
        labels = label_cells(entries)
        family_of(entries, str(manifest["sweep"]))
        # A folder of committed records can do without a store.
        store = Store((folder / manifest.get("store", ".")).resolve())
        cells: dict[tuple[Any, ...], Cell] = {}
        for entry, label in zip(entries, labels, strict=True):
            # A grid can name a cell twice (defense=none under two clean budgets): it is one run and counts once.
            cells.setdefault((label, entry["seed"], entry["key"]), _cell(entry, label, folder, store))
        return Sweep(str(manifest["sweep"]), tuple(cells.values()), manifest.get("objective"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no {MANIFEST}; it is not the folder of a sweep") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read as the manifest of a sweep ({type(error).__name__}: {error})") from None


def _cell(entry: Mapping[str, Any], labels: tuple[str, str, str, str], folder: Path, store: Store) -> Cell:
    dataset, model, attack, defense = labels
    key, seed, needs = str(entry["key"]), int(entry["seed"]), tuple(entry.get("needs") or ())
    place = {"key": key, "dataset": dataset, "model": model, "attack": attack, "defense": defense, "seed": seed}
    place["settings"] = entry.get("settings") or {}
    place["options"] = Labels(*(str(entry[group]) for group in Labels._fields))
    try:
        record = _record(key, folder, store)
        if record is not None:
            return _done(record, place, needs)
    except (ValueError, KeyError, TypeError) as error:
        problem = f"its record cannot be read ({type(error).__name__}: {error})"
        return Cell(**place, needs=needs, state="failed", error=_one_line(problem))
    if store.locked("cell", key):
        return Cell(**place, needs=needs, state="running")
    failure = store.path("cell", key).with_name(f"cell-{key}.failed.json")
    try:
        error = str(json.loads(failure.read_text())["error"])
    except FileNotFoundError:
        return Cell(**place, needs=needs, state="missing")
    except (ValueError, KeyError, TypeError):
        error = f"{failure.name} cannot be read"
    return Cell(**place, needs=needs, state="failed", error=_one_line(error))


def record_path(key: str, folder: Path, store: Store) -> Path:
    """Where the record of a done cell is: beside the manifest where it was committed, else in the store."""
    committed = folder / RECORDS / f"{key}.json"
    return committed if committed.exists() else store.path("cell", key) / RECORD


def _record(key: str, folder: Path, store: Store) -> dict[str, Any] | None:
    try:
        return json.loads(record_path(key, folder, store).read_text())
    except FileNotFoundError:
        return None


def _done(record: Mapping[str, Any], place: dict[str, Any], needs: tuple[str, ...]) -> Cell:
    if record["state"] != "done":
        raise ValueError(f"its state is {record['state']!r}")
    rating = record["defense_effectiveness_rating"]
    data = record.get("data") or {}
    return Cell(
        **place,
        needs=tuple(record.get("needs") or needs),
        state="done",
        before=_metrics(record["before"]),
        after=_metrics(record["after"]),
        floor=_metrics(record["floor"]) if record.get("floor") else NO_METRICS,
        defense_effectiveness_rating=None if rating is None else float(rating),
        seconds=float(record["seconds"]["total"]),
        training_images=data.get("training_images"),
        test_images=data.get("test_images"),
        stages={str(name): _metrics(values) for name, values in (record.get("stages") or {}).items()},
    )


def _metrics(values: Mapping[str, Any]) -> Metrics:
    def percent(name: str) -> float | None:
        value = values[name]
        return None if value is None else float(value)

    probability = percent("true_class_probability") if "true_class_probability" in values else None
    return Metrics(percent("clean_accuracy"), percent("attack_success_rate"), percent("robust_accuracy"), probability)


def _one_line(text: str) -> str:
    return " ".join(text.split())
