"""Which tables a site shows, and under which names their pages lie."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ntml_bench.errors import UserError
from ntml_bench.files import storage
from ntml_bench.records.manifest import MANIFEST, RECORDS


@dataclass(frozen=True)
class LeftOut:
    """A table that cannot be shown."""

    folder: Path
    reason: str


def tables_in(folders: Iterable[Path]) -> list[Path]:
    """The tables in those folders, by name within each; a folder may be a table itself. None of them twice.

    Raises UserError for a folder that is none or that holds no table, and StorageError.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; --site takes folders of kept tables, as OUTPUTS/reference is one")
        with storage("read", folder):
            tables = [folder] if _is_table(folder) else sorted(path for path in folder.iterdir() if _is_table(path))
        if not tables:
            raise UserError(
                f"{folder} holds no kept table: no folder in it has a {MANIFEST}; ntml-table SWEEP --keep makes one"
            )
        for table in tables:
            found.setdefault(table.resolve(), table)
    return list(found.values())


def _is_table(path: Path) -> bool:
    """Also one that has lost its manifest; hidden folders are tables that are being written."""
    return not path.name.startswith(".") and ((path / MANIFEST).is_file() or (path / RECORDS).is_dir())


def page_names(folders: Sequence[Path]) -> list[str]:
    """A name of a file for the page of each folder: the folder's own, numbered where another has it already.

    Names that differ in the case of letters only are one name to some disks.
    """
    used: set[str] = set()
    names = []
    for folder in folders:
        stem, number = folder.resolve().name, 1
        name = stem
        while name.casefold() in used:
            number += 1
            name = f"{stem}-{number}"
        used.add(name.casefold())
        names.append(f"{name}.html")
    return names
