"""The status of a sweep on a terminal: the grid of states, then a line for each cell that wants attention."""

from datetime import UTC, datetime

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ntml_bench.records.status import CellStatus, Status

STYLES = {"done": "green", "running": "cyan", "failed": "red", "abandoned": "yellow", "missing": "dim"}
NARROW = {"done": "done", "running": "runs", "failed": "FAILED", "abandoned": "abandoned", "missing": "-"}


def print_status(status: Status, console: Console) -> None:
    counts = ", ".join(f"{count} {state}" for state, count in status.counts.items() if count)
    _say(console, f"Sweep {status.sweep}: {len(status.cells)} cells: {counts}")
    for dataset, model in dict.fromkeys((cell.dataset, cell.model) for cell in status.cells):
        cells = [cell for cell in status.cells if (cell.dataset, cell.model) == (dataset, model)]
        console.print(_grid(cells, f"{dataset}, {model}"))
    for cell in status.cells:
        line = _line(cell)
        if line:
            _say(console, line, STYLES[cell.state])
    spent = f"Time spent: {_duration(status.seconds_spent)}"
    if status.seconds_left:
        spent += f"; {_duration(status.seconds_left)} left, one cell at a time, by those done so far"
    _say(console, spent)


def _say(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def _grid(cells: list[CellStatus], title: str) -> Table:
    """Attacks by defenses; the states of several seeds counted."""
    defenses = list(dict.fromkeys(cell.defense for cell in cells))
    table = Table("attack", *map(escape, defenses), title=Text(title), title_justify="left", box=None, pad_edge=False)
    for attack in dict.fromkeys(cell.attack for cell in cells):
        row = []
        for defense in defenses:
            states = [cell.state for cell in cells if (cell.attack, cell.defense) == (attack, defense)]
            row.append(Text(", ").join(_state(state, states) for state in dict.fromkeys(states)))
        table.add_row(Text(attack), *row)
    return table


def _state(state: str, states: list[str]) -> Text:
    count = f"{states.count(state)} " if len(states) > 1 else ""
    return Text(count + NARROW[state], style=STYLES[state])


def _line(cell: CellStatus) -> str | None:
    name = f"{cell.attack} x {cell.defense}, seed {cell.seed}"
    if cell.state == "failed":
        return f"FAILED {name}: {cell.error}" + (f" (traceback: {cell.traceback})" if cell.traceback else "")
    if cell.state == "running":
        where = f" on {cell.host}, process {cell.process}, for {_since(cell.since)}" if cell.since else ""
        return f"running {name}{where}"
    if cell.state == "abandoned":
        return f"abandoned {name}: begun {_since(cell.since)} ago by process {cell.process} on {cell.host}, which is gone"
    return None


def _since(moment: str | None) -> str:
    try:
        return _duration((datetime.now(UTC) - datetime.fromisoformat(moment or "")).total_seconds())
    except (ValueError, TypeError):
        return "an unknown time"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
