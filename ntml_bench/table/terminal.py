"""The table on a terminal or in a log file: never a truncated cell; what does not fit beside goes below."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ntml_bench.records.summary import Block, Summary
from ntml_bench.records.view import (
    DROP,
    NO_NUMBER,
    Column,
    Sections,
    Shown,
    columns_of,
    heading_of,
    legend,
    sections_of,
    shown_row,
    split_label,
    status,
    title_of,
    unfinished,
)

LOG_WIDTH = 120
GAP = 2
"""Characters between two columns: one of padding, one of rich's divider."""
PLAIN = str.maketrans({"±": "+", NO_NUMBER: "-", DROP: "v"})
STYLES = {"failed": "red", "running": "yellow", "missing": "dim"}
BEST_MARK = "*"


@dataclass(frozen=True)
class _Strip:
    """A column as lines of text: its head, then its cells."""

    head: Text
    cells: tuple[Text, ...]

    @property
    def width(self) -> int:
        return max(len(line) for text in (self.head, *self.cells) for line in text.plain.split("\n"))


def print_table(summary: Summary, console: Console, sections: Sections | None = None) -> None:
    """Print the table, its caption and what is unfinished. A console that is no terminal is made LOG_WIDTH wide at least."""
    sections = sections or sections_of(summary)
    say, plain = voice(console)
    say(status(summary), "bold")
    for block in summary.blocks:
        for section in sections:
            console.print()
            say(f"{title_of(section)}   {heading_of(block)}", "bold")
            _print_block(block, section, console, plain)
    console.print()
    for line in legend(summary, sections, BEST_MARK):
        say(line, "dim")
    if left := unfinished(summary):
        console.print()
        for line in left:
            say(line, STYLES.get(line.split(":")[0], ""))


def voice(console: Console) -> tuple[Callable[..., None], Callable[[str], str]]:
    """How a console is spoken to: `say(line, style="")`, and what makes a text one that it can show.

    A console that is no terminal is made LOG_WIDTH wide at least.
    """
    if not console.is_terminal and console.width < LOG_WIDTH:
        console.width = LOG_WIDTH
    plain = (lambda text: text) if console.encoding.lower().startswith("utf") else (lambda text: text.translate(PLAIN))

    def say(line: str, style: str = "") -> None:
        console.print(Text(plain(line)), style=style, soft_wrap=False, overflow="fold")

    return say, plain


def stacked(label: str) -> str:
    """`nt_ml (a=1, b=2)` on three lines."""
    name, settings = split_label(label)
    return "\n".join([name, *settings])


def _print_block(block: Block, section: Sequence[str], console: Console, plain: Callable[[str], str]) -> None:
    rows = [(row.heading, shown_row(row, section)) for row in block.rows]
    if block.average:
        rows.append(("average", shown_row(block.average, section, average=True)))
    labels = _Strip(Text("attack"), tuple(Text(plain(stacked(name))) for name, _ in rows))
    strips = [
        _Strip(_head(column, plain), tuple(_cell(cells[index], plain) for _, cells in rows))
        for index, column in enumerate(columns_of(block))
    ]
    for group in _fitting(strips, console.width - labels.width - GAP):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for strip in [labels, *group]:
            table.add_column(strip.head, overflow="fold", min_width=min(strip.width, console.width // 2))
        for index in range(len(rows)):
            if block.average and index == len(rows) - 1:
                table.add_section()
            table.add_row(*(strip.cells[index] for strip in [labels, *group]))
        console.print(table)


def _fitting(strips: Sequence[_Strip], width: int) -> list[list[_Strip]]:
    """The columns in as few groups as fit the width, in order."""
    groups: list[list[_Strip]] = [[]]
    for strip in strips:
        if groups[-1] and sum(other.width + GAP for other in groups[-1]) + strip.width + GAP > width:
            groups.append([])
        groups[-1].append(strip)
    return groups


def _head(column: Column, plain: Callable[[str], str]) -> Text:
    text = Text(plain(stacked(column.heading)))
    if column.needs:
        text.append(f"\n[{column.needs}]", "dim")
    return text


def _cell(shown: Shown, plain: Callable[[str], str]) -> Text:
    # Without the blanks around the slash the 6 x 6 table fits into LOG_WIDTH.
    numbers = plain(shown.numbers).replace(" / ", "/")
    text = Text(numbers + (BEST_MARK if shown.best else ""), "bold green" if shown.best else STYLES.get(numbers, ""))
    if shown.deviations:
        text.append("\n" + plain(shown.deviations).replace(" / ", "/"), "dim")
    for remark in shown.remarks:
        text.append("\n" + remark, "yellow")
    return text
