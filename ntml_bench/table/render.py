"""Files of a table: each format written whole or not at all."""

from collections.abc import Iterable
from pathlib import Path

from ntml_bench.errors import unknown
from ntml_bench.files import write_file
from ntml_bench.records.cells import read_sweep
from ntml_bench.records.rows import render_csv
from ntml_bench.records.summary import Summary, summarise
from ntml_bench.records.view import Sections, sections_of
from ntml_bench.table.ablation.files import FILES as ABLATION_FILES
from ntml_bench.table.ablation.files import render_ablation
from ntml_bench.table.latex import render_latex
from ntml_bench.table.markdown import render_markdown
from ntml_bench.table.prices import FILES as PRICE_FILES
from ntml_bench.table.prices import render_prices
from ntml_bench.table.stages import render_stages
from ntml_bench.table.statistics import FILES as STATISTICS_FILES
from ntml_bench.table.statistics import render_statistics
from ntml_bench.table.web import render_html

FILES = {"csv": "cells.csv", "md": "table.md", "tex": "table.tex", "html": "table.html", "png": "table.png"}
FORMATS = tuple(FILES)
STAGES = "stages.md"
"""Goes with table.md, where a defense had models measured between its stages."""


def render_sweep(
    sweep_folder: Path, target: Path, formats: Iterable[str] = FORMATS, sections: Sections | None = None
) -> Summary:
    """Read the sweep in `sweep_folder` and write its table into `target`, finished or not; its ablation, if it is one,
    its statistics, if it has seeds enough, and the curves of its defenses, if they were tuned, too. Without `sections` it
    shows what the sweep measured.

    Raises UserError for a folder without a readable manifest, for an unknown format and where nothing can be written.
    """
    wanted = tuple(formats)
    for name in wanted:
        if name not in FILES:
            raise unknown("format", name, FORMATS)
    summary = summarise(read_sweep(sweep_folder))
    sections = sections or sections_of(summary)
    for name in wanted:
        write_file(target / FILES[name], _rendered(name, summary, sections))
    stages = render_stages(summary) if "md" in wanted else None
    if stages is not None:
        write_file(target / STAGES, stages.encode())
    more = render_ablation(summary, wanted, sections) | render_statistics(summary, wanted) | render_prices(summary, wanted)
    for name, content in more.items():
        if content is not None:
            write_file(target / name, content)
        else:
            (target / name).unlink(missing_ok=True)  # of an earlier sweep of that name
    return summary


def files_of(formats: Iterable[str]) -> list[str]:
    """The names of all files that `render_sweep` may write in these formats."""
    formats = tuple(formats)
    return [FILES[name] for name in formats] + [STAGES] * ("md" in formats) + _of_some_sweeps(formats)


def written(target: Path, formats: Iterable[str]) -> list[Path]:
    """What `render_sweep` has just written there, but for the stages."""
    formats = tuple(formats)
    others = [target / name for name in _of_some_sweeps(formats)]
    return [target / FILES[name] for name in formats] + [path for path in others if path.exists()]


def _of_some_sweeps(formats: tuple[str, ...]) -> list[str]:
    names = [name for format_name in formats for name in ABLATION_FILES.get(format_name, ())]
    for files in (STATISTICS_FILES, PRICE_FILES):
        names += [name for format_name, name in files.items() if format_name in formats]
    return names


def _rendered(name: str, summary: Summary, sections: Sections) -> bytes:
    if name == "png":
        # Imported here: matplotlib takes a third of a second, which no other format needs.
        from ntml_bench.table.image import render_png

        return render_png(summary, sections)
    if name == "csv":
        return render_csv(summary).encode()
    render = {"md": render_markdown, "tex": render_latex, "html": render_html}[name]
    return render(summary, sections).encode()
