"""Sweeps on a real Slurm: the table of one process, nothing trained twice, nothing lost to a cancelled job or a dead node."""

import json
import sys
from pathlib import Path

import pytest
from app_runner import bench, made, rows
from cluster import Cluster
from slurm_sweeps import ON_SLURM, SWEEP, WITNESS, jobs, started_beside, wait_for, witnessed

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sweep was run without Slurm."""
    folder = tmp_path_factory.mktemp("threads")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outcome = bench(*SWEEP)
        assert outcome.code == 0, outcome.errors
    return folder


def check_same(undisturbed: Path) -> None:
    """The same table here as there, of models that are the same to the last byte."""
    assert rows("grid") == rows("grid", undisturbed)
    assert made(Path()) == made(undisturbed) != {}


def backdoored_models() -> set[str]:
    """The names of those in the store."""
    records = Path("outputs/store").glob("victim-*/record.json")
    found = {record.parent.name for record in records if json.loads(record.read_text())["notes"]["poisons"]}
    assert found
    return found


def test_a_sweep_gives_the_table_of_one_process(cluster: Cluster, undisturbed: Path) -> None:
    Path("witness.py").write_text(WITNESS)
    outcome = bench(*SWEEP, *ON_SLURM, "tracking=offline")
    sys.modules["wandb"].teardown()  # its service must not outlive the test: it would be taken for a part of the cluster
    assert outcome.code == 0, outcome.errors
    assert "Sweep grid: all 6 cells done." in outcome.output
    check_same(undisturbed)
    trained = witnessed("trains")
    assert len(trained) == len(set(trained)) == 3  # two backdoored models and the clean one
    assert not backdoored_models() & set(witnessed("waits for"))
    # W&B runs are written by the command, once each: six cells and the table.
    assert len(list(Path("outputs/sweeps/grid/tracked").glob("[!.]*"))) == 7
    assert len(list(Path("outputs/sweeps/grid/wandb").glob("offline-run-*"))) == 7

    following = cluster.next_job()
    again = bench(*SWEEP, *ON_SLURM)
    assert again.code == 0, again.errors
    assert again.output.count("(stored)") == 6
    assert cluster.next_job() == following


def test_a_cancelled_job_and_a_dead_node_in_the_middle(cluster: Cluster, undisturbed: Path) -> None:
    Path("witness.py").write_text(WITNESS)
    sweep = started_beside(*SWEEP, *ON_SLURM)
    try:
        wait_for(lambda: len(jobs(cluster, "pending") + jobs(cluster, "running")) == 7, sweep)
        wait_for(lambda: jobs(cluster, "running", "n2"), sweep)
        cancelled = jobs(cluster, "pending")[-1]
        cluster.command("scancel", cancelled)
        (lost,) = jobs(cluster, "running", "n2")
        cluster.kill_node("n2")
        wait_for(lambda: lost in jobs(cluster, "pending"), sweep)
        cluster.resume_node("n2")
        output, _ = sweep.communicate(timeout=400)
    finally:
        sweep.kill()
    assert sweep.returncode == 1
    assert "1 of 6 cells failed; the same command runs these again" in output
    assert f"sig x ft, seed 0: its job {cancelled} left the queue before it wrote anything" in output
    assert "Traceback" not in output
    assert sorted(row["state"] for row in rows("grid")) == ["done"] * 5 + ["failed"]

    following = cluster.next_job()
    again = bench(*SWEEP, *ON_SLURM)
    assert again.code == 0, again.errors
    assert cluster.next_job() == following + 1
    check_same(undisturbed)
