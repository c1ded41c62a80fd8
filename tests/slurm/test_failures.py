"""What ends a job or the command that waits for it: an exception, the end of its time, Ctrl-C."""

import signal
from pathlib import Path

import pytest
from app_runner import SMALL, bench, rows
from cluster import Cluster
from slurm_sweeps import jobs, started_beside, wait_for

pytestmark = pytest.mark.slurm

BREAKING = """
from dataclasses import dataclass
from ntml_bench.defenses import DEFENSES, Defense, DefenseConfig

@dataclass(frozen=True, kw_only=True)
class BreakingConfig(DefenseConfig):
    pass

@DEFENSES.register("breaking")
class Breaking(Defense[BreakingConfig]):
    Config = BreakingConfig
    needs = ()

    def purify(self, context):
        raise ValueError("it broke on purpose")
"""

# A checkpoint behind every epoch, which takes a second more; a line for each.
SLOW = """
import time
from ntml_bench import checkpoint

write = checkpoint.Checkpoint.write

def slow_write(self, record, tensors):
    write(self, record, tensors)
    with open("epochs.txt", "a") as file:
        file.write(f"{len(record['losses'])}\\n")
    time.sleep(1)

checkpoint.SECONDS_BETWEEN, checkpoint.Checkpoint.write = 0, slow_write
"""

ONE_CELL = (
    "-m",
    *SMALL,
    "training.epochs=30",
    "attack=badnets",
    "defense=none",
    "sweep=one",
    "imports=[slow]",
    "cluster=slurm",
)
# submitit takes a job that was to run for 10 minutes or less for one whose time is over whenever it is told to end.
SHORT = ("cluster.timeout_min=10",)


def epochs() -> list[int]:
    """The epochs behind which a state was written."""
    path = Path("epochs.txt")
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_an_exception_fails_its_cell_only_though_slurm_calls_it_completed(cluster: Cluster) -> None:
    Path("breaking.py").write_text(BREAKING)
    folder = Path("my_conf/defense")
    folder.mkdir(parents=True)
    (folder / "breaking.yaml").write_text("name: breaking\n")
    command = ("--config-dir", "my_conf", "-m", *SMALL, "imports=[breaking]", "attack=badnets", "sweep=toys", "cluster=slurm")
    outcome = bench(*command, "defense=breaking,none")
    assert outcome.code == 1
    assert "1 of 2 cells failed" in outcome.errors
    assert "badnets x breaking, seed 0: ValueError: it broke on purpose" in outcome.errors
    assert [row["state"] for row in rows("toys")] == ["failed", "done"]


def test_a_job_that_ran_out_of_its_time_goes_on_from_its_checkpoint(cluster: Cluster) -> None:
    Path("slow.py").write_text(SLOW)
    sweep = started_beside(*ONE_CELL, *SHORT)
    try:
        wait_for(lambda: len(epochs()) >= 3, sweep)
        (job,) = jobs(cluster, "running")
        # What Slurm sends at the end of a job's time.
        cluster.command("scancel", "--signal=USR2", job)
        wait_for(lambda: job in jobs(cluster, "pending"), sweep)
        output, _ = sweep.communicate(timeout=400)
    finally:
        sweep.kill()
    assert sweep.returncode == 0, output
    # Behind the last epoch there is none. One epoch may have been under way when the signal came.
    assert epochs()[-1] == 29
    assert len(epochs()) <= 30
    assert [row["state"] for row in rows("one")] == ["done"]


def test_a_job_out_of_time_too_often_fails_its_cell(cluster: Cluster) -> None:
    Path("slow.py").write_text(SLOW)
    sweep = started_beside(*ONE_CELL, *SHORT, "cluster.requeues=0")
    try:
        wait_for(lambda: len(epochs()) >= 2, sweep)
        cluster.command("scancel", "--signal=USR2", *jobs(cluster, "running"))
        output, _ = sweep.communicate(timeout=400)
    finally:
        sweep.kill()
    assert sweep.returncode == 1
    assert "1 of 1 cells failed" in output
    assert "timed-out too many times" in output


def test_a_running_job_that_is_cancelled_fails_its_cell_and_leaves_the_others(cluster: Cluster) -> None:
    Path("slow.py").write_text(SLOW)
    sweep = started_beside(*ONE_CELL, "seed=0,1")
    try:
        wait_for(lambda: len(jobs(cluster, "running")) == 2 and epochs(), sweep)
        cancelled = jobs(cluster, "running")[0]
        cluster.command("scancel", cancelled)
        output, _ = sweep.communicate(timeout=400)
    finally:
        sweep.kill()
    assert sweep.returncode == 1
    assert "1 of 2 cells failed" in output
    assert f"its job {cancelled} ended as CANCELLED with the words: slurmstepd" in output


def test_a_mistake_that_shows_in_the_job_only_is_told(cluster: Cluster) -> None:
    Path("here_only.py").write_text("import os\nif 'SLURM_JOB_ID' in os.environ:\n    raise ImportError('not on the nodes')\n")
    outcome = bench("-m", *SMALL, "attack=badnets", "defense=none", "sweep=one", "cluster=slurm", "imports=[here_only]")
    assert outcome.code == 1
    assert "ended as COMPLETED with the words: ImportError: not on the nodes" in outcome.errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_cancels_its_jobs(number: signal.Signals, cluster: Cluster) -> None:
    Path("slow.py").write_text(SLOW)
    sweep = started_beside(*ONE_CELL, "seed=0,1,2")
    try:
        wait_for(lambda: len(jobs(cluster, "running")) == 2 and jobs(cluster, "pending"), sweep)
        sweep.send_signal(number)
        output, _ = sweep.communicate(timeout=60)
    finally:
        sweep.kill()
    assert sweep.returncode == 130
    assert "The jobs are cancelled." in output
    assert "interrupted; the same command goes on where it was" in output
    assert "Traceback" not in output
    assert jobs(cluster, "pending") == jobs(cluster, "running") == []
