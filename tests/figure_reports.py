"""Reports to draw: records as a sweep leaves them, with invented images and features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from table_records import metrics, rating

from ntml_bench.records.cells import Cell, Metrics, Sweep, read_sweep
from ntml_bench.records.manifest import SweepFolder
from ntml_bench.records.summary import summarise
from ntml_bench.report.data import Exhibit, Gallery, Report, ReportCell

CLASSES = ("airplane", "automobile", "bird", "cat")


def exhibit(way: float, seed: int = 0, clean: int = 150, triggered: int = 90) -> Exhibit:
    """Clusters of four classes; the triggered images lie that far (0 to 1) on the way to the target class."""
    draw = np.random.default_rng(seed)
    labels = np.arange(clean) % len(CLASSES)
    places = np.where(labels[:, None] == 0, (8.0, 0.0), np.stack([np.zeros(clean), 3.0 * (labels - 2)], 1))
    true = 1 + np.arange(triggered) % 3
    moved = np.stack([np.full(triggered, 8.0 * way), 3.0 * (1 - way) * (true - 2)], 1)
    return Exhibit(
        clean_map=(places + draw.normal(0, 0.7, (clean, 2))).astype(np.float32),
        clean_labels=labels,
        triggered_map=(moved + draw.normal(0, 0.6, (triggered, 2))).astype(np.float32),
        triggered_labels=true,
        true_class_probability=(100 * draw.beta(0.3 + 3 * (1 - way), 0.3 + 3 * way, triggered)).astype(np.float32),
        target_class=0,
    )


def gallery(attack: str, dataset: str = "digit_scenes", channels: int = 3, side: int = 32, shift: int = 12) -> Gallery:
    """Smooth colours under a pattern of +-`shift` steps."""
    draw = np.random.default_rng(len(attack))
    coarse = draw.integers(20, 236, (4, 4, 4, channels))
    clean = coarse.repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)[:, :side, :side].astype(np.uint8)
    pattern = shift * np.sign(np.sin(np.arange(side) / 2))[None, :, None]
    triggered = np.clip(clean + pattern, 0, 255).astype(np.uint8)
    return Gallery(dataset, attack, CLASSES[0], clean, triggered, CLASSES, 300, 26.5 if shift else np.inf, 0.8765, shift)


def report_of_folder(folder: Path, looked_into: bool = True) -> Report:
    """Of a sweep on disk; each cell that is done gets exhibits by its attack success rates."""
    summary = summarise(read_sweep(folder))
    opened = SweepFolder.open(folder)
    records = {entry["key"]: opened.record(entry) for entry in opened.entries}
    cells = tuple(_looked_into(cell, records.get(cell.key), index, looked_into) for index, cell in enumerate(summary.cells))
    attacks = {(cell.dataset, cell.attack): None for cell in summary.cells if cell.attack != "none"}
    found = [gallery(attack, dataset, shift=8 + 12 * index) for index, (dataset, attack) in enumerate(attacks)]
    return Report(summary, None, tuple(found) if looked_into else (), cells, "ntml-bench -m ...")


def _looked_into(cell: Cell, record: Mapping[str, Any] | None, seed: int, wanted: bool) -> ReportCell:
    before, after = cell.before.attack_success_rate, cell.after.attack_success_rate
    if not wanted or before is None or after is None:
        return ReportCell(cell, record, None, None)
    return ReportCell(cell, record, exhibit(before / 100, seed), exhibit(after / 100, seed))


def done_cell(attack: str, defense: str, seed: int = 0, *, dataset: str = "digit_scenes", model: str = "resnet_tiny") -> Cell:
    """A cell in memory, whose labels may hold anything."""
    before, after = metrics(96, 99, 1), metrics(92 - seed, 10 + seed, 85)
    names = {"dataset": dataset, "model": model, "attack": attack, "defense": defense, "seed": seed}
    return Cell(
        key=f"{len(attack)}-{seed}", needs=(), state="done", **names,  # pyright: ignore[reportArgumentType]
        before=Metrics(**before, true_class_probability=1.5), after=Metrics(**after, true_class_probability=80.0),
        floor=Metrics(97, 1, 95, 90.0), defense_effectiveness_rating=rating(before, after),
    )  # fmt: skip


def report_of(cells: Sequence[Cell], history: Sequence[Mapping[str, Any]] = (), looked_into: bool = True) -> Report:
    """Of cells in memory that share a history."""
    attacks = {(cell.dataset, cell.attack): None for cell in cells}
    entries = [
        _looked_into(
            cell, {"history": list(history)} if cell.state == "done" else None, index, looked_into and cell.state == "done"
        )
        for index, cell in enumerate(cells)
    ]
    found = [gallery(attack, dataset) for dataset, attack in attacks] if looked_into else []
    return Report(summarise(Sweep("some", tuple(cells))), None, tuple(found), tuple(entries), None)
