"""Synthetic sweeps on disk, in the format that a sweep leaves: a manifest, a store, records, failures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ntml_bench.integrity import CHECKSUMS, seal
from ntml_bench.records.manifest import KEPT, MANIFEST
from ntml_bench.store import RECORD, TENSORS, key_of

NEEDS = {"ft": ["clean_budget"], "nt_ml": ["clean_budget"], "abl": ["poisoned_training_set"]}


def entry(
    attack: str,
    defense: str,
    seed: int = 0,
    *,
    dataset: str = "digit_scenes",
    model: str = "resnet_tiny",
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A cell of a manifest; `settings` are laid over the plain ones, group by group."""
    full: dict[str, Any] = {
        "dataset": {"name": dataset, "seed": 7},
        "model": {"name": model},
        "attack": {"name": attack, "poisoning_rate": 0.1},
        "defense": {"name": defense, "temperature": 4.0},
        "training": {"epochs": 20},
        "seed": seed,
        "clean_budget": 0.05,
    }
    for group, values in (settings or {}).items():
        full[group] = {**full.get(group, {}), **values} if isinstance(values, Mapping) else values
    place = {"dataset": dataset, "model": model, "attack": attack, "defense": defense, "seed": seed}
    return {**place, "key": key_of(full), "needs": NEEDS.get(defense, []), "settings": full}


def metrics(clean: float, attack: float | None = None, robust: float | None = None) -> dict[str, float | None]:
    return {"clean_accuracy": clean, "attack_success_rate": attack, "robust_accuracy": robust}


def rating(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """DER in percent, from its definition."""
    drop = max(0.0, before["attack_success_rate"] - after["attack_success_rate"])
    loss = max(0.0, before["clean_accuracy"] - after["clean_accuracy"])
    return (drop - loss + 100.0) / 2


def record(
    cell: Mapping[str, Any],
    after: Mapping[str, Any],
    before: Mapping[str, Any] | None = None,
    floor: Mapping[str, Any] | None = None,
    *,
    seconds: float = 12.5,
) -> dict[str, Any]:
    """The record of a done cell, with a training curve of three epochs."""
    before = before or after
    rated = cell["defense"] != "none" and cell["attack"] != "none"
    return {
        **cell,
        "state": "done",
        "before": dict(before),
        "after": dict(after),
        "floor": None if floor is None else dict(floor),
        "defense_effectiveness_rating": rating(before, after) if rated else None,
        "seconds": {"attack": 1.0, "defense": 2.0, "evaluation": 0.5, "total": seconds},
        "history": [{"stage": "backdoor", "epoch": epoch, "loss": 1.0 / (epoch + 1)} for epoch in range(3)],
        "stages": {},
        "environment": {},
        "notes": {},
    }


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_artifact(store: Path, name: str, key: str, record: Mapping[str, Any]) -> Path:
    """An artifact without tensors, with its checksums; its folder."""
    folder = store / f"{name}-{key}"
    contents = {RECORD: json.dumps(record).encode(), TENSORS: b""}
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in {**contents, CHECKSUMS: seal({"name": name, "key": key}, contents)}.items():
        (folder / file).write_bytes(content)
    return folder


def write_sweep(outputs: Path, name: str, cells: list[dict[str, Any]], records: list[dict[str, Any]]) -> Path:
    """`outputs/sweeps/NAME` with its manifest, the records in `outputs/store`; the sweep's folder."""
    folder = outputs / "sweeps" / name
    write(folder / MANIFEST, {"sweep": name, "store": "../../store", "cells": cells})
    for done in records:
        write_artifact(outputs / "store", "cell", done["key"], done)
    return folder


def write_kept(folder: Path, name: str, cells: list[dict[str, Any]], records: list[dict[str, Any]]) -> None:
    """A manifest with the records beside it, and their checksums."""
    files = {MANIFEST: {"sweep": name, "cells": cells}, **{f"records/{done['key']}.json": done for done in records}}
    for path, value in files.items():
        write(folder / path, value)
    (folder / CHECKSUMS).write_bytes(seal(KEPT, {path: (folder / path).read_bytes() for path in files}))


def write_failure(outputs: Path, cell: Mapping[str, Any], error: str) -> None:
    write(outputs / "store" / f"cell-{cell['key']}.failed.json", {"error": error, "traceback": "Traceback ..."})


GOLDEN = {
    # attack: (floor, {defense: metrics of seed 0 and of seed 1})
    "badnets": (
        metrics(97, 1, 95),
        {
            "none": (metrics(96, 100, 0), metrics(98, 98, 2)),
            "ft": (metrics(95, 50, 45), metrics(97, 30, 65)),
            "nt_ml": (metrics(94, 4, 90), metrics(96, 2, 92)),
        },
    ),
    "sig": (
        metrics(97, 20, 70),
        {
            "none": (metrics(96, 90, 8), metrics(96, 94, 4)),
            "ft": (metrics(80, 10, 70), metrics(84, 20, 66)),
            "nt_ml": (metrics(96, 40, 50), metrics(95, 60, 30)),
        },
    ),
    "none": (
        None,
        {
            "none": (metrics(97), metrics(98)),
            "ft": (metrics(96), metrics(97)),
            "nt_ml": (metrics(95), metrics(96)),
        },
    ),
}


def golden(seeds: tuple[int, ...] = (0, 1)) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Manifest cells and records of the hand-checked sweep."""
    cells, records = [], []
    for attack, (floor, defenses) in GOLDEN.items():
        for defense, by_seed in defenses.items():
            for seed in seeds:
                cell = entry(attack, defense, seed)
                cells.append(cell)
                records.append(record(cell, by_seed[seed], defenses["none"][seed], floor))
    return cells, records
