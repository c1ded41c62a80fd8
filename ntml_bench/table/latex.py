"""`table.tex`: a float over both columns with booktabs rules; graphicx shrinks a table that is wider than the page."""

import re

from ntml_bench.records.summary import Block, Row, Summary
from ntml_bench.records.view import (
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
    "|": r"\textbar{}",
    # At the beginning of a row it would be read as the end of the one before.
    "[": "{[}",
    "±": r"$\pm$",
    DROP: r"$\downarrow$",
    NO_NUMBER: "--",
}


BOX = r"\ntmltable"
"""The box that a table is measured in before it is set."""
ROW_GAP = r"\addlinespace[2pt]"


def render_latex(summary: Summary, sections: Sections) -> str:
    """A `table*` a block; to be included in a document that loads booktabs and graphicx."""
    lines = [r"% \usepackage{booktabs,graphicx}", *(f"% {line}" for line in [status(summary), *unfinished(summary)])]
    lines.append(rf"\ifdefined{BOX}\else\newsavebox{{{BOX}}}\fi")
    for block in summary.blocks:
        lines += ["", r"\begin{table*}", r"\centering", r"\footnotesize", r"\setlength{\tabcolsep}{3pt}"]
        for section in sections:
            lines += [rf"\sbox{{{BOX}}}{{%", *_tabular(block, section), "}%"]
            lines.append(rf"\ifdim\wd{BOX}>\textwidth\resizebox{{\textwidth}}{{!}}{{\usebox{{{BOX}}}}}\else\usebox{{{BOX}}}\fi")
            lines += [r"\par\vspace{2ex}"] if section != sections[-1] else []
        lines.append(rf"\caption{{{_escaped(f'{heading_of(block)}. {status(summary)}')}}}")
        # Below the caption, as a list of tables takes the caption whole.
        notes = " ".join(legend(summary, sections, "Bold"))
        lines += [
            r"\par\smallskip",
            rf"\begin{{minipage}}{{\textwidth}}\scriptsize {_prose(notes)}\end{{minipage}}",
            r"\end{table*}",
        ]
    return "\n".join(lines) + "\n"


def _tabular(block: Block, section: tuple[str, ...]) -> list[str]:
    columns = columns_of(block)
    # Two narrow gaps set the floor and the undefended column apart from the defenses.
    gap = r"@{\hspace{9pt}}"
    defenses = gap + "c" * len(block.defenses) if block.defenses else ""
    lines = [rf"\begin{{tabular}}{{@{{}}lc{gap}c{defenses}@{{}}}}", r"\toprule"]
    lines.append(_line([rf"\textit{{{title_of(section)}}}", *(_escaped(column.name) for column in columns)]))
    depth = max(len(column.settings) for column in columns)
    lines += [_line(["", *(_small(_setting(column, index)) for column in columns)]) for index in range(depth)]
    if block.defenses:
        lines.append(_line([_small("needs"), *(_small(column.needs) for column in columns)]))
    lines.append(r"\midrule")
    for index, row in enumerate(block.rows):
        shown = _rows(row, section)
        # Deviations belong to the numbers above them, not to those below.
        lines += [ROW_GAP, *shown] if index and len(shown) > 1 else shown
    if block.average:
        lines += [r"\midrule", *_rows(block.average, section, average=True)]
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _rows(row: Row, section: tuple[str, ...], *, average: bool = False) -> list[str]:
    cells = shown_row(row, section, average=average)
    lines = [_line([_escaped(row.heading), *map(_numbers, cells)])]
    extras = ([cell.deviations for cell in cells], [", ".join(cell.remarks) for cell in cells])
    return lines + [_line(["", *map(_small, extra)]) for extra in extras if any(extra)]


def _line(texts: list[str]) -> str:
    return " & ".join(texts) + r" \\"


def _numbers(shown: Shown) -> str:
    return rf"\textbf{{{_escaped(shown.numbers)}}}" if shown.best else _escaped(shown.numbers)


def _small(text: str) -> str:
    return rf"{{\scriptsize {_escaped(text)}}}" if text else ""


def _setting(column: Column, index: int) -> str:
    return column.settings[index] if index < len(column.settings) else ""


def _prose(text: str) -> str:
    """Sentences with the quotes and the minus of print."""
    text = re.sub(r"(?<!\S)'", "`", _escaped(text))
    return text.replace(" - ", " $-$ ")


def _escaped(text: str) -> str:
    return "".join(ESCAPES.get(character, character) for character in text)
