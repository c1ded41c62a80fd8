"""`table.html`: one file, no scripts, nothing to load; follows the reader's light or dark scheme."""

from html import escape

from ntml_bench.records.summary import Block, Row, Summary
from ntml_bench.records.view import (
    Column,
    Sections,
    Shown,
    columns_of,
    heading_of,
    legend,
    shown_row,
    status,
    title_of,
    unfinished,
)

STYLE = """\
:root { color-scheme: light dark; --ink: #1c1c1e; --quiet: #5f6368; --paper: #ffffff; --line: #d5d7da; --heat: 200 85 0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececee; --quiet: #a2a6ab; --paper: #17181a; --line: #3c4043; --heat: 240 120 20; }
}
body { background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 1.5rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .4rem .65rem; text-align: center; white-space: nowrap; border-bottom: 1px solid var(--line); }
th[scope=row] { text-align: left; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: top; }
th small, td small { display: block; color: var(--quiet); font-weight: 400; }
td { background: rgb(var(--heat) / var(--asr, 0)); }
.undefended { border-right: 2px solid var(--ink); }
.average > * { border-top: 2px solid var(--ink); }
.best { font-weight: 700; outline: 2px solid var(--ink); outline-offset: -3px; }
.unset { color: var(--quiet); font-style: italic; }
footer { color: var(--quiet); max-width: 60rem; }
"""
MOST_OPAQUE = 0.55
"""Of the heat colour at ASR 100: text keeps a contrast above 4.5 in both schemes."""


def render_html(summary: Summary, sections: Sections) -> str:
    """The whole document."""
    title = escape(f"{summary.sweep}: attacks by defenses")
    lines = ["<!doctype html>", '<html lang="en">', "<head>", '<meta charset="utf-8">']
    lines += ['<meta name="viewport" content="width=device-width, initial-scale=1">', f"<title>{title}</title>"]
    lines += [f"<style>\n{STYLE}</style>", "</head>", "<body>"]
    lines += [f"<h1>{escape(summary.sweep)}</h1>", f"<p>{escape(status(summary))}</p>"]
    for block in summary.blocks:
        lines.append(f"<h2>{escape(heading_of(block))}</h2>")
        for section in sections:
            lines += _table(block, section)
    lines.append("<footer>")
    lines += [
        f"<p>{escape(line)}</p>" for line in [*legend(summary, sections, "Frame"), "Colour: the darker, the higher the ASR."]
    ]
    lines.append("</footer>")
    if left := unfinished(summary):
        lines += ["<h2>Not finished</h2>", "<ul>", *(f"<li>{escape(line)}</li>" for line in left), "</ul>"]
    return "\n".join([*lines, "</body>", "</html>"]) + "\n"


def _table(block: Block, section: tuple[str, ...]) -> list[str]:
    columns = columns_of(block)
    lines = ['<div class="scroll">', "<table>", f"<caption>{title_of(section)}</caption>", "<thead>"]
    lines += [f'<tr><th scope="col">attack</th>{"".join(map(_head, columns))}</tr>', "</thead>", "<tbody>"]
    lines += [_row(row, columns, section) for row in block.rows]
    if block.average:
        lines.append(_row(block.average, columns, section, average=True))
    return [*lines, "</tbody>", "</table>", "</div>"]


def _head(column: Column) -> str:
    needs = [f"needs {column.needs}"] if column.needs else []
    small = "".join(f"<small>{escape(text)}</small>" for text in [*column.settings, *needs])
    return f'<th scope="col" class="{column.kind}">{escape(column.name)}{small}</th>'


def _row(row: Row, columns: list[Column], section: tuple[str, ...], *, average: bool = False) -> str:
    cells = zip(columns, shown_row(row, section, average=average), strict=True)
    start = '<tr class="average">' if average else "<tr>"
    return f'{start}<th scope="row">{escape(row.heading)}</th>{"".join(_cell(*cell) for cell in cells)}</tr>'


def _cell(column: Column, shown: Shown) -> str:
    names = [column.kind, *(["best"] if shown.best else [])]
    style = ""
    if shown.attack_success_rate is not None:
        style = f' style="--asr:{shown.attack_success_rate / 100 * MOST_OPAQUE:.2f}"'
    elif not any(character.isdigit() for character in shown.numbers):
        names.append("unset")
    small = "".join(f"<small>{escape(text)}</small>" for text in (shown.deviations, shown.intervals, *shown.remarks) if text)
    return f'<td class="{" ".join(names)}"{style}>{escape(shown.numbers)}{small}</td>'
