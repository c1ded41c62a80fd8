"""Where the sweep of a name is."""

from pathlib import Path

from ntml_bench.errors import UserError, unknown
from ntml_bench.records.manifest import MANIFEST

HOMES = ("sweeps", "reference")
"""Folders below `outputs` that hold sweeps; the first one that has the name wins."""


def find_sweep(name: str, outputs: Path) -> Path:
    """The folder of a sweep given by name or by path; UserError with the nearest name where there is none."""
    for folder in (*(outputs / home / name for home in HOMES), Path(name)):
        if (folder / MANIFEST).is_file():
            return folder
    if Path(name).is_dir():
        raise UserError(f"{name} holds no {MANIFEST}; it is not the folder of a sweep")
    known = {path.parent.name for home in HOMES for path in (outputs / home).glob(f"*/{MANIFEST}")}
    raise unknown("sweep", name, known)
