"""What one process keeps over many cells: loaded data, progress, tracking, and the sweep's table at the end."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rich.console import Console

from ntml_bench.app.cell import Cell
from ntml_bench.app.failure import describe
from ntml_bench.app.loading import LoadedData
from ntml_bench.app.manifest import sweep_folder
from ntml_bench.app.progress import Progress
from ntml_bench.app.runners import Runner
from ntml_bench.app.schedule import Schedule, Task
from ntml_bench.app.settings import Settings
from ntml_bench.errors import UserError
from ntml_bench.records.targets import target_lines
from ntml_bench.table.render import render_sweep
from ntml_bench.table.terminal import print_table
from ntml_bench.tracking import Tracker
from ntml_bench.tracking.variables import check_variables


class Session:
    """The cells of one sweep, run one or a few at a time. `failed` holds a line for each that failed.

    `resident`: whether the cells compute in this process, and so its data belong on their device.
    """

    def __init__(self, total: int, console: Console, resident: bool = True) -> None:
        self.console = console
        self.progress = Progress(total, console)
        self.failed: list[str] = []
        self._data = LoadedData(resident)
        self._tracker: Tracker | None = None
        self._said: set[str] = set()

    def cell(self, settings: Settings) -> Cell:
        """The cell of these settings, checked. Raises UserError."""
        self._tracker_of(settings)  # says now, not behind the first cell, that W&B is missing
        if settings.tracking.agent and self.progress.total > 1:
            raise UserError("tracking.agent=true: the run of a W&B agent holds one cell; a sweep of several has no such run")
        data = self._data.of(settings)
        for remark in data.remarks:
            self._say_once(f"warning: dataset {settings.labels['dataset']}: {remark}", self.progress.note)
        return Cell(settings, data)

    def run(self, cells: Sequence[Cell], runners: Sequence[Runner]) -> list[dict[str, Any] | None]:
        """The records of the cells, in their order, made where they are missing; None for a cell that failed.

        Each runner has a thread. A failure is on disk and in `failed`; the other cells go on.
        """
        for line in target_lines(cell.target for cell in cells):
            self._say_once(line, self.progress.say)
        records: dict[Cell, dict[str, Any] | None] = dict.fromkeys(cells)
        schedule = Schedule(cells)
        finished: SimpleQueue[Cell | BaseException] = SimpleQueue()
        # Daemons: an interrupt does not wait for them.
        threads = [threading.Thread(target=self._work, args=(schedule, runner, finished), daemon=True) for runner in runners]
        for thread in threads:
            thread.start()
        for _ in records:
            cell = finished.get()
            if isinstance(cell, BaseException):
                raise cell
            records[cell] = cell.record()
            self.track(cell)
        for thread in threads:
            thread.join()
        return list(records.values())

    def track(self, cell: Cell) -> None:
        """Log a done cell. In one thread, and behind the record: what was killed before this is logged by the next run."""
        record = cell.record()
        if record is not None:
            self._tracker_of(cell.settings).log_cell(record)

    def _work(self, schedule: Schedule, runner: Runner, finished: "SimpleQueue[Cell | BaseException]") -> None:
        try:
            runner.begin()
            while (task := schedule.take()) is not None:
                self._run_one(task, runner)
                schedule.finished(task)
                if not task.clean:
                    finished.put(task.cell)
            runner.close()
        except BaseException as error:
            finished.put(error)

    def _run_one(self, task: Task, runner: Runner) -> None:
        progress = self.progress.cell(task.name)
        found = task.is_stored
        try:
            if not found or task.is_searched:
                runner.run(task, progress.say)
        except Exception as error:
            if task.clean:
                progress.close()  # it shows in the cells that need the model
                return
            self.failed.append(f"{task.name}: {describe(error)}")
            progress.failed(describe(error))
            return
        record = task.record()
        if record is None:
            progress.close()
        else:
            progress.done(record, found)

    def render(self, settings: Settings, quiet: bool = False) -> None:
        """Write the sweep's table in all formats; print it and track it, unless it is one of many on the way (`quiet`)."""
        general = settings.general
        target = Path(general.outputs) / "tables" / general.sweep
        summary = render_sweep(sweep_folder(settings), target)
        if quiet:
            return
        self._tracker_of(settings).log_table(summary, target / "table.png")
        print_table(summary, self.console)
        self.console.print(f"Table written to {target}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        self.progress.close()

    def _say_once(self, line: str, say: Callable[[str], None]) -> None:
        if line not in self._said:
            self._said.add(line)
            say(line)

    def _tracker_of(self, settings: Settings) -> Tracker:
        if self._tracker is None:
            check_variables(settings.tracking, sweep_folder(settings))
            self._tracker = Tracker(settings.tracking, sweep_folder(settings), settings.general.sweep, self.progress.note)
        return self._tracker
