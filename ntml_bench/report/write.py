"""The files of a report: the page, and its figures for papers and slides."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from ntml_bench.files import write_file
from ntml_bench.records.manifest import RECORDS, SweepFolder
from ntml_bench.report.data import Gallery, Report
from ntml_bench.report.figures import drawings
from ntml_bench.report.figures.gallery import galleries
from ntml_bench.report.figures.names import Names
from ntml_bench.report.page import render_gallery, render_report
from ntml_bench.store import RECORD

PAGE = "report.html"
FIGURES = "figures"


def write_report(report: Report, folder: Path, target: Path, *, pdf: bool = False) -> list[Path]:
    """Write the page and the figures of the sweep in `folder` into `target`; their paths, the page first. `pdf`: the figures
    as PDF too.

    Raises StorageError where that cannot be.
    """
    drawn = tuple(drawings(report))
    page = target / PAGE
    write_file(page, render_report(report, drawn, record_links(report, folder, target)).encode(errors="replace"))
    return [page, *(path for drawing in drawn for path in drawing.write(target / FIGURES, pdf=pdf))]


def write_gallery(gallery: Gallery, target: Path, name: str, *, pdf: bool = False) -> list[Path]:
    """Write NAME.html and the figure of that gallery into `target`; their paths."""
    page = target / f"{name}.html"
    write_file(page, render_gallery(gallery).encode(errors="replace"))
    (drawn,) = galleries(gallery.dataset, [gallery], Names(), several=False)
    return [page, *replace(drawn, name=name).write(target, pdf=pdf)]


def record_links(report: Report, folder: Path, target: Path) -> Mapping[str, str]:
    """Where the record of each cell is, seen from `target`, by the cell's key; those that are there."""
    store = SweepFolder.open(folder).store
    links = {}
    for entry in report.cells:
        key = entry.cell.key
        places = (folder / RECORDS / f"{key}.json", store.path("cell", key) / RECORD)
        for path in places:
            if entry.record is not None and path.is_file():
                links[key] = quote(Path(os.path.relpath(path.resolve(), target.resolve())).as_posix())
                break
    return links
