"""Sweeps by hand whose defenses were tuned at a price: two strengths of ft and nt_ml, one attack, all numbers known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from table_records import entry, metrics, record, write_sweep

BEFORE = (metrics(90, 100, 0), metrics(94, 98, 2))
"""Of seed 0 and of seed 1."""
VALUES = (0.01, 0.1)
AFTER = {
    # defense: ACC, ASR and RA at each strength, of seed 0 and of seed 1
    "ft": (((90, 80, 15), (92, 70, 25)), ((84, 40, 50), (88, 20, 70))),
    "nt_ml": (((91, 60, 30), (93, 50, 40)), ((80, 4, 70), (70, 2, 68))),
}
FALLS = {"ft": ((-1.0, 3.0), (0.5, 4.0)), "nt_ml": ((2.5, 12.0), (1.5, 10.0))}
"""On the validation images, by seed and strength; the standard error is 0.5 everywhere."""


def tuned_settings(price: float) -> dict[str, Any]:
    strength = {"setting": "temperature", "values": list(VALUES)}
    return {"temperature": "tuned", "tuning": "price", "price": price, "validation_share": 0.3, "strength": strength}


def tuning(defense: str, seed: int, price: float) -> dict[str, Any]:
    """As a record holds it."""
    candidates = []
    for index, (value, fall) in enumerate(zip(VALUES, FALLS[defense][seed], strict=True)):
        after = {**metrics(*AFTER[defense][index][seed]), "true_class_probability": 50.0}
        numbers = {"accuracy": 95.0 - fall, "fall": fall, "standard_error": 0.5, "affordable": fall <= price + 0.5}
        candidates.append({"value": value, **numbers, "after": after, "seconds": 1.5})
    affordable = [found["value"] for found in candidates if found["affordable"]]
    return {
        "setting": "temperature",
        "price": price,
        "validation_images": 40,
        "accuracy_before": 95.0,
        "chosen": affordable[-1] if affordable else None,
        "candidates": candidates,
    }


def tuned_cell(defense: str, seed: int, price: float, attack: str = "badnets") -> tuple[dict[str, Any], dict[str, Any]]:
    """The entry of the manifest, and the record."""
    cell = entry(attack, defense, seed, settings={"defense": tuned_settings(price)})
    found = tuning(defense, seed, price)
    chosen = [each["after"] for each in found["candidates"] if each["value"] == found["chosen"]]
    return cell, {**record(cell, (chosen or [BEFORE[seed]])[0], BEFORE[seed]), "tuning": found}


def tuned_sweep(
    outputs: Path,
    prices: Sequence[float] = (1, 5),
    *,
    attacks: Sequence[str] = ("badnets",),
    more: Sequence[tuple[dict[str, Any], dict[str, Any]]] = (),
) -> Path:
    """The folder of the sweep: all defenses of AFTER at these prices, two seeds; `more`: other cells with their records."""
    pairs = [
        tuned_cell(defense, seed, price, attack)
        for attack in attacks
        for defense in AFTER
        for price in prices
        for seed in (0, 1)
    ]
    pairs += more
    return write_sweep(outputs, "tuned", [cell for cell, _ in pairs], [done for _, done in pairs])
