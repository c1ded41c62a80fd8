"""Progress over a sweep: a bar with what its cells are doing, and one line a finished cell.

Where the output is not a terminal the lines alone are printed, so that a log file stays readable, and what a cell is doing at
most once a minute: a cell of an hour is not silent, and short ones do not flood the file.
"""

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 60.0
"""Of what one cell is doing, in a log file."""


class Progress:
    """Counts `total` cells. Cells may run in several threads; each has a line of its own below the bar."""

    def __init__(self, total: int, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds."""
        self.total = total
        self.console = console
        self.clock = clock
        self._begun = False
        self._count = 0
        self._bar = Bar(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._bar.add_task("all cells", total=total)
        self._bar.start()

    def cell(self, name: str) -> "CellProgress":
        """The line of a cell that begins now."""
        return CellProgress(self, name)

    def note(self, text: str) -> None:
        """A line that belongs to no cell, and that should not be overlooked."""
        self._print(text, "yellow")

    def say(self, text: str) -> None:
        """A line that belongs to no cell."""
        self._print(text, None)

    def close(self) -> None:
        self._bar.stop()

    def _begins(self) -> bool:
        """Whether this is the first that is heard of any cell."""
        first, self._begun = not self._begun, True
        return first

    def _finished(self, line: str, style: str | None) -> None:
        self._count += 1
        self._bar.advance(self._all)
        self._print(f"[{self._count}/{self.total}] {line}", style)

    def _print(self, line: str, style: str | None) -> None:
        self.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


class CellProgress:
    """What one cell is doing, and what became of it."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name
        self._task = progress._bar.add_task(name, total=None)
        self._logged = progress.clock()

    def say(self, what: str) -> None:
        progress, line = self._progress, f"{self._name}: {what}"
        progress._bar.update(self._task, description=line)
        if progress.console.is_terminal:
            return
        now = progress.clock()
        if progress._begins() or now - self._logged >= SECONDS_BETWEEN_LINES:
            self._logged = now
            progress._print(line, None)

    def done(self, record: dict[str, Any], found: bool) -> None:
        """`found`: whether the record was there before."""
        took = "stored" if found else f"{record['seconds']['total']:.1f} s"
        self._end(f"{self._name}: {_rates(record)} ({took})", None)

    def failed(self, why: str) -> None:
        self._end(f"{self._name}: FAILED, {why}", "red")

    def close(self) -> None:
        """The line is not needed any more."""
        self._progress._bar.remove_task(self._task)

    def _end(self, line: str, style: str | None) -> None:
        self.close()
        self._progress._finished(line, style)


def _rates(record: dict[str, Any]) -> str:
    before, after, defense = record["before"], record["after"], record["defense"]
    names = (("ACC", "clean_accuracy"), ("ASR", "attack_success_rate"), ("RA", "robust_accuracy"))
    parts = []
    for short, key in names:
        if after[key] is None:
            continue
        parts.append(f"{short} {after[key]:.1f}" if defense == "none" else f"{short} {before[key]:.1f} -> {after[key]:.1f}")
    if record.get("retuned"):
        parts.append(f"re-tuned ASR {record['retuned']['after']['attack_success_rate']:.1f}")
    return ", ".join(parts)
