"""Which cell comes next, so that nobody waits for a model that somebody else is training while there is other work."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ntml_bench.app.cell import Cell


@dataclass(frozen=True, eq=False)
class Task:
    """A cell to be run, or (`clean`) the clean model that the floors of several cells are measured on."""

    cell: Cell
    clean: bool = False

    @property
    def name(self) -> str:
        return "clean model" if self.clean else self.cell.name

    @property
    def model_key(self) -> str:
        """Of the model that must be trained before the rest can be done."""
        return self.cell.stages.keys.clean if self.clean else self.cell.stages.keys.victim

    @property
    def has_model(self) -> bool:
        """Whether that model is stored."""
        return self.cell.store.record("victim", self.model_key) is not None

    def shares_strengths_with(self, other: "Task") -> bool:
        """Whether both choose among the same purified models."""
        return not other.clean and bool(set(self.cell.stages.keys.candidates) & set(other.cell.stages.keys.candidates))

    def run(self, say: Callable[[str], None]) -> None:
        if self.clean:
            self.cell.train_clean(say)
        else:
            # The objective, too, where the data are: who asks for it later finds it in the store.
            self.cell.objective(self.cell.run(say))

    @property
    def is_stored(self) -> bool:
        """Whether what the task makes is there, and whole."""
        cell = self.cell
        return cell.store.load(*(("victim", self.model_key) if self.clean else ("cell", cell.key))) is not None

    @property
    def is_searched(self) -> bool:
        """Whether an objective belongs to it, which may be missing where the record is there."""
        return self.cell.searched and not self.clean

    def record(self) -> dict[str, Any] | None:
        return None if self.clean else self.cell.record()


class Schedule:
    """Hands out each task once, to any thread that asks.

    A task whose model is being trained, by another worker or by another sweep on the same store, is put off while there is
    any other. So is one that chooses among the same strengths of a defense as one that is under way, at another price.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self._waiting = tasks_of(cells)
        self._under_way: list[Task] = []
        self._lock = threading.Lock()

    def take(self) -> Task | None:
        """The next task, or None when all have been handed out."""
        with self._lock:
            if not self._waiting:
                return None
            task = next((task for task in self._waiting if not self._would_wait(task)), self._waiting[0])
            self._waiting.remove(task)
            self._under_way.append(task)
            return task

    def finished(self, task: Task) -> None:
        with self._lock:
            self._under_way.remove(task)

    def _would_wait(self, task: Task) -> bool:
        cell, store = task.cell, task.cell.store
        if not task.clean:
            if cell.record() is not None:
                return False
            if store.locked("cell", cell.key):
                return True
        if not task.clean and any(task.shares_strengths_with(other) for other in self._under_way):
            return True
        if task.has_model:
            return False
        return any(other.model_key == task.model_key for other in self._under_way) or store.locked("victim", task.model_key)


def tasks_of(cells: Sequence[Cell]) -> list[Task]:
    """The clean models that floors wait for, then a cell of each backdoored model, then the others."""
    clean = {cell.stages.keys.clean: cell for cell in cells if cell.needs_floor}
    missing = [task for task in (Task(cell, clean=True) for cell in clean.values()) if not task.has_model]
    return [*missing, *map(Task, victims_first(cells))]


def victims_first(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each backdoored model, then the others: so that workers do not wait for each other's trainings."""
    first = {cell.stages.keys.victim: cell for cell in reversed(cells)}
    leading = [cell for cell in cells if first[cell.stages.keys.victim] is cell]
    return leading + [cell for cell in cells if first[cell.stages.keys.victim] is not cell]
