"""What one process keeps over many cells: loaded data, progress, tracking, and the sweep's manifest and table at the end."""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
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
from ntml_bench.table.family import family_of
from ntml_bench.table.render import render_sweep
from ntml_bench.table.terminal import print_table
from ntml_bench.tracking import Tracker

KEPT_DATASETS = 4


class Session:
    """The cells of one sweep, run one or a few at a time. `failed` holds a line for each that failed."""

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

    def run(self, cells: Sequence[Cell], workers: int) -> list[dict[str, Any] | None]:
        """The records of the cells, in their order, made where they are missing; None for a cell that failed.

        `workers` cells run at a time, in threads. A failure is on disk and in `failed`; the other cells go on.
        """
        records: dict[Cell, dict[str, Any] | None] = dict.fromkeys(cells)
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads,))
        try:
            # The model that all floors wait for, before the cells: else a worker would wait for another that trains it.
            for cell in {cell.stages.clean_key: cell for cell in cells if cell.needs_floor}.values():
                pool.submit(self._train_clean, cell)
            futures = {pool.submit(self._run_one, cell): cell for cell in victims_first(cells)}
            for future in as_completed(futures):
                cell = futures[future]
                records[cell] = record = future.result()
                if record is not None:
                    # Here, in one thread, and behind the record: what was killed before this is logged by the next run.
                    self._tracker_of(cell.settings).log_cell(record)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return list(records.values())

    def _train_clean(self, cell: Cell) -> None:
        progress = self.progress.cell("clean model")
        try:
            cell.train_clean(progress.say)
        finally:
            progress.close()

    def _run_one(self, cell: Cell) -> dict[str, Any] | None:
        progress = self.progress.cell(cell.name)
        found = cell.record() is not None
        try:
            record = cell.run(progress.say)
        except Exception as error:
            self.failed.append(f"{cell.name}: {type(error).__name__}: {error}")
            progress.failed(error)
            return None
        progress.done(record, found)
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
            device = Engine.create(general.device, general.precision, general.deterministic).device
            if len(self._data) >= KEPT_DATASETS:
                self._data.pop(next(iter(self._data)))
            self._data[key] = load(settings.dataset, Path(general.data_dir), general.seed).to(device)
        return self._data[key]


def victims_first(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each backdoored model, then the others: so that workers do not wait for each other's trainings."""
    first = {cell.stages.victim_key: cell for cell in reversed(cells)}
    leading = [cell for cell in cells if first[cell.stages.victim_key] is cell]
    return leading + [cell for cell in cells if first[cell.stages.victim_key] is not cell]


def share_processor(settings: Settings, single: bool) -> int:
    """How many cells run at a time; sets the threads that each computes with.

    On a GPU, and where `workers` says so, one. On a CPU two cells at a time, each with half of the cores, do more than one
    after the other with all of them: the kernels are small. The number of threads decides the last bits of a sum, so
    a deterministic single cell computes with as many as it would in a sweep.
    """
    general = settings.general
    on_cpu = Engine.create(general.device, general.precision, general.deterministic).device.type == "cpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = general.workers or (2 if on_cpu and cores > 1 else 1)
    if single and not general.deterministic:
        workers = 1
    if on_cpu:
        torch.set_num_threads(max(1, cores // workers))
    return 1 if single else workers


def sweep_folder(settings: Settings) -> Path:
    return Path(settings.general.outputs) / "sweeps" / settings.general.sweep


def write_manifest(cells: Sequence[Cell]) -> None:
    """Say on disk which cells the sweep has, in the order of its grid, so that the table knows what is missing.

    Raises UserError for cells of two families.
    """
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
    family_of(entries, folder.name)
    write_json(folder / MANIFEST, {"sweep": folder.name, "store": "../../store", "cells": entries})
