"""A comparison on a terminal or in a log file."""

from collections.abc import Callable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ntml_bench.records.published.comparison import ComparedBlock, Comparison, Line
from ntml_bench.records.published.reference import COMPARED
from ntml_bench.records.published.view import HEADINGS, differing, headline, note, numbers, preface, remarks, unpublished
from ntml_bench.records.view import heading_of
from ntml_bench.table.terminal import stacked, voice

STYLES = {"within tolerance": "green", "outside tolerance": "red"}


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the cells that have a published number, what differs, and in a line why the others have none."""
    say, plain = voice(console)
    say(f"Beside the {comparison.reference.title}: {headline(comparison)}", "bold")
    for block in comparison.blocks:
        console.print()
        say(heading_of(block.block), "bold")
        if any(line.published for line in block.lines):
            console.print(_table(block, plain))
        if text := unpublished(block.lines):
            say(f"no published number: {text}", "dim")
        for text in differing(block.differences):
            say(f"settings differ: {text}", "yellow")
    if any(line.published for line in comparison.lines):
        console.print()
        for text in (*preface(comparison), *remarks(comparison)):
            say(text, "dim")


def _table(block: ComparedBlock, plain: Callable[[str], str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for line in block.lines:
        if line.published:
            table.add_row(*(Text(plain(text), STYLES.get(line.verdict, "")) for text in _texts(line)))
    return table


def _texts(line: Line) -> list[str]:
    # Without the blanks around the slash a line fits into the width of a log file.
    cells = [numbers(line, metric, 1).replace(" / ", "/") for metric in COMPARED]
    return [stacked(line.attack), stacked(line.defense), *cells, line.verdict, note(line)]
