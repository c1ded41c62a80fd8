"""The page: one HTML file that loads nothing, made from a `Report` by the templates beside this file.

Every text goes through autoescape. What goes in as it is: our style sheet and script, and the figures' SVG.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ntml_bench import __version__
from ntml_bench.figures.colours import DARK, LIGHT
from ntml_bench.records.against import view as against
from ntml_bench.records.published.view import headline, preface, remarks
from ntml_bench.records.significance import rankings_of
from ntml_bench.records.significance_view import ABOUT_RANKS, findings, heading_of_ranking
from ntml_bench.records.tuned_view import READING
from ntml_bench.records.view import heading_of, legend, reconstructions, sections_of, status, unfinished
from ntml_bench.report.data import Gallery, Report
from ntml_bench.report.figures.drawing import Drawing
from ntml_bench.report.grid import grids_of, metrics_of, summary_counts
from ntml_bench.report.heat import step_rules
from ntml_bench.report.images import shown_galleries
from ntml_bench.report.made import made_of
from ntml_bench.report.records import record_id, shown_records
from ntml_bench.report.stations import overviews_of, stations_of

TEMPLATES = Path(__file__).parent / "templates"
BEST = "★"


def render_report(
    report: Report, drawings: Iterable[Drawing] = (), links: Mapping[str, str] | None = None, home: str = ""
) -> str:
    """The whole page. `links`: where a cell's record file is, by the cell's key; `home`: the index that the page belongs to;
    both seen from the page.
    """
    summary, comparison = report.summary, report.comparison
    grids = grids_of(report)
    said = reconstructions(summary)
    drawn = tuple(drawings)
    seen = stations_of(drawn, grids, summary.blocks)
    return render(
        "report.html",
        home=home,
        summary=summary,
        status=status(summary).removeprefix(f"Sweep {summary.sweep}: "),
        counts=summary_counts(summary),
        reconstructions=said,
        metrics=metrics_of(summary),
        grids=grids,
        several_blocks=len(grids) > 1,
        legend=[line for line in legend(summary, sections_of(summary), BEST) if line not in said],
        unfinished=unfinished(summary),
        ranked=_ranked(report),
        about_ranks=ABOUT_RANKS,
        check=report.check,
        against=against,
        comparison=comparison,
        comparison_headline=headline(comparison) if comparison else "",
        comparison_preface=preface(comparison) if comparison else (),
        comparison_remarks=remarks(comparison) if comparison else (),
        galleries=shown_galleries(report.galleries),
        prices=overviews_of(drawn, "price"),
        reading=READING,
        seen=seen,
        made=made_of(report),
        records=list(shown_records(report, links or {})),
    )


def _ranked(report: Report) -> list[tuple[str, list[str]]]:
    """What the tests of each ranking found, below its heading."""
    blocks = report.summary.blocks
    return [
        (heading_of_ranking(ranking) + (f" ({heading_of(block)})" if len(blocks) > 1 else ""), findings(ranking))
        for block in blocks
        for ranking in rankings_of(block, report.summary.cells_of(block))
    ]


def render_gallery(gallery: Gallery) -> str:
    """A page with one gallery alone."""
    (shown,) = shown_galleries([gallery])
    return render("gallery.html", shown=shown)


def render(template: str, *, home: str = "", **values: Any) -> str:
    """A page of ours from a template, with our style sheet and script. `home`: the index that it belongs to."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8") + _colour_rules() + step_rules()
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    shared = {"style": Markup(style), "script": Markup(script), "policy": _policy(style, script), "version": __version__}
    return _environment().get_template(template).render(**shared, home=home, **values)


def _colour_rules() -> str:
    """The colours of the figures, which are those of the page."""
    return f":root{{{''.join(f'--{name}:light-dark({colour},{DARK[name]});' for name, colour in LIGHT.items())}}}"


def _policy(style: str, script: str) -> str:
    """Nothing from anywhere, and no script or style sheet but the page's own two; figures may style their lines."""
    return (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; style-src-attr 'unsafe-inline'; "
        f"script-src {_source(script)}; base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["record_id"] = record_id
    environment.filters["capitalised"] = lambda text: text[:1].upper() + text[1:]
    environment.filters["breakable"] = breakable
    # In an element's text, quotes may stand as they are; JSON is full of them.
    environment.filters["text"] = lambda text: Markup(escape(text, quote=False))
    return environment


def breakable(text: str) -> Markup:
    """A label that may go on in the next line after an underscore, an equals sign, or a dot that is no number's."""
    return Markup(re.sub(r"([_=]|\.(?!\d))", r"\1<wbr>", escape(text, quote=False)))
