"""The list of a sweep's cells on disk: what the table, the status and the housekeeping know a sweep by."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ntml_bench.app.cell import Cell
from ntml_bench.app.command import joined, typed_command
from ntml_bench.app.settings import Settings
from ntml_bench.errors import UserError
from ntml_bench.locks import held
from ntml_bench.records.family import family_of
from ntml_bench.records.identity import replaced
from ntml_bench.records.manifest import LONGEST_COMMAND, MANIFEST, SweepFolder
from ntml_bench.store import write_json


def sweep_folder(settings: Settings) -> Path:
    return Path(settings.general.outputs) / "sweeps" / settings.general.sweep


def write_manifest(cells: Sequence[Cell]) -> int:
    """Say which cells the sweep has, in the order of its grid, so that the table knows what is missing.

    Returns how many cells an earlier command listed that are not among them. Raises UserError for cells of two families.
    """
    settings, entries = cells[0].settings, [cell.manifest_entry() for cell in cells]
    try:
        before = SweepFolder.open(sweep_folder(settings)).entries
    except UserError:
        before = ()  # None was there, or none that can be read.
    _write(settings, entries, typed_command())
    keys = {entry["key"] for entry in entries}
    return sum(entry["key"] not in keys for entry in replaced(before, entries))


def add_to_manifest(cells: Sequence[Cell]) -> None:
    """The same for cells that run beside others: alone, in jobs of their own, or in a later batch of one sweep."""
    folder = sweep_folder(cells[0].settings)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / ".manifest.lock"):
        known = SweepFolder.open(folder) if (folder / MANIFEST).exists() else None
        before = [] if known is None else list(known.entries)
        entries = replaced(before, [cell.manifest_entry() for cell in cells])
        if entries != before:
            _write(cells[0].settings, entries, joined(known and known.command, typed_command()))


def _write(settings: Settings, entries: list[dict[str, Any]], command: str | None) -> None:
    folder = sweep_folder(settings)
    family_of(entries, folder.name)
    manifest = {"sweep": folder.name, "store": "../../store", "cells": entries}
    if settings.general.objective is not None:
        manifest["objective"] = settings.general.objective
    # A longer one would not be read.
    if command is not None and len(command) <= LONGEST_COMMAND:
        manifest["command"] = command
    write_json(folder / MANIFEST, manifest)
