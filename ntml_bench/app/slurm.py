"""The cells of a sweep as jobs of a Slurm cluster, in an order in which no job waits for a model that another one trains.

Slurm says of a Python exception that the job COMPLETED, and nothing of a cell at all: what counts is what the cell left in the
store. A job that ended without that (cancelled, killed, out of time too often) is written down as the cell's failure here.
"""

import copy
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.singleton import Singleton
from omegaconf import OmegaConf

from ntml_bench.app.cell import Cell
from ntml_bench.app.failure import describe
from ntml_bench.app.schedule import Task, tasks_of
from ntml_bench.app.session import Session

SECONDS_BETWEEN_LOOKS = 1.0


class JobEndedError(RuntimeError):
    """A job ended and left neither a record nor a failure of its cell."""


@dataclass(frozen=True, eq=False)
class Submitted:
    """A task, and the job that runs it."""

    task: Task
    job: Any


def run_in_jobs(session: Session, cells: Sequence[Cell], launcher: Any, grid: Sequence[Sequence[str]]) -> None:
    """Submit what is not done, wait for all of it, and note in `session` what failed; `grid`: the overrides of each cell.

    `launcher`: hydra-submitit-launcher's, set up. An interrupt cancels the jobs.
    """
    overrides = dict(zip(cells, grid, strict=True))
    for cell in cells:
        if (record := cell.record()) is not None:
            session.progress.cell(cell.name).done(record, found=True)
            session.track(cell)
    open_cells = [cell for cell in overrides if cell.record() is None]
    for cell in open_cells:
        cell.failure_path.unlink(missing_ok=True)  # of an earlier run: what is there at the end is of this one
    submitted: list[Submitted] = []
    try:
        _submit_all(launcher, open_cells, overrides, submitted)
        _wait(session, submitted)
    except BaseException:
        arrays = {str(entry.job.job_id).partition("_")[0] for entry in submitted}
        if arrays:
            subprocess.run(["scancel", *sorted(arrays)], check=False)
        raise


def _submit_all(
    launcher: Any, cells: Sequence[Cell], overrides: Mapping[Cell, Sequence[str]], submitted: list[Submitted]
) -> None:
    """The clean models and a cell of each backdoored model at once; the other cells of a model when that job has ended."""
    leading: list[Task] = []
    following: dict[str, list[Task]] = {}
    makes: set[str] = set()
    for task in tasks_of(cells):
        if task.has_model or task.model_key not in makes:
            leading.append(task)
            makes.add(task.model_key)
        else:
            following.setdefault(task.model_key, []).append(task)
    # In arrays of one kind: the task function belongs to the launcher.
    for clean in (True, False):
        tasks = [task for task in leading if task.clean == clean]
        submitted += _array(launcher, tasks, overrides, None)
    trainers = {entry.task.model_key: entry.job.job_id for entry in reversed(submitted) if not entry.task.has_model}
    for key, tasks in following.items():
        # Also behind a job that failed: the next one then trains the model.
        submitted += _array(launcher, tasks, overrides, f"afterany:{trainers[key]}")


def _array(
    launcher: Any, tasks: Sequence[Task], overrides: Mapping[Cell, Sequence[str]], dependency: str | None
) -> list[Submitted]:
    if not tasks:
        return []
    if tasks[0].clean:
        launcher = copy.copy(launcher)
        launcher.task_function = train_clean
    numbers = [list(overrides).index(task.cell) for task in tasks]
    jobs = _executor(launcher, dependency).map_array(
        launcher,
        [list(overrides[task.cell]) for task in tasks],
        ["hydra.sweep.dir"] * len(tasks),
        numbers,
        [str(number) for number in numbers],
        [Singleton.get_state()] * len(tasks),
    )
    return [Submitted(task, job) for task, job in zip(tasks, jobs, strict=True)]


def train_clean(config: Any) -> None:
    """The task of a job that makes the clean model of a cell's floor."""
    from hydra.core.hydra_config import HydraConfig

    from ntml_bench.app.loading import LoadedData
    from ntml_bench.app.runners import runners_of
    from ntml_bench.app.settings import read_settings

    settings = read_settings(config, HydraConfig.get().runtime.choices)
    (runner,) = runners_of(settings, single=True)
    runner.begin()
    runner.run(Task(Cell(settings, LoadedData().of(settings)), clean=True), print)


def _executor(launcher: Any, dependency: str | None) -> Any:
    """As hydra-submitit-launcher makes it, with the dependency on another job."""
    import submitit
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

    settings = dict(launcher.params)
    executor = submitit.AutoExecutor(
        cluster="slurm", folder=settings.pop("submitit_folder"), slurm_max_num_timeout=settings.pop("max_num_timeout")
    )
    shared = set(OmegaConf.structured(BaseQueueConf).keys())
    settings["additional_parameters"] = {
        **settings["additional_parameters"],
        **({"dependency": dependency} if dependency is not None else {}),
    }
    executor.update_parameters(**{name if name in shared else f"slurm_{name}": value for name, value in settings.items()})
    return executor


def _wait(session: Session, submitted: Sequence[Submitted]) -> None:
    waiting = list(submitted)
    while waiting:
        for entry in list(waiting):
            task = entry.task
            if task.record() is None and not entry.job.done():
                continue
            waiting.remove(entry)
            if not task.clean:  # where a clean model is missing, the cells that need it make it
                _note(session, entry)
        if waiting:
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _note(session: Session, entry: Submitted) -> None:
    cell, progress = entry.task.cell, session.progress.cell(entry.task.name)
    record = cell.record()
    if record is not None:
        progress.done(record, found=False)
        session.track(cell)
        return
    line = cell.failure()
    if line is None:
        error = JobEndedError(f"its job {entry.job.job_id} ended as {entry.job.state}; what it wrote: {entry.job.paths.stderr}")
        cell.write_failure(error)
        line = describe(error)
    session.failed.append(f"{cell.name}: {line}")
    progress.failed(line)
