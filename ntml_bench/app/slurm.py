"""The cells of a sweep as jobs of a Slurm cluster, in an order in which no job waits for a model that another one trains.

Slurm says of a Python exception that the job COMPLETED, and nothing of a cell at all: what counts is what the cell left in the
store. A job that ended without that (cancelled, killed, out of time too often) is written down as the cell's failure here.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ntml_bench.app import jobs
from ntml_bench.app.cell import Cell
from ntml_bench.app.failure import CellLostError, describe
from ntml_bench.app.jobs import Job, State
from ntml_bench.app.progress import CellProgress
from ntml_bench.app.schedule import Task, tasks_of
from ntml_bench.app.session import Session
from ntml_bench.errors import UserError

SECONDS_BETWEEN_LOOKS = 1.0
"""At the store, for records."""
SECONDS_BETWEEN_QUESTIONS = 15.0
"""To Slurm's controller, at most; a young sweep asks sooner."""
SECONDS_FOR_FILES = 10.0
"""Within which what an ended job wrote is seen here: a network's file system takes a while."""
ORDINARY = ("None", "Resources", "Priority", "Dependency", "JobArrayTaskLimit", "BeginTime")
"""Reasons to wait that pass by themselves."""


class JobEndedError(CellLostError):
    """A job ended and left neither a record nor a failure of its cell."""


@dataclass(eq=False)
class Submitted:
    """A task and the job that runs it. `ended`: since when Slurm says so, `state`: what it said last."""

    task: Task
    job: Job
    ended: float | None = None
    state: str = "UNKNOWN"
    progress: CellProgress | None = None


def run_in_jobs(session: Session, cells: Sequence[Cell], launcher: Any, grid: Sequence[Sequence[str]]) -> None:
    """Submit what is not done, wait for all of it, and note in `session` what failed; `grid`: the overrides of each cell.

    `launcher`: hydra-submitit-launcher's, set up. Whatever stops this cancels the jobs. Raises UserError.
    """
    overrides = {
        cell: (number, [*given, *_settled_here(cell)]) for number, (cell, given) in enumerate(zip(cells, grid, strict=True))
    }
    for cell in cells:
        if (record := cell.record()) is not None:
            session.progress.cell(cell.name).done(record, found=True)
            session.track(cell)
    open_cells = [cell for cell in cells if cell.record() is None]
    for cell in open_cells:
        cell.failure_path.unlink(missing_ok=True)  # of an earlier run: what is there at the end is of this one
    submitted: list[Submitted] = []
    try:
        _submit_all(launcher, open_cells, overrides, submitted)
        _wait(session, submitted)
    except BaseException:
        with jobs.unstoppable():
            jobs.cancel([entry.job for entry in submitted])
        if submitted:
            session.progress.note("The jobs are cancelled.")
        raise


def _settled_here(cell: Cell) -> list[str]:
    """Settings of a job that are not left to it. W&B runs are written by this process, which waits for the records.

    The precision is part of every key, and `auto` asks the machine: a job on another one would look for other models, and
    leave its record where nobody looks.
    """
    general, cluster = cell.settings.general, cell.settings.cluster
    settled = ["tracking.mode=none"]
    if general.precision == "auto":
        if getattr(cluster, "gpus", None) and general.device != "cpu" and cell.engine.device.type == "cpu":
            raise UserError(
                "precision=auto asks this machine, which has no GPU, but the jobs run where there is one: "
                "name precision=bfloat16 (Ampere or newer) or precision=float32"
            )
        settled.append(f"precision={'bfloat16' if cell.engine.half else 'float32'}")
    return settled


def _submit_all(
    launcher: Any,
    cells: Sequence[Cell],
    overrides: Mapping[Cell, tuple[int, Sequence[str]]],
    submitted: list[Submitted],
) -> None:
    """The clean models and a cell of each backdoored model at once; the other cells of a model when that job has ended."""
    leading: list[Task] = []
    following: dict[str, list[Task]] = {}
    trained: dict[str, Task] = {}
    for task in tasks_of(cells):
        if task.model_key in trained:
            following.setdefault(task.model_key, []).append(task)
            continue
        leading.append(task)
        if not task.has_model:
            trained[task.model_key] = task

    def array(tasks: Sequence[Task], dependency: str | None) -> None:
        if not tasks:
            return
        function = train_clean if tasks[0].clean else None
        with jobs.unstoppable():
            made = jobs.submit(launcher, function, [overrides[task.cell] for task in tasks], dependency)
            submitted.extend(map(Submitted, tasks, made))

    # In arrays of one kind: all jobs of one have the same task function.
    array([task for task in leading if task.clean], None)
    array([task for task in leading if not task.clean], None)
    job_of = {entry.task: entry.job for entry in submitted}
    for key, tasks in following.items():
        # Also behind a job that failed: the next one then trains the model.
        array(tasks, f"afterany:{job_of[trained[key]].number}")


def train_clean(config: Any) -> None:
    """The task of a job that makes the clean model of a cell's floor."""
    from hydra.core.hydra_config import HydraConfig

    from ntml_bench.app.fitted import option_folders
    from ntml_bench.app.loading import LoadedData
    from ntml_bench.app.runners import runners_of
    from ntml_bench.app.settings import read_settings

    runtime = HydraConfig.get().runtime
    settings = read_settings(config, runtime.choices, option_folders(runtime))
    (runner,) = runners_of(settings, single=True)
    runner.begin()
    runner.run(Task(Cell(settings, LoadedData().of(settings)), clean=True), print)


def _wait(session: Session, submitted: Sequence[Submitted]) -> None:
    waiting, start, asked, said = list(submitted), time.monotonic(), 0.0, set[str]()
    while waiting:
        now = time.monotonic()
        if now - asked >= min(SECONDS_BETWEEN_QUESTIONS, max(2.0, (now - start) / 4)):
            asked = now
            found = jobs.states([entry.job for entry in waiting])
            for entry in waiting:
                if found is not None:
                    _look_at(session, entry, found[entry.job], now, said)
        for entry in [entry for entry in waiting if _is_over(entry, now)]:
            waiting.remove(entry)
            if not entry.task.clean:  # where a clean model is missing, the cells that need it make it
                _note(session, entry)
        if waiting:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _look_at(session: Session, entry: Submitted, state: State, now: float, said: set[str]) -> None:
    """Remember what Slurm says of a job; say once of each reason to wait that it is not an ordinary one."""
    entry.state = state.name
    if not state.ended:
        entry.ended = None  # put into the queue again
    elif entry.ended is None:
        entry.ended = now
    if state.name == "RUNNING" and entry.progress is None and not entry.task.clean:
        entry.progress = session.progress.cell(entry.task.name)
        entry.progress.say(f"job {entry.job.number}")
    if state.name == "PENDING" and state.reason not in ORDINARY and state.reason not in said:
        said.add(state.reason)
        session.progress.note(f"job {entry.job.number} ({entry.task.name}) waits: {state.reason}")


def _is_over(entry: Submitted, now: float) -> bool:
    task = entry.task
    made = task.has_model if task.clean else task.record() is not None or task.cell.failure() is not None
    return made or (entry.ended is not None and now - entry.ended >= SECONDS_FOR_FILES)


def _note(session: Session, entry: Submitted) -> None:
    cell, job = entry.task.cell, entry.job
    progress = entry.progress or session.progress.cell(entry.task.name)
    record = cell.record()
    if record is not None:
        progress.done(record, found=False)
        session.track(cell)
        return
    line = cell.failure()
    if line is None:
        how = "left the queue" if entry.state == jobs.GONE else f"ended as {entry.state}"
        words = job.last_words()
        what = "before it wrote anything" if words is None else f"with the words: {words} (more in {job.log})"
        error = JobEndedError(f"its job {job.number} {how} {what}")
        cell.write_failure(error)
        line = describe(error)
    session.failed.append(f"{cell.name}: {line}")
    progress.failed(line)
