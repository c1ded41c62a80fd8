"""A measured table with its records, for git: what `OUTPUTS/reference/NAME` holds.

The models stay in the store; what was measured, how, where and when, is in the records. `ntml-table` reads such a folder as
it reads a sweep, and checks it against the checksums that are written here.
"""

import shutil
from pathlib import Path

from ntml_bench.errors import UserError
from ntml_bench.files import storage, temporary_path, write_file
from ntml_bench.integrity import CHECKSUMS, seal
from ntml_bench.records.cells import read_sweep
from ntml_bench.records.manifest import KEPT, MANIFEST, RECORDS, SweepFolder
from ntml_bench.store import write_json


def keep_sweep(folder: Path, target: Path) -> None:
    """Copy the manifest and the records of a finished sweep to `target`, in place of what is there.

    Raises UserError for a sweep with cells that are not done.
    """
    sweep = read_sweep(folder)
    missing = sum(cell.state != "done" for cell in sweep.cells)
    if missing:
        raise UserError(f"{missing} of the {len(sweep.cells)} cells of '{sweep.name}' are not done; only a whole table is kept")
    if folder.resolve() == target.resolve():
        return
    source = SweepFolder.open(folder)
    records = {entry["key"]: source.record(entry) for entry in source.entries}
    files = {f"{RECORDS}/{key}.json": record for key, record in records.items()}
    about = {"objective": source.objective, "command": source.command}
    files[MANIFEST] = {"sweep": source.name, "cells": list(source.entries)} | {
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
