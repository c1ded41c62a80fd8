"""`table.md`: GitHub-flavoured Markdown."""

from ntml_bench.records.summary import Block, Summary
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


def render_markdown(summary: Summary, sections: Sections) -> str:
    """The whole document."""
    lines = [f"# {escaped(summary.sweep)}", "", escaped(status(summary)), ""]
    for block in summary.blocks:
        lines += [f"## {escaped(heading_of(block))}", ""]
        for section in sections:
            lines += [f"**{title_of(section)}**", "", *_table(block, section), ""]
    lines += [f"- {line}" for line in map(escaped, legend(summary, sections, "bold"))]
    if left := unfinished(summary):
        lines += ["", "Not finished:", "", *(f"- {escaped(line)}" for line in left)]
    return "\n".join(lines) + "\n"


def _table(block: Block, section: tuple[str, ...]) -> list[str]:
    columns = columns_of(block)
    lines = [table_line(["attack", *map(column_head, columns)]), table_line(["---", *[":---:"] * len(columns)])]
    lines += [table_line([escaped(row.heading), *map(cell_text, shown_row(row, section))]) for row in block.rows]
    if block.average:
        lines.append(table_line(["*average*", *map(cell_text, shown_row(block.average, section, average=True))]))
    return lines


def table_line(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def column_head(column: Column) -> str:
    parts = [escaped(column.name), *(f"<sub>{escaped(setting)}</sub>" for setting in column.settings)]
    if column.needs:
        parts.append(f"<sub>[{column.needs}]</sub>")
    return "<br>".join(parts)


def cell_text(shown: Shown) -> str:
    numbers = f"**{shown.numbers}**" if shown.best else shown.numbers
    return "<br>".join(
        [numbers, *(f"<sub>{extra}</sub>" for extra in (shown.deviations, shown.intervals, ", ".join(shown.remarks)) if extra)]
    )


def escaped(text: str) -> str:
    for character in "\\`*_[]|~#":
        text = text.replace(character, f"\\{character}")
    return text.replace("<", "&lt;").replace(">", "&gt;")
