"""How far the cells of a sweep are, what failed and why, what is being run and where."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ntml_bench.files import read_json
from ntml_bench.records.cells import Cell, read_sweep
from ntml_bench.records.manifest import SweepFolder, failure_path, running_path
from ntml_bench.store import Store

STATES = ("done", "running", "failed", "abandoned", "missing")
"""`abandoned`: somebody began the cell and is gone. It is known by the cell's lock, which the system frees with its process."""


@dataclass(frozen=True)
class CellStatus:
    """One cell. `seconds`: what it took; `host`, `process`, `since`: who runs it, or ran it when that ended."""

    attack: str
    defense: str
    seed: int
    dataset: str
    model: str
    key: str
    state: str
    seconds: float | None = None
    error: str | None = None
    traceback: str | None = None
    """The file that holds it."""
    host: str | None = None
    process: int | None = None
    since: str | None = None


@dataclass(frozen=True)
class Status:
    """`seconds_spent` by the cells that are done; `seconds_left` for the others one after the other, None without an idea."""

    sweep: str
    counts: dict[str, int]
    seconds_spent: float
    seconds_left: float | None
    cells: tuple[CellStatus, ...]


def status_of(folder: Path) -> Status:
    """The states of the sweep in `folder`. Raises UserError as `read_sweep` does."""
    sweep = read_sweep(folder)
    store = SweepFolder.open(folder).store
    cells = tuple(_status(cell, store) for cell in sweep.cells)
    counts = Counter(cell.state for cell in cells)
    return Status(
        sweep.name,
        {state: counts[state] for state in STATES},
        sum(cell.seconds or 0.0 for cell in cells),
        seconds_left(cells),
        cells,
    )


def seconds_left(cells: Sequence[CellStatus]) -> float | None:
    """What the cells that are not done will take: each as those of its defense did on average, else as all did."""
    done = [cell for cell in cells if cell.seconds is not None]
    if not done:
        return None if any(cell.state != "done" for cell in cells) else 0.0
    overall = fmean(cell.seconds or 0.0 for cell in done)
    total = 0.0
    for cell in cells:
        if cell.state != "done":
            alike = [other.seconds or 0.0 for other in done if other.defense == cell.defense]
            total += fmean(alike) if alike else overall
    return total


def _status(cell: Cell, store: Store) -> CellStatus:
    state: str = cell.state
    runner = _read(running_path(store, cell.key)) if state in ("running", "missing") else {}
    if state == "missing" and runner:
        state = "abandoned"
    traceback = failure_path(store, cell.key)
    return CellStatus(
        cell.attack,
        cell.defense,
        cell.seed,
        cell.dataset,
        cell.model,
        cell.key,
        state,
        cell.seconds,
        cell.error or None,
        str(traceback) if state == "failed" and traceback.exists() else None,
        runner.get("host"),
        runner.get("process"),
        runner.get("since"),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
