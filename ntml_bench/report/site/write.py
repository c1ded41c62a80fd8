"""The files of a site: the index, and one page a table. Nothing on them leads out of the site's folder."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from ntml_bench.errors import UserError
from ntml_bench.files import write_file
from ntml_bench.records.published.reference import read_reference
from ntml_bench.records.view import reconstructions
from ntml_bench.report.figures import drawings
from ntml_bench.report.page import render_report
from ntml_bench.report.read import read_report
from ntml_bench.report.site.index import render_index
from ntml_bench.report.site.line import Line, lines_of
from ntml_bench.report.site.tables import LeftOut, page_names, tables_in

INDEX = "index.html"
PAGES = "tables"


@dataclass(frozen=True)
class Written:
    """What was written, and what was left out."""

    index: Path
    pages: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def write_site(folders: Sequence[Path], target: Path, reference: str | None) -> Written:
    """Write the site of all tables in `folders` into `target`; `reference`: whose published numbers stand in the reports.

    A table that cannot be read is left out. Raises UserError where there is none that can, for a folder without a table and
    for an unknown reference, and StorageError where nothing can be written.
    """
    if reference is not None:
        read_reference(reference)  # an unknown one is no fault of a table
    tables = tables_in(folders)
    lines: list[Line] = []
    said: dict[str, None] = {}
    pages: list[Path] = []
    left_out: list[LeftOut] = []
    for table, name in zip(tables, page_names(tables), strict=True):
        try:
            report = read_report(table, reference)
            if not report.cells:
                raise UserError("it has no cells")
        except UserError as error:
            left_out.append(LeftOut(table, str(error)))
            continue
        page = target / PAGES / name
        text = render_report(report, drawings(report), home=f"../{INDEX}")
        write_file(page, text.encode(errors="replace"))
        pages.append(page)
        lines += lines_of(report, f"{PAGES}/{quote(os.fsencode(name))}", str(table), len(lines))
        said.update(dict.fromkeys(reconstructions(report.summary)))
    if not lines:
        raise UserError(f"no table can be read: {'; '.join(f'{one.folder}: {one.reason}' for one in left_out)}")
    index = target / INDEX
    write_file(index, render_index(_told_apart(lines), tuple(said), left_out).encode(errors="replace"))
    return Written(index, tuple(pages), tuple(left_out))


def _told_apart(lines: Sequence[Line]) -> list[Line]:
    """Where a table is, is said only of those that share a name."""
    tables = Counter(name for name, _ in {(line.name, line.page) for line in lines})
    return [line if tables[line.name] > 1 else replace(line, where="") for line in lines]
