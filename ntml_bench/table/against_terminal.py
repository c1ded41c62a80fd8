"""A check on a terminal or in a log file."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ntml_bench.records.against.cells import SHOWN
from ntml_bench.records.against.check import Check
from ntml_bench.records.against.view import (
    COLUMN_HEADINGS,
    LEGEND,
    brief,
    column_row,
    facts,
    not_compared,
    several_blocks,
    title,
)
from ntml_bench.records.view import SHORT
from ntml_bench.table.against_files import cell_rows
from ntml_bench.table.terminal import stacked, voice

STYLES = {"reproduced": "bold green", "not reproduced": "bold red"}


def print_brief(check: Check, console: Console) -> None:
    """The verdict in three lines at most."""
    say, _ = voice(console)
    first, *rest = brief(check)
    say(first, STYLES.get(check.verdict, "bold yellow"))
    for line in rest:
        say(line)


def print_check(check: Check, console: Console) -> None:
    """The verdict, the averages that it rests on, the cells with their ranges, and what all that means."""
    say, plain = voice(console)
    say(title(check), "bold")
    print_brief(check, console)

    def show(headings: list[str], rows: list[list[str]], outside: str) -> None:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*(Text(plain(text), "red" if outside in text else "") for text in row))
        console.print()
        console.print(table)

    if check.tested:
        several = several_blocks(check)
        show(list(COLUMN_HEADINGS), [column_row(one, several_blocks=several) for one in check.tested], "OUTSIDE")
    if check.ranged:
        rows = [[stacked(attack), stacked(column), *texts] for attack, column, *texts in cell_rows(check)]
        show(["attack", "column", *(SHORT[metric] for metric in SHOWN)], rows, " out of ")
    console.print()
    for line in (*not_compared(check), *facts(check)):
        say(line, "yellow" if line.startswith("not compared") else "dim")
    for line in LEGEND if check.tested or check.ranged else ():
        say(line, "dim")
