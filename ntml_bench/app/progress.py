"""Progress over a sweep: a bar with the current cell and what it is doing, and one line a finished cell.

Where the output is not a terminal the lines alone are printed, so that a log file stays readable.
"""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar


class Progress:
    """Counts `total` cells."""

    def __init__(self, total: int, console: Console) -> None:
        self.total = total
        self.console = console
        self._count = 0
        self._started = time.monotonic()
        self._bar = Bar(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)
        self._cell = ""
        self._bar.start()

    def start(self, cell: str) -> None:
        self._cell = cell
        self._started = time.monotonic()
        self.say("starting")

    def say(self, what: str) -> None:
        """What the current cell is doing."""
        self._bar.update(self._task, description=f"{self._cell}: {what}" if self._cell else what)

    def done(self, cell: str, record: dict[str, Any], found: bool) -> None:
        took = "stored" if found else f"{time.monotonic() - self._started:.1f} s"
        self._line(f"{cell}: {_rates(record['before'], record['after'], record['defense'])} ({took})")

    def failed(self, cell: str, error: Exception) -> None:
        self._line(f"{cell}: FAILED, {type(error).__name__}: {error}", style="red")

    def note(self, text: str) -> None:
        """A line that belongs to no cell."""
        self.console.print(text, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()

    def _line(self, text: str, style: str | None = None) -> None:
        self._count += 1
        self._bar.advance(self._task)
        self.console.print(f"[{self._count}/{self.total}] {text}", style=style, highlight=False, markup=False, soft_wrap=True)


def _rates(before: dict[str, Any], after: dict[str, Any], defense: str) -> str:
    names = (("ACC", "clean_accuracy"), ("ASR", "attack_success_rate"), ("RA", "robust_accuracy"))
    parts = []
    for short, key in names:
        if after[key] is None:
            continue
        parts.append(f"{short} {after[key]:.1f}" if defense == "none" else f"{short} {before[key]:.1f} -> {after[key]:.1f}")
    return ", ".join(parts)
