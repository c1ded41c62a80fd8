"""A sweep folder as typed cells, in the order of its grid: what is done, with its numbers, and what is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ntml_bench.errors import UserError
from ntml_bench.files import StorageError
from ntml_bench.integrity import DamagedError
from ntml_bench.records.family import family_of
from ntml_bench.records.labels import Labels, label_cells
from ntml_bench.records.manifest import MANIFEST, SweepFolder
from ntml_bench.records.numbers import NO_METRICS, Metrics, read_count, read_metrics, read_number
from ntml_bench.records.targets import Target, mapped
from ntml_bench.records.told import check_told
from ntml_bench.records.tuned import Choice, read_choice

State = Literal["done", "running", "failed", "missing"]


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
    retuned: Metrics = NO_METRICS
    """The model after the defense, fine-tuned again on a few poisons; its floor is the clean model after the same."""
    retuned_floor: Metrics = NO_METRICS
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
    computed: str | None = None
    """On what kind of device, in which precision, with how many threads, in words; None where that was not written down."""
    stages: Mapping[str, Metrics] = field(default_factory=dict, hash=False)
    """Models between the stages of the defense, which it had measured."""
    fitted: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict, hash=False)
    """Settings of `attack` and `defense` that are those of a data set or a family, by who set them (FITTED_BY); empty in
    manifests that do not say it."""
    tuning: Choice | None = None
    """The strengths that the defense was taken from; None where it ran with its values as written."""
    target: Target | None = None
    """What the attack aims at; None without an attack, and in manifests that do not say it."""
    options: Labels = NO_OPTIONS
    """The names of the chosen options, without the settings that the labels tell cells apart by."""
    published_rate: float | None = None
    """The poisoning rate of the attack's publication, a share; None where none is known or the manifest does not say it."""


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
    sweep = SweepFolder.open(folder)
    try:
        labels = label_cells(sweep.entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / MANIFEST} has settings that make no labels ({type(error).__name__}: {error})") from None
    family_of(sweep.entries, sweep.name)
    cells: dict[tuple[Any, ...], Cell] = {}
    for entry, label in zip(sweep.entries, labels, strict=True):
        # Of two that differ in nothing that is shown (a floor was asked for later) the one that was asked for last counts.
        cells[label, entry["seed"]] = _cell(entry, label, sweep)
    return Sweep(sweep.name, tuple(cells.values()), sweep.objective)


def _cell(entry: Mapping[str, Any], labels: tuple[str, str, str, str], sweep: SweepFolder) -> Cell:
    dataset, model, attack, defense = labels
    key, seed, needs = entry["key"], entry["seed"], tuple(entry.get("needs") or ())
    place = {"key": key, "dataset": dataset, "model": model, "attack": attack, "defense": defense, "seed": seed}
    place["settings"] = entry.get("settings") or {}
    place["fitted"] = entry.get("fitted", {})
    place["target"] = _target(entry)
    place["published_rate"] = entry.get("published_rate")
    place["options"] = Labels(*(str(entry[group]) for group in Labels._fields))
    try:
        record = sweep.record(entry)
        if record is not None:
            return _done(record, place, needs)
    except (ValueError, KeyError, TypeError, AttributeError, StorageError) as error:
        said = str(error) if isinstance(error, DamagedError | StorageError) else f"{type(error).__name__}: {error}"
        return Cell(**place, needs=needs, state="failed", error=_one_line(f"its record cannot be read ({said})"))
    if sweep.store.locked("cell", key):
        return Cell(**place, needs=needs, state="running")
    error = sweep.failure(key)
    if error is None:
        return Cell(**place, needs=needs, state="missing")
    return Cell(**place, needs=needs, state="failed", error=_one_line(error))


def _done(record: Mapping[str, Any], place: dict[str, Any], needs: tuple[str, ...]) -> Cell:
    if record["state"] != "done":
        raise ValueError(f"its state is {record['state']!r}")
    data = record.get("data") or {}
    recorded = record.get("needs") or needs
    if not all(isinstance(need, str) for need in recorded):
        raise ValueError(f"its needs are {recorded!r:.80}")
    check_told(record)
    return Cell(
        **place,
        needs=tuple(recorded),
        state="done",
        before=read_metrics(record["before"]),
        after=read_metrics(record["after"]),
        floor=read_metrics(record["floor"]) if record.get("floor") else NO_METRICS,
        retuned=_metrics_in(record.get("retuned"), "after"),
        retuned_floor=_metrics_in(record.get("retuned"), "floor"),
        defense_effectiveness_rating=read_number(record["defense_effectiveness_rating"]),
        seconds=read_number(record["seconds"]["total"]),
        training_images=read_count(data.get("training_images")),
        test_images=read_count(data.get("test_images")),
        computed=_computed(record.get("environment") or {}),
        stages={str(name): read_metrics(values) for name, values in (record.get("stages") or {}).items()},
        tuning=None if record.get("tuning") is None else read_choice(record["tuning"]),
    )


def _metrics_in(measured: Mapping[str, Any] | None, name: str) -> Metrics:
    found = (measured or {}).get(name)
    return NO_METRICS if found is None else read_metrics(found)


def _computed(environment: Mapping[str, Any]) -> str | None:
    """The threads count on a CPU only: a GPU computes the same whatever waits for it."""
    if not environment.keys() >= {"device", "half_precision", "threads"}:
        return None
    precision = "bfloat16" if environment["half_precision"] else "float32"
    if environment["device"] != "cpu":
        return f"GPU, {precision}"
    threads = read_count(environment["threads"])
    return f"CPU, {precision}, {threads} {'thread' if threads == 1 else 'threads'}"


def _target(entry: Mapping[str, Any]) -> Target | None:
    targets = entry.get("targets")
    if targets is not None:
        whole = isinstance(targets, list) and all(type(target) is int for target in targets)
        return Target(entry["dataset"], entry["attack"], None, mapped(targets)) if whole else None
    name, number = entry.get("target_name"), ((entry.get("settings") or {}).get("attack") or {}).get("target_class")
    return Target(entry["dataset"], entry["attack"], number, name) if name is not None and type(number) is int else None


def _one_line(text: str) -> str:
    return " ".join(text.split())
