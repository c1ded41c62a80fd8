"""`table.tex`: a float with booktabs rules and no other package."""

from ntml_bench.table.summary import Block, Row, Summary
from ntml_bench.table.view import (
    DROP,
    NO_NUMBER,
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

ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    DROP: r"$\downarrow$",
    NO_NUMBER: "--",
}


def render_latex(summary: Summary, sections: Sections) -> str:
    """A `table*` a block; to be included in a document that loads booktabs."""
    lines = [r"% \usepackage{booktabs}", *(f"% {line}" for line in [status(summary), *unfinished(summary)])]
    for block in summary.blocks:
        lines += ["", r"\begin{table*}", r"\centering", r"\footnotesize", r"\setlength{\tabcolsep}{4pt}"]
        for section in sections:
            lines += _tabular(block, section) + ([r"\\[1ex]"] if section != sections[-1] else [])
        caption = [f"{heading_of(block)}.", status(summary), *legend(summary, sections, "Bold")]
        lines += [rf"\caption{{{_escaped(' '.join(caption))}}}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


def _tabular(block: Block, section: tuple[str, ...]) -> list[str]:
    columns = columns_of(block)
    # Two narrow gaps set the floor and the undefended column apart from the defenses.
    gap = r"@{\hspace{12pt}}"
    defenses = gap + "c" * len(block.defenses) if block.defenses else ""
    lines = [rf"\begin{{tabular}}{{lc{gap}c{defenses}}}", r"\toprule"]
    lines.append(_line([rf"\textit{{{title_of(section)}}}", *(_escaped(column.name) for column in columns)]))
    depth = max(len(column.settings) for column in columns)
    lines += [_line(["", *(_small(_setting(column, index)) for column in columns)]) for index in range(depth)]
    if block.defenses:
        lines.append(_line([_small("needs"), *(_small(column.needs) for column in columns)]))
    lines.append(r"\midrule")
    for row in block.rows:
        lines += _rows(row, section)
    if block.average:
        lines += [r"\midrule", *_rows(block.average, section, average=True)]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _rows(row: Row, section: tuple[str, ...], *, average: bool = False) -> list[str]:
    cells = shown_row(row, section, average=average)
    lines = [_line([_escaped(row.attack), *map(_numbers, cells)])]
    extras = ([cell.deviations for cell in cells], [cell.note for cell in cells])
    return lines + [_line(["", *map(_small, extra)]) for extra in extras if any(extra)]


def _line(texts: list[str]) -> str:
    return " & ".join(texts) + r" \\"


def _numbers(shown: Shown) -> str:
    return rf"\textbf{{{_escaped(shown.numbers)}}}" if shown.best else _escaped(shown.numbers)


def _small(text: str) -> str:
    return rf"{{\scriptsize {_escaped(text)}}}" if text else ""


def _setting(column: Column, index: int) -> str:
    return column.settings[index] if index < len(column.settings) else ""


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(character, character) for character in text)
