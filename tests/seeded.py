"""Sweeps of many seeds whose numbers scatter around given means."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from table_records import entry, metrics, record

ATTACKS = ("badnets", "blended", "sig", "lc")
MEANS = {"none": (95.0, 96.0), "ft": (94.0, 60.0), "nad": (93.0, 58.0), "nt_ml": (91.0, 10.0)}
"""Clean accuracy and attack success rate by defense."""
SCATTER = (0.5, 6.0)
"""Standard deviations over seeds."""


def seeded(
    seeds: Sequence[int],
    *,
    attacks: Sequence[str] = ATTACKS,
    means: Mapping[str, tuple[float, float]] = MEANS,
    draw: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Manifest cells and records; the numbers of a cell are the same whichever other seeds are asked for."""
    cells, records = [], []
    for attack in attacks:
        for seed in seeds:
            found = {}
            for index, (defense, (accuracy, rate)) in enumerate(means.items()):
                noise = np.random.default_rng([draw, seed, index, *attack.encode()]).normal(0, SCATTER)
                clean, success = np.clip(np.array([accuracy, rate]) + noise, 0, 100).round(2)
                found[defense] = metrics(float(clean), float(success), float(100 - success))
            for defense, after in found.items():
                cell = entry(attack, defense, seed, settings=settings)
                cell["data"] = {"whole": "0123456789abcdef", "folder": None, "place": None}
                cell["code"] = {"engine": 1, "attack": {"version": 1}, "defense": {"version": 1}}
                cells.append(cell)
                done = record(cell, after, found.get("none"), metrics(96.0 + 0.1 * (seed % 3), 1.0 + seed % 2, 95.0))
                done["data"] = {"fingerprint": "0123456789abcdef", "training_images": 6000, "test_images": 2000}
                records.append(done)
    return cells, records
