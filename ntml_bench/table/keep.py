"""A measured table with its records, for git: what `OUTPUTS/reference/NAME` holds.

The models stay in the store; what was measured, how, where and when, is in the records. `ntml-table` reads such a folder as
it reads a sweep.
"""

import json
import shutil
from pathlib import Path

from ntml_bench.errors import UserError
from ntml_bench.store import Store, write_json
from ntml_bench.table.cells import MANIFEST, RECORDS, read_sweep, record_path


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
    manifest = json.loads((folder / MANIFEST).read_text())
    store = Store((folder / manifest.get("store", ".")).resolve())
    shutil.rmtree(target, ignore_errors=True)
    (target / RECORDS).mkdir(parents=True)
    for key in dict.fromkeys(cell.key for cell in sweep.cells):
        shutil.copyfile(record_path(key, folder, store), target / RECORDS / f"{key}.json")
    write_json(target / MANIFEST, {key: manifest[key] for key in ("sweep", "cells", "objective") if key in manifest})
