"""A sweep's folder as all that its report shows. No torch, no model: records, and what the cells left to look at."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ntml_bench.files import StorageError
from ntml_bench.integrity import DamagedError
from ntml_bench.records.cells import read_sweep
from ntml_bench.records.manifest import STORES, SweepFolder
from ntml_bench.records.published.comparison import Comparison, compare
from ntml_bench.records.published.reference import read_reference
from ntml_bench.records.summary import Summary, summarise
from ntml_bench.report.data import Exhibit, Gallery, Report, ReportCell
from ntml_bench.report.stored import read_exhibit, read_gallery
from ntml_bench.store import Store

REFERENCE = "backdoorbench"
KEY = re.compile(r"[0-9a-f]{16}")


def read_report(folder: Path, reference: str | None = REFERENCE) -> Report:
    """What the sweep in `folder` has to show; `reference`: whose published numbers stand beside ours (None: nobody's).

    Raises UserError as `read_sweep`, and for an unknown reference. What can be read of a cell is there, what cannot be is None.
    """
    sweep, source = read_sweep(folder), SweepFolder.open(folder)
    summary = summarise(sweep)
    entries = {entry["key"]: entry for entry in source.entries}
    # Records that were kept or imported lie beside their manifest; what there is to look at is in the store in any case.
    roots = dict.fromkeys((source.store.root, *((folder / place).resolve() for place in STORES)))
    stores = [Store(root) for root in roots]

    @cache
    def exhibit(key: str) -> Exhibit | None:
        return next((found for store in stores if (found := read_exhibit(store, key)) is not None), None)

    def gallery(key: str, dataset: str, attack: str) -> Gallery | None:
        return next((found for store in stores if (found := read_gallery(store, key, dataset, attack)) is not None), None)

    galleries: dict[tuple[str, str], Gallery | None] = {}
    cells = []
    for cell in sweep.cells:
        record = _record(source, entries[cell.key]) if cell.state == "done" else None
        keys, place = _keys(record), (cell.dataset, cell.attack)
        if galleries.setdefault(place, None) is None and "gallery" in keys:
            galleries[place] = gallery(keys["gallery"], *place)
        before, after = (exhibit(keys[when]) if when in keys else None for when in ("before", "after"))
        cells.append(ReportCell(cell, record, before, after))
    comparison = None if reference is None else _comparison(summary, reference)
    shown = tuple(found for found in galleries.values() if found is not None)
    return Report(summary, comparison, shown, tuple(cells), source.command)


def _record(source: SweepFolder, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        return source.record(entry)
    except (DamagedError, StorageError):
        return None  # it was removed in this moment


def _keys(record: Mapping[str, Any] | None) -> dict[str, str]:
    """The keys that a record names; records of the first version name none."""
    named = (record or {}).get("exhibits")
    found = named.items() if isinstance(named, Mapping) else ()
    return {what: key for what, key in found if isinstance(key, str) and KEY.fullmatch(key)}


def _comparison(summary: Summary, reference: str) -> Comparison | None:
    """None where no cell has a published number."""
    comparison = compare(summary, read_reference(reference))
    return comparison if any(line.published for line in comparison.lines) else None
