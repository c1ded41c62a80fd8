"""A measured table with its records, for git: what `OUTPUTS/reference/NAME` holds.

The models stay in the store; what was measured, how, where and when, is in the records. `ntml-table` reads such a folder as
it reads a sweep, and checks it against the checksums that are written here.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ntml_bench.errors import UserError
from ntml_bench.files import storage, temporary_path, write_file
from ntml_bench.integrity import CHECKSUMS, seal
from ntml_bench.records.cells import read_sweep
from ntml_bench.records.identity import made_again
from ntml_bench.records.manifest import KEPT, MANIFEST, RECORDS, SweepFolder
from ntml_bench.store import write_json


def keep_sweep(folder: Path, target: Path, joined: Sequence[Path] = ()) -> None:
    """Copy the manifest and the records of a finished sweep to `target`, in place of what is there.

    `joined`: sweeps whose cells are added, behind those of `folder`: seeds that were made elsewhere. A cell of the same key is
    taken once. Raises UserError for a sweep with cells that are not done, and for a cell that two sweeps made differently.
    """
    for path in (folder, *joined):
        _check_finished(path)
    if folder.resolve() == target.resolve() and not joined:
        return
    source = SweepFolder.open(folder)
    entries, records = list(source.entries), {entry["key"]: source.record(entry) for entry in source.entries}
    for other in map(SweepFolder.open, joined):
        for entry in other.entries:
            if entry["key"] not in records:
                _check_new(entry, entries, other.name)
                entries.append(entry)
                records[entry["key"]] = other.record(entry)
    files: dict[str, Any] = {f"{RECORDS}/{key}.json": record for key, record in records.items()}
    about = {"objective": source.objective, "command": source.command}
    files[MANIFEST] = {"sweep": source.name, "cells": entries} | {
        name: value for name, value in about.items() if value is not None
    }
    temporary = temporary_path(target)
    try:
        for name, value in files.items():
            write_json(temporary / name, value)
        write_file(temporary / CHECKSUMS, seal(KEPT, {name: (temporary / name).read_bytes() for name in files}))
        with storage("replace", target):
            if target.exists():
                shutil.rmtree(target)
            temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_finished(folder: Path) -> None:
    sweep = read_sweep(folder)
    missing = sum(cell.state != "done" for cell in sweep.cells)
    if missing:
        raise UserError(f"{missing} of the {len(sweep.cells)} cells of '{sweep.name}' are not done; only a whole table is kept")


def _check_new(entry: dict[str, Any], entries: Sequence[dict[str, Any]], sweep: str) -> None:
    """The same place in the table twice, from other images, code or in another precision, would be averaged or overwritten."""
    for known in entries:
        if made_again(known, entry):
            place = f"{entry['attack']} x {entry['defense']}, seed {entry['seed']}"
            raise UserError(f"--join: {place} of '{sweep}' ({entry['key']}) is there already, made otherwise ({known['key']})")
