"""What one process keeps over many cells: loaded data, progress, tracking, and the sweep's manifest and table at the end."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console

from ntml_bench.app.cell import Cell
from ntml_bench.app.progress import Progress
from ntml_bench.app.settings import Settings
from ntml_bench.data import ImageData
from ntml_bench.data.loading import load
from ntml_bench.engine import Engine
from ntml_bench.store import key_of, plain, write_json
from ntml_bench.table.cells import MANIFEST
from ntml_bench.table.render import render_sweep
from ntml_bench.table.terminal import print_table
from ntml_bench.tracking import Tracker

KEPT_DATASETS = 4


class Session:
    """The cells of one sweep, run one after the other. `failed` holds a line for each that failed."""

    def __init__(self, total: int, console: Console) -> None:
        self.console = console
        self.progress = Progress(total, console)
        self.failed: list[str] = []
        self._data: dict[str, ImageData] = {}
        self._tracker: Tracker | None = None

    def cell(self, settings: Settings) -> Cell:
        """The cell of these settings, checked. Raises UserError."""
        self._tracker_of(settings)  # says now, not behind the first cell, that W&B is missing
        return Cell(settings, self._load(settings))

    def run(self, cell: Cell) -> dict[str, Any] | None:
        """The record of a cell, made where it is missing; None where it failed, which is then on disk and in `failed`."""
        self.progress.start(cell.name)
        found = cell.record() is not None
        try:
            record = cell.run(self.progress.say)
        except Exception as error:
            self.failed.append(f"{cell.name}: {type(error).__name__}: {error}")
            self.progress.failed(cell.name, error)
            return None
        self._tracker_of(cell.settings).log_cell(record)
        self.progress.done(cell.name, record, found)
        return record

    def render(self, settings: Settings) -> None:
        """Write the sweep's table in all formats, print it, track it."""
        general = settings.general
        target = Path(general.outputs) / "tables" / general.sweep
        summary = render_sweep(sweep_folder(settings), target)
        self._tracker_of(settings).log_table(summary, target / "table.png")
        print_table(summary, self.console)
        self.console.print(f"Table written to {target}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.progress.close()

    def _tracker_of(self, settings: Settings) -> Tracker:
        if self._tracker is None:
            self._tracker = Tracker(settings.tracking, sweep_folder(settings), settings.general.sweep, self.progress.note)
        return self._tracker

    def _load(self, settings: Settings) -> ImageData:
        general, config = settings.general, settings.dataset.config
        draws = config.holdout > 0 or config.train_limit is not None or config.test_limit is not None
        key = key_of(
            {
                "dataset": plain(config),
                "seed": general.seed if draws else None,
                "device": general.device,
                "dir": general.data_dir,
            }
        )
        if key not in self._data:
            self.progress.say(f"loading {settings.labels['dataset']}")
            device = Engine.create(general.device, general.precision, general.deterministic).device
            if len(self._data) >= KEPT_DATASETS:
                self._data.pop(next(iter(self._data)))
            self._data[key] = load(settings.dataset, Path(general.data_dir), general.seed).to(device)
        return self._data[key]


def sweep_folder(settings: Settings) -> Path:
    return Path(settings.general.outputs) / "sweeps" / settings.general.sweep


def write_manifest(cells: Sequence[Cell]) -> None:
    """Say on disk which cells the sweep has, in the order of its grid, so that the table knows what is missing."""
    folder = sweep_folder(cells[0].settings)
    _write_manifest(folder, [cell.manifest_entry() for cell in cells])


def add_to_manifest(cell: Cell) -> None:
    """The same for a cell that runs alone, or in a job of its own beside others."""
    folder = sweep_folder(cell.settings)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".manifest.lock"):
        entries = _manifest_entries(folder)
        if all(entry["key"] != cell.key for entry in entries):
            _write_manifest(folder, [*entries, cell.manifest_entry()])


def _manifest_entries(folder: Path) -> list[dict[str, Any]]:

    path = folder / MANIFEST
    return json.loads(path.read_text())["cells"] if path.exists() else []


def _write_manifest(folder: Path, entries: list[dict[str, Any]]) -> None:
    write_json(folder / MANIFEST, {"sweep": folder.name, "store": "../../store", "cells": entries})
