"""Jobs of a Slurm cluster: submitted through submitit, looked after and cancelled with Slurm's own commands.

What became of a job is asked of the controller, not of the accounting: that also works where there is none, and a job that is
put into the queue again never looks as if it had ended.
"""

import copy
import io
import shutil
import signal
import subprocess
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from omegaconf import OmegaConf

from ntml_bench.app.signals import STOPPING
from ntml_bench.errors import UserError

COMMANDS = ("sbatch", "srun", "squeue", "scancel")
ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
)
GONE = "GONE"
"""The state of a job that the controller does not know: one that ended some minutes ago, or was cancelled before it began."""


@dataclass(frozen=True)
class Job:
    """`number` as Slurm writes it: 12, or 12_3 for a task of an array. `log`: what it writes on standard error."""

    number: str
    log: Path

    def last_words(self) -> str | None:
        """The last line of its log, but for what is said of the end of every job; None where there is none."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return None
        own = [line.strip() for line in lines if line.strip() and not line.startswith(("srun: ", "submitit "))]
        return own[-1] if own else None


@dataclass(frozen=True)
class State:
    """`name` as squeue writes it, or GONE; `reason`: why a waiting job waits."""

    name: str
    reason: str

    @property
    def ended(self) -> bool:
        return self.name == GONE or self.name in ENDED


def check_commands() -> None:
    """Raise UserError where there is no Slurm to submit to."""
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if missing:
        raise UserError(f"cluster=slurm: not on the PATH: {', '.join(missing)}; start the command where jobs can be submitted")


@dataclass(frozen=True)
class Reported:
    """A task whose exception is written to standard error: Hydra only hands it on, to nobody."""

    task: Callable[[Any], object]

    def __call__(self, config: Any) -> object:
        try:
            return self.task(config)
        except Exception:
            traceback.print_exc()
            raise


def submit(
    launcher: Any, task: Callable[[Any], object] | None, grid: Sequence[tuple[int, Sequence[str]]], dependency: str | None
) -> list[Job]:
    """One array of jobs, each of which composes a config from its overrides and calls `task` (None: the application's).

    `launcher`: hydra-submitit-launcher's, set up; `grid`: the number and the overrides of each job. Raises UserError where
    Slurm does not want them.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    launcher = copy.copy(launcher)
    launcher.task_function = Reported(task or launcher.task_function)
    numbers = [number for number, _ in grid]
    said = io.StringIO()
    try:
        # submitit prints what sbatch says beside raising it.
        with redirect_stderr(said):
            jobs = _executor(launcher.params, dependency).map_array(
                launcher,
                [list(overrides) for _, overrides in grid],
                ["hydra.sweep.dir"] * len(grid),
                numbers,
                [str(number) for number in numbers],
                [Singleton.get_state()] * len(grid),
            )
    except (FailedJobError, FailedSubmissionError) as error:
        lines = (line.removeprefix("sbatch: ").removeprefix("error: ").strip() for line in str(error).splitlines())
        raise UserError(f"Slurm refused the jobs: {'; '.join(filter(None, lines)) or 'sbatch said nothing'}") from None
    return [Job(str(job.job_id), Path(job.paths.stderr)) for job in jobs]


def _executor(params: dict[str, Any], dependency: str | None) -> Any:
    """As hydra-submitit-launcher makes it, with the dependency on another job."""
    import submitit
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

    settings = dict(params)
    executor = submitit.AutoExecutor(
        cluster="slurm", folder=settings.pop("submitit_folder"), slurm_max_num_timeout=settings.pop("max_num_timeout")
    )
    shared = set(OmegaConf.structured(BaseQueueConf).keys())
    if dependency is not None:
        settings["additional_parameters"] = {**settings["additional_parameters"], "dependency": dependency}
    executor.update_parameters(**{name if name in shared else f"slurm_{name}": value for name, value in settings.items()})
    return executor


def states(jobs: Sequence[Job]) -> dict[Job, State] | None:
    """The state of each job; None where Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r", f"--jobs={','.join(_arrays(jobs))}"]
    # In a session of its own: Ctrl-C reaches all processes of a terminal.
    answer = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    # What squeue says when it is asked for one job only, and that is forgotten.
    if answer.returncode and "Invalid job id" not in answer.stderr:
        return None
    found = {}
    for line in answer.stdout.splitlines():
        number, name, reason = (part.strip() for part in line.split("|", 2))
        found[number] = State(name, reason)
    return {job: found.get(job.number, State(GONE, "")) for job in jobs}


def cancel(jobs: Sequence[Job]) -> None:
    """All of them, and the rest of their arrays; what ended already does not mind."""
    if jobs:
        subprocess.run(["scancel", *_arrays(jobs)], capture_output=True, check=False, start_new_session=True)


def _arrays(jobs: Sequence[Job]) -> list[str]:
    return sorted({job.number.partition("_")[0] for job in jobs}, key=int)


@contextmanager
def unstoppable() -> Iterator[None]:
    """Ctrl-C and the like wait for the end of this: a job that was submitted is also known, and can be cancelled."""
    came: list[int] = []
    kept = {number: handler for number in STOPPING if callable(handler := signal.getsignal(number))}
    for number in kept:
        signal.signal(number, lambda number, _: came.append(number))
    # Commands inherit this, so that sbatch also lives through it; our other threads do not, hence the handlers.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if came:
        raise KeyboardInterrupt
